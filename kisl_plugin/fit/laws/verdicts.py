"""The paper's three signs that the infusion law does not hold, each with a verdict."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.human import count
from kisl_plugin.fit.laws.hold_out import HeldOut, hold_out
from kisl_plugin.fit.laws.law import FEWEST_MODELS
from kisl_plugin.fit.laws.points import CollapsePoint, FloatArray, log_errors

UNIMODAL, MONOTONE, EXTRAPOLATES = "unimodal curves", "F* falls with size", "extrapolation"
OK, NOT_UNIMODAL = "ok", "not unimodal"  # statuses of curves
TOLERANCE = 0.20
SIGNIFICANT = 0.05
DRAWS, SEED = 10_000, 2509


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`passed` is None where the data cannot tell."""

    name: str
    passed: bool | None
    sentence: str


def judge(statuses: Sequence[str], points: Sequence[CollapsePoint]) -> tuple[Verdict, Verdict, Verdict]:
    """The three verdicts from the statuses of all curves and the collapse points of those that are ok."""
    return unimodal(statuses), monotone(points), extrapolates(points)


def unimodal(statuses: Sequence[str]) -> Verdict:
    """Failed where a curve's order-restricted test rejects a single rise and fall."""
    failed, fine = statuses.count(NOT_UNIMODAL), statuses.count(OK)
    if failed:
        return Verdict(name=UNIMODAL, passed=False, sentence=f"not unimodal: {failed} of {len(statuses)} curves")
    if not fine:
        return Verdict(name=UNIMODAL, passed=None, sentence="no curve shows a collapse")
    sentence = f"{fine} of {len(statuses)} curves rise, then fall; none rises again beyond chance"
    return Verdict(name=UNIMODAL, passed=True, sentence=sentence)


def monotone(points: Sequence[CollapsePoint]) -> Verdict:
    """Failed where F* rises with N at one D, passed where it falls, beyond the errors at p < 0.05.

    The largest (log F* difference / its error) of all pairs of sizes, against its distribution were all F* of one
    D the same (10,000 draws), times the number of D.
    """
    budgets = [group for group in _by_tokens(points) if len({point.params for point in group}) > 1]
    if not budgets:
        return Verdict(name=MONOTONE, passed=None, sentence="no D has collapse points of two sizes")
    known = [(errors, group) for group in budgets if (errors := _errors(group)) is not None]
    if not known:
        sentence = "no interval of F* is known, so no rise can be told from chance"
        return Verdict(name=MONOTONE, passed=None, sentence=sentence)
    rises, falls = (min(1.0, len(known) * min(_p_of_change(*pair, way) for pair in known)) for way in (1, -1))
    if rises < SIGNIFICANT:
        return Verdict(
            name=MONOTONE, passed=False, sentence=f"F* rises with N at one D beyond its errors (p = {rises:.2g})"
        )
    if falls < SIGNIFICANT:
        sentence = f"F* falls with N at one D (p = {falls:.2g}); no rise beyond the errors (p = {rises:.2g})"
        return Verdict(name=MONOTONE, passed=True, sentence=sentence)
    sentence = f"neither a rise (p = {rises:.2g}) nor a fall (p = {falls:.2g}) of F* with N is told from the errors"
    return Verdict(name=MONOTONE, passed=None, sentence=sentence)


def extrapolates(points: Sequence[CollapsePoint]) -> Verdict:
    """Failed where the law of the smaller models misses the largest one of any D by more than 20 %."""
    held = [
        hold_out(group, max(point.params for point in group))[0]
        for group in _by_tokens(points)
        if len({point.params for point in group}) > FEWEST_MODELS
    ]
    if not held:
        sentence = f"no D has {FEWEST_MODELS + 1} sizes, the largest to be predicted from the others"
        return Verdict(name=EXTRAPOLATES, passed=None, sentence=sentence)
    worst = max(held, key=lambda found: abs(found.ratio - 1))
    return Verdict(name=EXTRAPOLATES, passed=bool(abs(worst.ratio - 1) <= TOLERANCE), sentence=_missed(worst))


def _missed(worst: HeldOut) -> str:
    at = f"N = {count(worst.params)} at D = {count(worst.tokens)}"
    missed = f"{at}, left out: {worst.words}; ±{100 * TOLERANCE:.0f} % is allowed"
    beyond = abs(worst.ratio - 1) > TOLERANCE
    return f"{missed}, but the errors alone may miss by as much" if beyond and worst.inside else missed


def _by_tokens(points: Sequence[CollapsePoint]) -> list[list[CollapsePoint]]:
    budgets: dict[int, list[CollapsePoint]] = defaultdict(list)
    for point in sorted(points, key=lambda point: (point.tokens, point.params)):
        budgets[point.tokens].append(point)
    return list(budgets.values())


def _errors(group: Sequence[CollapsePoint]) -> FloatArray | None:
    return log_errors([point.f_star for point in group], [point.interval for point in group])


def _p_of_change(errors: FloatArray, group: Sequence[CollapsePoint], way: int) -> float:
    """The p-value of "no two sizes differ" against a rise (1) or a fall (-1) from a smaller to a larger."""
    larger = np.array([[b.params > a.params for b in group] for a in group])
    scale = np.where(larger, np.hypot(errors[:, None], errors), np.inf)
    observed = _largest_change(way * np.log([point.f_star for point in group])[None], scale)[0]
    null = np.random.default_rng(SEED).normal(size=(DRAWS, len(group))) * errors
    return float((1 + (_largest_change(null, scale) >= observed).sum()) / (1 + DRAWS))


def _largest_change(y: FloatArray, scale: FloatArray) -> FloatArray:
    """The largest (later - earlier) / scale [B] of y [B, M]."""
    return np.asarray(((y[:, None, :] - y[:, :, None]) / scale).max(axis=(1, 2)))
