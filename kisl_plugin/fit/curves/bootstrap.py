"""Bootstrap of collapse points: the triples are drawn anew, the same ones for every model and frequency.

It shows what the intervals of single curves cannot: how the errors of models that were asked the same triples hang
together, and so what they do to a law. Runs are too few to be drawn anew; their noise is drawn from the normal
distribution of log-odds that was estimated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from kisl_plugin.errors import InputError
from kisl_plugin.fit.curves.climb import MIDDLING, maximise
from kisl_plugin.fit.curves.curve import FLAT, CollapseCurve
from kisl_plugin.fit.curves.likelihood import LOG_F_STAR, STEEPNESS, Cells, FloatArray, rate
from kisl_plugin.fit.curves.survey import highest

AT_ONCE = 200  # draws of weights that are held in memory
LEAST = 1e-9


@dataclass(frozen=True)
class Runs:
    """One model: its fitted curve, and frequency, correct and total of each of its runs [R]."""

    curve: CollapseCurve
    frequency: FloatArray
    correct: FloatArray
    total: FloatArray


def bootstrap_collapse_points(
    models: Sequence[Runs],
    outcomes: FloatArray | None = None,
    draws: int = 2000,
    seed: int = 0,
    watch: Callable[[int], None] = lambda done: None,
) -> FloatArray:
    """F* [draws, M] of M models; NaN where a drawn curve is flat.

    `outcomes` [T, ΣR] (1 right, 0 wrong, NaN not asked), the runs of all models side by side, lets triples be drawn;
    without it each count is drawn by itself from its binomial distribution. `watch` is told the models done.

    Raises:
        InputError: the outcomes have other columns than the models have runs, or a model has no fitted curve.
    """
    rng = np.random.default_rng(seed)
    runs = sum(len(model.total) for model in models)
    if outcomes is not None and outcomes.shape[1] != runs:
        raise InputError(f"outcomes have {outcomes.shape[1]} columns; the models have {runs} runs")
    if any(not model.curve.theta for model in models):
        raise InputError("a model without a fitted curve cannot be drawn anew")
    drawn = _triples_anew(outcomes, draws, rng) if outcomes is not None else _counts_anew(models, draws, rng)
    ends = np.cumsum([len(model.total) for model in models])
    columns = zip(models, np.split(drawn[0], ends[:-1], axis=1), np.split(drawn[1], ends[:-1], axis=1), strict=True)
    f_star = np.empty((draws, len(models)))
    for at, (model, correct, total) in enumerate(columns):
        f_star[:, at] = _refit(model, _cells(model, correct, total, rng))
        watch(at + 1)
    return f_star


def _triples_anew(outcomes: FloatArray, draws: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Right and asked [draws, ΣR], of as many triples as there are, drawn with replacement."""
    triples, asked = len(outcomes), np.isfinite(outcomes)
    everywhere = bool(asked.all())
    right = np.where(asked, outcomes, 0.0).astype(np.float32)
    correct, total = np.empty((draws, right.shape[1])), np.full((draws, right.shape[1]), float(triples))
    for first in range(0, draws, AT_ONCE):
        some = min(AT_ONCE, draws - first)
        chosen = rng.integers(0, triples, (some, triples), dtype=np.int32)
        chosen += np.arange(some, dtype=np.int32)[:, None] * triples
        weight = np.bincount(chosen.ravel(), minlength=some * triples).reshape(some, triples).astype(np.float32)
        correct[first : first + some] = weight @ right
        if not everywhere:
            total[first : first + some] = weight @ asked.astype(np.float32)
    return correct, np.maximum(total, 1.0)


def _counts_anew(models: Sequence[Runs], draws: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    correct = np.concatenate([model.correct for model in models])
    total = np.concatenate([model.total for model in models])
    drawn = rng.binomial(total.astype(np.int64), correct / total, size=(draws, len(total))).astype(np.float64)
    return drawn, np.broadcast_to(total, drawn.shape)


def _cells(model: Runs, correct: FloatArray, total: FloatArray, rng: np.random.Generator) -> Cells:
    """The drawn runs pooled by frequency, moved by their noise, as effective items."""
    distinct, cell = np.unique(model.frequency, return_inverse=True)
    member = (cell[:, None] == np.arange(len(distinct))).astype(np.float64)
    concentration, tau = model.total**2 @ member / (model.total @ member) ** 2, model.curve.tau
    asked = total @ member
    share = (correct @ member) / asked
    if tau > 0:
        moved = logit(np.clip(share, LEAST, 1 - LEAST)) + tau * np.sqrt(concentration) * rng.standard_normal(
            share.shape
        )
        share = expit(moved)
    fitted = rate(distinct, np.array([model.curve.theta]), model.curve.floor)
    effective = 1 / (1 / asked + tau**2 * fitted * (1 - fitted) * concentration)
    return Cells(distinct, share * effective, effective, model.curve.floor)


def _refit(model: Runs, cells: Cells) -> FloatArray:
    """F* [draws]: climbs from the fitted curve; with a floor, also from both ends of its interval."""
    theta = np.array(model.curve.theta)
    starts = [theta]
    for end in model.curve.f_star_interval if cells.floor else ():
        if end is not None:
            starts.append(np.array([theta[0], theta[1], np.log(end)]))
    climbs = [maximise(cells, np.tile(start, (len(cells.correct), 1)), tolerance=MIDDLING) for start in starts]
    best, _ = highest([curves for curves, _ in climbs], [reached for _, reached in climbs])
    return np.where(best[:, STEEPNESS] > FLAT, np.exp(best[:, LOG_F_STAR]), np.nan)
