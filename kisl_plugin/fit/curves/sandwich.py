"""How uncertain the parameters of a curve are, when the shares scatter more, or together, than the likelihood knows."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from kisl_plugin.fit.curves.climb import AT_BOUND, expected_information
from kisl_plugin.fit.curves.likelihood import LOG_HEIGHT, FloatArray, log_share, rate, slopes
from kisl_plugin.fit.curves.sweeps import Sweeps

CONFIDENCE = 0.95
MOST = 1e10  # degrees of freedom; beyond it Student's t is the normal
SMALLEST_SHARE = 1e-12


@dataclass(frozen=True)
class Uncertainty:
    """How far log height, b and log F* [M] may be off.

    `covariance` [M, 3, 3] knows the items and the runs; `moved` [M, 3] is how far the parameters sink where the floor
    is higher by its standard error. `df` [M] are the degrees of freedom. `inflation` [M, 3] is the variance with all
    of it over the likelihood's, of the first parameter that of the peak, which a higher floor lifts.
    """

    covariance: FloatArray
    moved: FloatArray
    df: FloatArray
    inflation: FloatArray

    def drop(self, index: int) -> FloatArray:
        """How far [M] the profile of a parameter may fall below its top within its 95 % interval."""
        return np.asarray(self.inflation[:, index] * self.quantile**2 / 2)

    @property
    def quantile(self) -> FloatArray:
        """Student's t [M] that 95 % lie within; the normal's where nothing was estimated."""
        return np.asarray(stdtrit(np.minimum(self.df, MOST), (1 + CONFIDENCE) / 2))


def influence(sweeps: Sweeps, theta: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    """dP/dtheta [M, 3, K], and what a change of each share does to the estimates [M, 3, K], at `total` [M, K] items."""
    cells = sweeps.cells
    rates = np.clip(rate(cells.frequency, theta, cells.floor), SMALLEST_SHARE, 1 - SMALLEST_SHARE)
    rise = (1 - cells.floor) * np.exp(np.clip(log_share(cells.frequency, theta), -700, 0))
    gradient = slopes(cells.frequency, theta) * rise[:, None]
    return gradient, np.matmul(_inverse(sweeps, theta, total), gradient * (total / (rates * (1 - rates)))[:, None])


def uncertainty(
    sweeps: Sweeps, theta: FloatArray, total: FloatArray, tau2: FloatArray, df: FloatArray, floor_error: float
) -> Uncertainty:
    """The sandwich: what items, runs and the measured floor do to the estimates fitted with `total` effective items."""
    cells = sweeps.cells
    rates = rate(cells.frequency, theta, cells.floor)
    _, weighed = influence(sweeps, theta, total)
    v = rates * (1 - rates)
    of_items = np.einsum("mpj,mjk,mqk->mpq", weighed, sweeps.item_covariance(rates), weighed)
    of_runs = np.einsum("mpk,mk,mqk->mpq", weighed, tau2[:, None] * v**2 * sweeps.concentration, weighed)
    moved = np.einsum("mpk,mk->mp", weighed, (1 - rates) / (1 - cells.floor)) * floor_error
    covariance = of_items + of_runs
    of_model = np.einsum("mpk,mk,mqk->mpq", weighed, v / total, weighed)
    variance, model = (np.einsum("mpp->mp", matrix) for matrix in (covariance, of_model))
    height = np.exp(theta[:, LOG_HEIGHT])
    lifted = (1 - height) / ((1 - cells.floor) * height) * floor_error
    by_floor = np.column_stack([lifted - moved[:, LOG_HEIGHT], moved[:, LOG_HEIGHT + 1 :]])
    with np.errstate(divide="ignore", invalid="ignore"):
        inflation = np.where(model > 0, (variance + by_floor**2) / model, 1.0)
    return Uncertainty(covariance, moved, np.where(tau2 > 0, np.maximum(df, 1), np.inf), inflation)


def _inverse(sweeps: Sweeps, theta: FloatArray, total: FloatArray) -> FloatArray:
    """The inverse information [M, 3, 3]; a parameter at its bound does not move."""
    cells = sweeps.cells.with_total(total)
    information = expected_information(cells, theta)
    held = (theta <= cells.lower + AT_BOUND) | (theta >= cells.upper - AT_BOUND)
    information = np.where(held[:, :, None] | held[:, None, :], 0.0, information)
    diagonal = np.arange(3)
    information[:, diagonal, diagonal] += np.where(held, 1.0, 1e-10)
    inverse = np.linalg.inv(information)
    return np.asarray(np.where(held[:, :, None] | held[:, None, :], 0.0, inverse))
