"""What a user would do without this package: scipy's curve_fit, and least squares on logs, each with its interval."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import norm, t

from recovery.seen import covers
from recovery.truths import FloatArray, Truth

START = (0.1, 0.5, 1e-3)  # of a, b, c
MOST_CALLS = 10_000
FEWEST = 50  # answers on ok draws, for an efficiency
NO_ANSWER = (np.nan, np.nan, np.nan)
Answer = tuple[float, float, float]  # log F*, and the ends of its 95 % interval


@dataclass(frozen=True)
class Other:
    """How often it gave a finite F* > 0 with an interval; how often that holds F*; efficiency on draws that are ok."""

    answers: float
    coverage: float
    efficiency: float


def with_curve_fit(frequency: FloatArray, share: FloatArray, floor: float) -> Answer:
    """Least squares on shares by Levenberg and Marquardt, from one start; Wald interval from its covariance."""

    def curve(F: FloatArray, a: float, b: float, c: float) -> FloatArray:
        return np.asarray(floor + (1 - floor) * a * F**b * np.exp(-c * F))

    try:
        (_, b, c), covariance = curve_fit(curve, frequency, share, p0=START, maxfev=MOST_CALLS)
    except RuntimeError:  # no convergence
        return NO_ANSWER
    return _wald(b, c, covariance[1:, 1:], float(norm.ppf(0.975)))


def with_logs(frequency: FloatArray, share: FloatArray, floor: float) -> Answer:
    """Linear regression of log(share above the floor) on log F and F, without shares that have no log."""
    above = (share - floor) / (1 - floor)
    kept = above > 0
    free = int(kept.sum()) - 3
    if free < 1:
        return NO_ANSWER
    design = np.stack([np.ones(kept.sum()), np.log(frequency[kept]), -frequency[kept]], axis=1)
    found, left, rank, _ = np.linalg.lstsq(design, np.log(above[kept]), rcond=None)
    if rank < 3:
        return NO_ANSWER
    covariance = np.linalg.inv(design.T @ design) * left[0] / free
    return _wald(found[1], found[2], covariance[1:, 1:], float(t.ppf(0.975, free)))


def compare(truth: Truth, correct: FloatArray, ok: FloatArray) -> tuple[Other, Other]:
    """Both on the same counts [B, K]; `ok` tells which of these draws our estimator calls ok."""
    return _measure(with_curve_fit, truth, correct, ok), _measure(with_logs, truth, correct, ok)


def _wald(b: float, c: float, covariance: FloatArray, quantile: float) -> Answer:
    if not (b > 0 and c > 0 and np.isfinite(covariance).all()):
        return NO_ANSWER
    slope = np.array([1 / b, -1 / c])
    middle, reach = float(np.log(b / c)), quantile * float(np.sqrt(slope @ covariance @ slope))
    return middle, middle - reach, middle + reach


def _measure(
    way: Callable[[FloatArray, FloatArray, float], Answer], truth: Truth, correct: FloatArray, ok: FloatArray
) -> Other:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        answers = np.array([way(truth.frequency, row / truth.items, truth.floor) for row in correct])
    given, aim = np.isfinite(answers).all(axis=1), float(np.log(truth.f_star))
    both = given & np.asarray(ok, dtype=bool)
    efficiency = np.nan
    if both.sum() >= FEWEST:
        efficiency = truth.least_variance() / float(np.mean((answers[both, 0] - aim) ** 2))
    held = covers(answers[given, 1], answers[given, 2], aim)
    return Other(float(given.mean()), float(held.mean()) if given.any() else np.nan, efficiency)
