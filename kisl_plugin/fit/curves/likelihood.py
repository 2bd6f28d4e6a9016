"""The binomial likelihood of collapse curves, of many sweeps at once.

Written in log q (q = the curve's height at F*), b and φ = log F*, the curve a·F^b·exp(-c·F) is
exp(log q - b·h(F/F*)) with h(x) = x - 1 - log x ≥ 0. So `peak ≤ 1` and `b ≥ 0` are plain bounds, and without floor
the problem is concave in log a, b and c. These three are far less correlated than log a, b and log c.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

LOG_HEIGHT, STEEPNESS, LOG_F_STAR = range(3)
LARGEST_B = 12.0  # P rises as F^12 there: a peak so narrow falls between two frequencies of a usual grid
SMALLEST_HEIGHT = 1e-9
REACH = np.log(30.0)  # F* is looked for so far beyond the frequencies
SURE = -1e-12  # the log share nearest to 0, where the curve touches P = 1
LOG_SMALLEST = -700.0  # what exp can hold


@dataclass(frozen=True)
class Cells:
    """Counts [M, K] of M sweeps at K frequencies: `correct` of `total` items; `floor` is what guessing reaches.

    Counts need not be whole: run-to-run noise makes fewer effective items of them.
    """

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    floor: float

    @property
    def share(self) -> FloatArray:
        """The shares right [M, K]."""
        return self.correct / self.total

    @property
    def lower(self) -> FloatArray:
        """The least values [3] of the parameters."""
        return np.array([np.log(SMALLEST_HEIGHT), 0.0, np.log(self.frequency.min()) - REACH])

    @property
    def upper(self) -> FloatArray:
        """The largest values [3] of the parameters."""
        return np.array([0.0, LARGEST_B, np.log(self.frequency.max()) + REACH])

    def take(self, rows: IntArray | BoolArray) -> "Cells":
        """Some of the sweeps, or some of them several times."""
        return Cells(self.frequency, self.correct[rows], self.total[rows], self.floor)

    def with_total(self, total: FloatArray) -> "Cells":
        """The same shares of `total` [M, K] items."""
        return Cells(self.frequency, self.share * total, total, self.floor)


def log_share(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """log(a·F^b·exp(-c·F)) [M, K] of M curves theta [M, 3] at frequencies [K]."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    return np.asarray(theta[:, LOG_HEIGHT, None] - theta[:, STEEPNESS, None] * (np.expm1(log_x) - log_x))


def rate(frequency: FloatArray, theta: FloatArray, floor: float) -> FloatArray:
    """P(F) [M, K] of M curves theta [M, 3] at frequencies [K], guessing included."""
    return np.asarray(floor + (1 - floor) * np.exp(np.clip(log_share(frequency, theta), LOG_SMALLEST, 0.0)))


def slopes(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """Derivatives [M, 3, K] of log share by theta."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    beyond = np.expm1(log_x)
    return np.stack([np.ones_like(log_x), log_x - beyond, theta[:, STEEPNESS, None] * beyond], axis=1)


def log_likelihood(cells: Cells, theta: FloatArray) -> FloatArray:
    """Binomial log-likelihood [M] of M curves for M sweeps, without the binomial coefficients."""
    eta = np.minimum(log_share(cells.frequency, theta), SURE)
    wrong = np.log(-np.expm1(eta))
    if cells.floor:
        right = np.log(cells.floor + (1 - cells.floor) * np.exp(eta))
        wrong += np.log1p(-cells.floor)
    else:
        right = eta
    return np.asarray((cells.correct * (right - wrong) + cells.total * wrong).sum(axis=1))


def saturated(cells: Cells) -> FloatArray:
    """The largest log-likelihoods [M] of any curve: every cell at its own share."""
    return np.asarray(block(cells.correct, cells.total).sum(axis=1))


def block(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Log-likelihoods of counts at their own share, any shape."""
    share = correct / total
    with np.errstate(divide="ignore", invalid="ignore"):
        hit, miss = correct * np.log(share), (total - correct) * np.log1p(-share)
    return np.asarray(np.where(correct > 0, hit, 0.0) + np.where(correct < total, miss, 0.0))
