"""Counts as users give them, checked before anything is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kisl_plugin.errors import InputError
from kisl_plugin.fit.curves.likelihood import FloatArray
from kisl_plugin.fit.curves.losses import LOSSES


@dataclass(frozen=True)
class Counts:
    """One sweep: per run [R] its frequency and how many of its items were right; per triple and run, which [T, R]."""

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    outcomes: FloatArray | None


def check_counts(frequency: ArrayLike, correct: ArrayLike, total: ArrayLike, outcomes: ArrayLike | None) -> Counts:
    """The counts as arrays, runs in order of frequency, then of counts, so that their order changes nothing.

    Raises:
        InputError: shapes differ, a value is outside its range, or the outcomes are not those of the counts.
    """
    F, k, n = (np.asarray(values, dtype=np.float64) for values in (frequency, correct, total))
    if not (F.ndim == 1 and F.shape == k.shape == n.shape and len(F)):
        raise InputError(
            f"frequency, correct and total have shapes {F.shape}, {k.shape}, {n.shape}; expected one row each"
        )
    _refuse("frequency", F, ~(np.isfinite(F) & (F > 0)), "more than 0 (runs at F = 0 measure the floor)")
    _refuse("total", n, ~(np.isfinite(n) & (n > 0) & (n % 1 == 0)), "a whole number above 0")
    _refuse("correct", k, ~((k >= 0) & (k <= n) & (k % 1 == 0)), "a whole number from 0 to total")
    order = np.lexsort((n, k, F))
    paired = None if outcomes is None else _check_outcomes(np.asarray(outcomes, dtype=np.float64), k, n)[:, order]
    return Counts(F[order], k[order], n[order], paired)


def check_floor(floor: float, floor_error: float) -> None:
    """Raises InputError unless the floor is a share below 1 and its standard error is none or positive."""
    if not 0 <= floor < 1:
        raise InputError(f"floor is {floor!r}; expected a share from 0 to below 1")
    if not 0 <= floor_error < 1:
        raise InputError(f"floor_error is {floor_error!r}; expected a standard error from 0 to below 1")


def check_loss(loss: str) -> None:
    """Raises InputError unless the loss is known."""
    if loss not in LOSSES:
        raise InputError(f"loss is {loss!r}; expected {', '.join(LOSSES[:-1])} or {LOSSES[-1]}")


def _refuse(name: str, values: FloatArray, wrong: Sequence[bool] | np.ndarray, expected: str) -> None:
    if np.any(wrong):
        at = int(np.argmax(wrong))
        raise InputError(f"{name}[{at}] is {values[at]:g}; expected {expected}")


def _check_outcomes(outcomes: FloatArray, correct: FloatArray, total: FloatArray) -> FloatArray:
    if outcomes.ndim != 2 or outcomes.shape[1] != len(correct):
        raise InputError(f"outcomes have shape {outcomes.shape}; expected a row per triple and {len(correct)} columns")
    known = np.isfinite(outcomes)
    if not np.isin(outcomes[known], (0.0, 1.0)).all():
        raise InputError("outcomes hold other values than 1 (right), 0 (wrong) and NaN (not asked)")
    for name, found, given in (("items", known.sum(axis=0), total), ("right", np.nansum(outcomes, axis=0), correct)):
        if (found != given).any():
            at = int(np.argmax(found != given))
            raise InputError(f"outcomes of run {at} hold {found[at]:g} {name}; its counts say {given[at]:g}")
    return outcomes
