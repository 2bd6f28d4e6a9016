"""What laws are fitted to: collapse points, the errors of log F*, and the scatter about a law beyond them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, stdtrit

from kisl_plugin.errors import InputError

__all__ = ["CollapsePoint", "Interval", "Target"]

FloatArray = NDArray[np.float64]
Interval = tuple[float | None, float | None]  # None: an open end

OPEN: Interval = (None, None)
NORMAL_95 = 1.959963984540054
RAY = 1.1  # D/N of models on one ray differ by no more
SMALLEST_ERROR = 1e-3  # no collapse point is known better than to 0.1 %, whatever its interval says


@dataclass(frozen=True)
class Target:
    """A model of N = `params` parameters (all of them) to be trained on D = `tokens` tokens."""

    params: int
    tokens: int

    @property
    def compute(self) -> float:
        """C = 6·N·D in floating-point operations (Kaplan et al. 2020)."""
        return 6.0 * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class CollapsePoint(Target):
    """F* of a model that was trained, with its 95 % interval; `conditional`: its curve is ok if runs vary."""

    f_star: float
    interval: Interval = OPEN
    conditional: bool = False


def ray_of(points: Sequence[CollapsePoint]) -> float | None:
    """D/N of models that were trained on the same D/N and on several D; None of others."""
    ratios = [point.tokens / point.params for point in points]
    if len({point.tokens for point in points}) < 2 or max(ratios) > RAY * min(ratios):
        return None
    return sqrt(max(ratios) * min(ratios))


def positive(name: str, values: ArrayLike) -> FloatArray:
    """`values` as a row of finite numbers above 0.

    Raises:
        InputError: there is none, or one is not a finite number above 0.
    """
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or not len(row):
        raise InputError(f"{name} has shape {row.shape}; expected a row of numbers")
    for at, value in enumerate(row.tolist()):
        if not 0 < value < inf:
            raise InputError(f"{name}[{at}] is {value:g}; expected a finite number above 0")
    return row


def log_errors(f_star: ArrayLike, intervals: Sequence[Interval] | None) -> FloatArray | None:
    """Standard errors [M] of log F* from 95 % intervals; None where no interval has a closed end.

    An interval with one open end counts as its closed side, but no less than the median of the closed intervals.

    Raises:
        InputError: the numbers of intervals and F* differ, or an interval does not contain its F*.
    """
    values = np.asarray(f_star, dtype=np.float64)
    if intervals is None:
        return None
    if len(intervals) != len(values):
        raise InputError(f"{len(intervals)} intervals for {len(values)} F*; expected one each")
    sides = np.full((len(values), 2), nan)  # from F* to the ends, in logs
    for at, (value, (low, high)) in enumerate(zip(values.tolist(), intervals, strict=True)):
        if (low is not None and not 0 < low <= value) or (high is not None and not value <= high < inf):
            raise InputError(
                f"intervals[{at}] is {(low, high)} around F* = {value:g}; expected low <= F* <= high (None: open)"
            )
        sides[at] = nan if low is None else np.log(value / low), nan if high is None else np.log(high / value)
    if np.isnan(sides).all():
        return None
    # A closed interval is ± 1.96 standard errors on average of its two sides; NaN where an end is open.
    half = sides.mean(axis=1)
    closed = half[~np.isnan(half)] if not np.isnan(half).all() else sides[~np.isnan(sides)]
    one_sided = np.fmax(np.fmax(sides[:, 0], sides[:, 1]), np.median(closed))
    return np.asarray(np.maximum(np.where(np.isnan(half), one_sided, half) / NORMAL_95, SMALLEST_ERROR))


@dataclass(frozen=True)
class Noise:
    """`errors` [M] of log F* from the curves (None: unknown), the scatter about the law and its degrees of freedom.

    `df` is infinite where there is no scatter.
    """

    errors: FloatArray | None
    scatter: float
    df: float

    @property
    def known(self) -> bool:
        """Whether there is a measure of the noise, from the curves or from the scatter."""
        return self.errors is not None or np.isfinite(self.df)

    def weights(self, models: int) -> FloatArray:
        """1 / variance [M] of each log F*."""
        own = np.zeros(models) if self.errors is None else self.errors
        return np.asarray(1 / np.maximum(own**2 + self.scatter**2, SMALLEST_ERROR**2))

    @property
    def quantile(self) -> float:
        """The 97.5 % point of Student's t at `df`. Its square is the rise of the deviance that bounds an interval."""
        return float(stdtrit(self.df, 0.975)) if np.isfinite(self.df) else NORMAL_95


def estimate_noise(
    errors: FloatArray | None, models: int, parameters: int, deviance: Callable[[FloatArray], float]
) -> Noise:
    """The noise under which the deviance of the best law is what chance lets expect.

    `errors` [M] are the standard errors of log F* (None: unknown), `models` is M, `parameters` p, and `deviance` gives
    the least Σ weight·residual² of log F* for weights [M].
    """
    df = models - parameters
    if df < 1:
        return Noise(errors, float(errors is None), inf)
    if errors is None:  # nothing but scatter
        return Noise(None, float(np.sqrt(deviance(np.ones(models)) / df)), float(df))

    # The scatter solves deviance = median of chi-square with M - p degrees of freedom; it is 0 where the errors alone
    # explain the misfit. With the mean in place of the median (Paule and Mandel 1982) it is 0 too often for few models:
    # intervals cover 0.91–0.93 where these cover 0.93–0.95 (benchmarks/law_recovery.py).
    median = float(chdtri(df, 0.5))

    def excess(scatter: float) -> float:
        return deviance(Noise(errors, scatter, inf).weights(models)) - median

    if excess(0.0) <= 0:
        return Noise(errors, 0.0, inf)
    enough = float(np.sqrt(deviance(np.ones(models)) / median))  # explains the misfit without the errors
    scatter = float(brentq(excess, 0.0, enough, xtol=1e-8))
    # Satterthwaite: of the variance error² + scatter² only the part scatter² is uncertain. The smaller that part, the
    # more degrees of freedom the sum has.
    own = float(np.mean(errors**2))
    return Noise(errors, scatter, df * ((own + scatter**2) / scatter**2) ** 2)
