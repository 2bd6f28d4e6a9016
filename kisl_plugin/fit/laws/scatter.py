"""The scatter of collapse points about a law beyond the curves' own errors, and what it does to intervals.

Each log F* has the variance error² + scatter². The scatter is the one at which the deviance
Σ residual² / (error² + scatter²) equals the median of chi-square with M - p degrees of freedom, 0 where the errors
alone explain the misfit. With the mean in place of the median (Paule and Mandel 1982) it is 0 too often with few
models: intervals cover 0.91–0.93 where these cover 0.93–0.95 (benchmarks/law_recovery.py). Without errors it is
the root of deviance / (M - p). An interval holds what raises the deviance by no more than the 95 % point of
F(1, df), df by Satterthwaite: infinite without scatter, M - p where there is nothing but scatter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, stdtrit

from kisl_plugin.fit.laws.points import NORMAL_95, SMALLEST_ERROR, FloatArray

ZOOMS, ZOOM_POINTS = 6, 25
LARGEST_SCATTER = 10.0  # in log F*, a factor of 20,000


@dataclass(frozen=True)
class Noise:
    """Errors [M] of log F* from the curves (None: unknown), the scatter and its degrees of freedom."""

    errors: FloatArray | None
    scatter: float
    df: float
    models: int

    @property
    def known(self) -> bool:
        """Whether there is a measure of the noise, from the curves or from the scatter."""
        return self.errors is not None or np.isfinite(self.df)

    @property
    def weight(self) -> FloatArray:
        """1 / variance [M] of each log F*."""
        own = np.zeros(self.models) if self.errors is None else self.errors
        return np.asarray(1 / np.maximum(own**2 + self.scatter**2, SMALLEST_ERROR**2))

    @property
    def quantile(self) -> float:
        """The 97.5 % point of Student's t at `df`; its square is the rise of the deviance that bounds an interval."""
        return float(stdtrit(self.df, 0.975)) if np.isfinite(self.df) else NORMAL_95


def find_noise(errors: FloatArray | None, models: int, df: int, misfit: Callable[[FloatArray], FloatArray]) -> Noise:
    """The noise under which the deviance is what `df` = M - p lets expect; `misfit` tells it [K] at weights [K, M]."""
    known = Noise(errors, 0.0, float("inf"), models)
    if df < 1:
        return known if errors is not None else Noise(None, 1.0, float("inf"), models)
    if errors is None:
        scatter = float(np.sqrt(misfit(np.ones((1, models)))[0] / df))
        return Noise(None, scatter, float(df), models)
    median = float(chdtri(df, 0.5))
    if misfit(known.weight[None])[0] <= median:
        return known
    scatter = _solve(errors, median, misfit)
    own = float(np.mean(errors**2))
    return Noise(errors, scatter, df * ((own + scatter**2) / scatter**2) ** 2, models)


def _solve(errors: FloatArray, target: float, misfit: Callable[[FloatArray], FloatArray]) -> float:
    """Where the deviance, which falls with the scatter, passes `target`."""
    low, high = 0.0, LARGEST_SCATTER
    for _ in range(ZOOMS):
        grid = low + (high - low) * np.linspace(0, 1, ZOOM_POINTS) ** 2
        above = misfit(1 / (errors**2 + grid[:, None] ** 2)) > target
        above[0], above[-1] = True, False
        last = int(np.argmin(above))
        low, high = float(grid[last - 1]), float(grid[last])
    return high
