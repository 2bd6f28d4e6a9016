"""The binomial likelihood of collapse curves, many at once, and its maximum by Fisher scoring.

Written in log q (q = the curve's height at F*), b and φ = log F*, the curve a·F^b·exp(-c·F) is
exp(log q - b·h(F/F*)) with h(x) = x - 1 - log x ≥ 0. So `peak ≤ 1` and `b ≥ 0` are plain bounds, and for a
given F* without floor the problem is concave. These three are far less correlated than log a, b and log c.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LOG_HEIGHT, STEEPNESS, LOG_F_STAR = range(3)
LARGEST_B = 50.0  # a peak narrower than this falls between any two frequencies of a grid
SMALLEST_HEIGHT = 1e-9
REACH = np.log(30.0)  # F* is looked for so far beyond the frequencies

ITERATIONS, HALVINGS = 200, 25
FINE, COARSE = 1e-10, 1e-2  # steps that gain less log-likelihood end the climb
LARGEST_STEP = 2.0
AT_BOUND = 1e-6  # nearer than this a step towards the bound is cut so short that the others go astray
SURE = -1e-12  # the log share nearest to 0, where the curve touches P = 1
LOG_SMALLEST = -700.0  # what exp can hold


@dataclass(frozen=True)
class Cells:
    """Counts [K] at K frequencies: `correct` of `total` items; `floor` is what guessing reaches."""

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    floor: float

    @property
    def lower(self) -> FloatArray:
        """The least values [3] of the parameters."""
        return np.array([np.log(SMALLEST_HEIGHT), 0.0, np.log(self.frequency.min()) - REACH])

    @property
    def upper(self) -> FloatArray:
        """The largest values [3] of the parameters."""
        return np.array([0.0, LARGEST_B, np.log(self.frequency.max()) + REACH])


def log_share(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """log(a·F^b·exp(-c·F)) [M, K] of M curves theta [M, 3] at frequencies [K]."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    h = np.expm1(log_x) - log_x
    return np.asarray(theta[:, LOG_HEIGHT, None] - theta[:, STEEPNESS, None] * h)


def log_likelihood(cells: Cells, theta: FloatArray) -> FloatArray:
    """Binomial log-likelihood [M] of M curves, without the binomial coefficients."""
    eta = np.minimum(log_share(cells.frequency, theta), SURE)
    with np.errstate(divide="ignore"):
        log_right = np.logaddexp(np.log(cells.floor), np.log1p(-cells.floor) + eta)
    log_wrong = np.log1p(-cells.floor) + np.log(-np.expm1(eta))
    return np.asarray((cells.correct * log_right + (cells.total - cells.correct) * log_wrong).sum(axis=1))


def saturated(correct: FloatArray, total: FloatArray) -> float:
    """The largest log-likelihood of any curve: every cell at its own share."""
    share = correct / total
    return float(_xlogy(correct, share).sum() + _xlogy(total - correct, 1 - share).sum())


def maximise(
    cells: Cells, start: FloatArray, free: BoolArray, tolerance: float = FINE
) -> tuple[FloatArray, FloatArray]:
    """Climb from each start [M, 3], moving the `free` [3] parameters only, to curves [M, 3] and likelihoods [M]."""
    theta = np.clip(start, cells.lower, cells.upper)
    value = log_likelihood(cells, theta)
    rows = np.arange(len(theta))
    for _ in range(ITERATIONS):
        step = _step(cells, theta[rows], free)
        theta[rows], higher = _climb(cells, theta[rows], value[rows], step)
        gain, value[rows] = higher - value[rows], higher
        rows = rows[gain > tolerance]
        if not len(rows):
            break
    return theta, value


def _step(cells: Cells, theta: FloatArray, free: BoolArray) -> FloatArray:
    """The scoring step [M, 3]; a parameter at its bound that wants to leave stays."""
    log_x = np.log(cells.frequency) - theta[:, LOG_F_STAR, None]
    beyond = np.expm1(log_x)
    slope = np.stack([np.ones_like(log_x), log_x - beyond, theta[:, STEEPNESS, None] * beyond], axis=1)
    eta = np.clip(log_share(cells.frequency, theta), LOG_SMALLEST, SURE)
    rise = (1 - cells.floor) * np.exp(eta)  # dP / d eta
    right, wrong = cells.floor + rise, (1 - cells.floor) * -np.expm1(eta)
    score = (cells.correct - cells.total * right) / wrong * (rise / right)
    weight = cells.total * rise / wrong * (rise / right)
    gradient = np.einsum("mk,mpk->mp", score, slope)
    information = np.einsum("mk,mpk,mqk->mpq", weight, slope, slope)
    low, high = theta <= cells.lower + AT_BOUND, theta >= cells.upper - AT_BOUND
    stuck = ~free | (low & (gradient < 0)) | (high & (gradient > 0))
    return _solve(np.where(stuck, 0.0, gradient), information, stuck)


def _solve(gradient: FloatArray, information: FloatArray, stuck: BoolArray) -> FloatArray:
    information = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, information)
    diagonal = np.arange(3)
    information[:, diagonal, diagonal] *= 1 + 1e-9
    information[:, diagonal, diagonal] += np.where(stuck, 1.0, 1e-10)
    step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return np.asarray(step * np.minimum(1.0, LARGEST_STEP / np.maximum(longest, LARGEST_STEP)))


def _climb(cells: Cells, theta: FloatArray, value: FloatArray, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Halve each step until it does not go down; a row that cannot rise stays."""
    best, height = theta.copy(), value.copy()
    rows, factor = np.arange(len(theta)), 1.0
    for _ in range(HALVINGS):
        trial = np.clip(theta[rows] + factor * step[rows], cells.lower, cells.upper)
        reached = log_likelihood(cells, trial)
        up = reached >= value[rows]
        best[rows[up]], height[rows[up]] = trial[up], reached[up]
        rows, factor = rows[~up], factor / 2
        if not len(rows):
            break
    return best, height


def _xlogy(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(np.where(x > 0, x * np.log(np.where(x > 0, y, 1.0)), 0.0))
