"""The collapse curve of one model: P(F) = g + (1-g)·a·F^b·exp(-c·F), collapse point F* = b/c (arXiv 2509.19371)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from kisl_plugin.errors import InputError
from kisl_plugin.fit.curves.fall import p_value_of_no_fall
from kisl_plugin.fit.curves.likelihood import (
    LARGEST_B,
    LOG_F_STAR,
    LOG_HEIGHT,
    STEEPNESS,
    Cells,
    FloatArray,
    log_share,
    saturated,
)
from kisl_plugin.fit.curves.profile import Landscape, f_star_interval, peak_interval, survey
from kisl_plugin.fit.curves.status import FORM_REJECTED, NO_COLLAPSE, NOT_IDENTIFIED, OK, TOO_FEW_POINTS

FEWEST_FREQUENCIES = 4
FALL_P = 0.05
FORM_P = 0.01
FLAT = 1e-6  # b below this is a flat curve, whose F* is any


@dataclass(frozen=True, kw_only=True)
class CollapseCurve:
    """A fitted curve. Only where `status` is "ok" is F* a finding; else the numbers are mere estimates, NaN if none.

    `f_star_interval` and `peak_interval` are 95 % profile-likelihood intervals under binomial noise; an open end
    is None. `peak` is P(F*), guessing included. `deviance` is against every cell at its own share.
    """

    status: str
    message: str
    floor: float
    frequency_range: tuple[float, float]
    a: float = np.nan
    b: float = np.nan
    c: float = np.nan
    f_star: float = np.nan
    f_star_interval: tuple[float | None, float | None] = (None, None)
    peak: float = np.nan
    peak_interval: tuple[float, float] = (np.nan, np.nan)
    log_likelihood: float = np.nan
    deviance: float = np.nan
    p_form: float = np.nan
    p_fall: float = np.nan

    @property
    def ok(self) -> bool:
        """Whether a collapse point was found."""
        return self.status == OK

    def rate(self, frequency: ArrayLike) -> FloatArray:
        """P at frequencies of any shape (all > 0)."""
        at = np.asarray(frequency, dtype=np.float64)
        if np.isnan(self.f_star):  # flat, or not fitted at all
            return np.full_like(at, self.peak)
        height = np.log((self.peak - self.floor) / (1 - self.floor))
        theta = np.array([[height, self.b, np.log(self.f_star)]])
        share = np.exp(log_share(at.ravel(), theta)).reshape(at.shape)
        return np.asarray(self.floor + (1 - self.floor) * share)


def fit_collapse_curve(
    frequency: Sequence[float] | FloatArray,
    correct: Sequence[int] | FloatArray,
    total: Sequence[int] | FloatArray,
    floor: float = 0.0,
) -> CollapseCurve:
    """Binomial maximum likelihood of the collapse curve, peak ≤ 1, with a status that says what it is worth.

    `correct` [K] of `total` [K] items were right at `frequency` [K] (> 0, any order; repeated frequencies are
    pooled); `floor` is the share that guessing gets right, 0 for the paper's form.

    Raises:
        InputError: the lengths differ, or a value is outside its range.
    """
    cells = _pooled(*_checked(frequency, correct, total, floor), floor=float(floor))
    reach = (float(cells.frequency[0]), float(cells.frequency[-1]))
    if len(cells.frequency) < FEWEST_FREQUENCIES:
        return CollapseCurve(
            status=TOO_FEW_POINTS,
            message=f"{len(cells.frequency)} distinct frequencies; at least {FEWEST_FREQUENCIES} are needed",
            floor=cells.floor,
            frequency_range=reach,
        )
    curve = _estimate(survey(cells), reach)
    status, message = _judge(curve)
    return replace(curve, status=status, message=message)


def _checked(
    frequency: Sequence[float] | FloatArray,
    correct: Sequence[int] | FloatArray,
    total: Sequence[int] | FloatArray,
    floor: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    F, k, n = (np.asarray(values, dtype=np.float64) for values in (frequency, correct, total))
    if not (F.ndim == 1 and F.shape == k.shape == n.shape and len(F)):
        raise InputError(
            f"frequency, correct and total have shapes {F.shape}, {k.shape}, {n.shape}; expected one row each"
        )
    for name, values, wrong, expected in (
        ("frequency", F, ~(np.isfinite(F) & (F > 0)), "more than 0 (runs at F = 0 measure the floor)"),
        ("total", n, ~(np.isfinite(n) & (n > 0) & (n % 1 == 0)), "a whole number above 0"),
        ("correct", k, ~((k >= 0) & (k <= n) & (k % 1 == 0)), "a whole number from 0 to total"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(f"{name}[{at}] is {values[at]:g}; expected {expected}")
    if not 0 <= floor < 1:
        raise InputError(f"floor is {floor!r}; expected a share from 0 to below 1")
    return F, k, n


def _pooled(frequency: FloatArray, correct: FloatArray, total: FloatArray, *, floor: float) -> Cells:
    distinct, at = np.unique(frequency, return_inverse=True)
    correct, total = (np.bincount(at, counts).astype(np.float64) for counts in (correct, total))
    return Cells(distinct, correct, total, floor)


def _estimate(land: Landscape, reach: tuple[float, float]) -> CollapseCurve:
    cells, height, b = land.cells, float(np.exp(land.best[LOG_HEIGHT])), float(land.best[STEEPNESS])
    f_star = float(np.exp(land.best[LOG_F_STAR])) if b > FLAT else np.nan
    deviance = max(0.0, 2 * (saturated(cells.correct, cells.total) - land.log_likelihood))
    return CollapseCurve(
        status=NOT_IDENTIFIED,
        message="",
        floor=cells.floor,
        frequency_range=reach,
        a=height * float(np.exp(b * (1 - land.best[LOG_F_STAR]))) if b > FLAT else height,
        b=b,
        c=b / f_star if b > FLAT else 0.0,
        f_star=f_star,
        f_star_interval=f_star_interval(land),
        peak=cells.floor + (1 - cells.floor) * height,
        peak_interval=peak_interval(land),
        log_likelihood=land.log_likelihood,
        deviance=deviance,
        p_form=float(chi2.sf(deviance, len(cells.frequency) - 3)),
        p_fall=p_value_of_no_fall(cells.correct, cells.total),
    )


def _judge(curve: CollapseCurve) -> tuple[str, str]:
    """The status and its sentence: the tests that need no form come first."""
    smallest, largest = curve.frequency_range
    low, high = curve.f_star_interval
    none = f"{NO_COLLAPSE}{largest:g}"
    if curve.p_fall >= FALL_P:
        return none, f"a curve that only rises fits as well (p = {curve.p_fall:.2g})"
    if curve.p_form < FORM_P:
        return FORM_REJECTED, f"the curve's form does not fit the counts (deviance, p = {curve.p_form:.2g})"
    if high is None or high >= largest:
        return none, f"the 95 % interval of F* does not exclude F={largest:g}"
    if low is None or low <= smallest:
        return NOT_IDENTIFIED, f"the 95 % interval of F* does not exclude F={smallest:g}: probe smaller frequencies"
    if curve.b > LARGEST_B * 0.99:
        return NOT_IDENTIFIED, "the peak is narrower than the frequencies can show: probe between them"
    return OK, f"collapse point {curve.f_star:.4g} (95 % interval {low:.4g} to {high:.4g})"
