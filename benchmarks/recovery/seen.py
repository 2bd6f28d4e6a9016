"""What the estimator says of drawn counts, and whether it is so."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.fit.curve import Verdicts, judge
from kisl_plugin.fit.curve_estimate import fit_sweeps, pool
from kisl_plugin.fit.text import FORM_REJECTED, NO_COLLAPSE, NOT_IDENTIFIED, NOT_UNIMODAL, OK
from recovery.truths import FloatArray

STATUSES = (OK, NO_COLLAPSE, NOT_UNIMODAL, FORM_REJECTED, NOT_IDENTIFIED)
HEADINGS = ("ok", "no collapse", "not unimodal", "form rejected", "not identified")
ROUNDING = 1e-9


@dataclass(frozen=True)
class Seen:
    """Of B draws: statuses, log F* and the ends of its interval (NaN: open), the largest fall that is allowed [B]."""

    status: NDArray[np.str_]
    log_f_star: FloatArray
    low: FloatArray
    high: FloatArray
    allowed: FloatArray

    def share(self, status: str) -> float:
        return float((self.status == status).mean())

    def covers(self, log_f_star: float) -> NDArray[np.bool_]:
        """Which intervals [B] hold it; an open end does."""
        return covers(self.low, self.high, log_f_star)

    def wrong(self, ok_is_wrong: bool, fall: float) -> NDArray[np.bool_]:
        """Which verdicts [B] are against a truth that falls by `fall`, and of which `ok` may be wrong.

        `ok` says that it rises once and falls; `no collapse`, that it falls by no more than the verdict allows.
        """
        denied = (self.status == NO_COLLAPSE) & (self.allowed < fall - ROUNDING)
        return np.asarray(denied | ((self.status == OK) & ok_is_wrong))


def covers(low: FloatArray, high: FloatArray, value: float) -> NDArray[np.bool_]:
    """Which intervals hold the value; an open end (NaN) does."""
    return np.asarray((np.isnan(low) | (low <= value)) & (np.isnan(high) | (high >= value)))


def look(frequency: FloatArray, correct: FloatArray, items: int, floor: float) -> Seen:
    """Fit and judge counts [B, R] of runs at the frequencies [R]."""
    found: Verdicts = judge(fit_sweeps(pool(frequency, correct, np.full(correct.shape, float(items)), floor)))
    return Seen(found.status, found.fits.theta[:, 2], found.low, found.high, found.tests.largest_fall)


def joined(parts: list[Seen]) -> Seen:
    names = ("status", "log_f_star", "low", "high", "allowed")
    return Seen(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
