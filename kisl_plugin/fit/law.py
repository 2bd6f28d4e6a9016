"""The infusion law F*(C) = A/C^alpha + E of models trained on the same D (arXiv 2509.19371), C = 6·N·D.

Hidden here: how the law is estimated and how sure it is. The estimate is weighted least squares of log F*; each log F*
has the variance error² + scatter², the error from its curve's interval and one scatter for all models. Intervals are
profile-likelihood intervals.

The law is written in alpha, the mean slope s of log F* against log C over the measured range, and the level, log F* at
the largest measured C. With 0 ≤ s ≤ alpha this is every law with A, E ≥ 0: s = alpha is E = 0, s = 0 is A = 0. Data
determine s best while alpha is the bend, so the two are far less correlated than alpha and E; and for a given shape
(alpha, s) the best level is a weighted mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, least_squares
from scipy.special import chdtri, fdtri

from kisl_plugin.errors import InputError
from kisl_plugin.fit.collapse_points import (
    OPEN,
    CollapsePoint,
    FloatArray,
    Interval,
    Noise,
    estimate_noise,
    log_errors,
    positive,
)
from kisl_plugin.fit.text import whole_percent

__all__ = ["InfusionLaw", "fit_infusion_law", "share_by_chance"]

FEWEST_MODELS = 3
FEWEST_WITH_R2 = 4
SMALLEST_ALPHA, LARGEST_ALPHA = 1e-3, 3.0
SEQUENCES, SEED = 10_000, 2509
OUTLINE = 41  # alphas at which the joint region is given

_SHARES = np.linspace(0, 1, 33)  # a grid of slope / alpha
_ALPHAS = np.geomspace(SMALLEST_ALPHA, LARGEST_ALPHA, 81)
_GOLDEN = (5**0.5 - 1) / 2


def _log_shares(alpha: FloatArray, slope: FloatArray, width: float) -> tuple[FloatArray, FloatArray]:
    """Logs of the shares of A/C^alpha and of E in F* at the largest measured C; -inf for a share of 0.

    The share of A/C^alpha is (e^(s·width) - 1) / (e^(alpha·width) - 1): the mean slope over the range is then s.
    """
    slope = np.minimum(slope, alpha)  # against rounding
    with np.errstate(divide="ignore"):
        # expm1 keeps the digits of a small alpha; logs keep those of a law that is extrapolated far.
        whole = np.log(np.expm1(alpha * width))
        falling = np.log(np.expm1(slope * width)) - whole
        constant = slope * width + np.log(np.expm1((alpha - slope) * width)) - whole
    return np.asarray(falling), np.asarray(constant)


def _log_relative(alpha: FloatArray, slope: FloatArray, width: float, depth: FloatArray) -> FloatArray:
    """Return log F*(C) - log F*(largest measured C) [..., P] of shapes [...] at depth [P] = log(largest C / C)."""
    falling, constant = _log_shares(alpha, slope, width)
    return np.asarray(np.logaddexp(falling[..., None] + alpha[..., None] * depth, constant[..., None]))


@dataclass(frozen=True)
class _Problem:
    """log F* [M] with weights [M] at depth [M] = log(largest C / C)."""

    depth: FloatArray
    log_f_star: FloatArray
    weight: FloatArray

    def residual(self, alpha: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The best level [...] of each shape [...], and what is left of log F* [..., M]."""
        rest = self.log_f_star - _log_relative(alpha, slope, float(self.depth.max()), self.depth)
        level = rest @ self.weight / self.weight.sum()
        return level, rest - level[..., None]

    def deviance(self, alpha: FloatArray, slope: FloatArray) -> FloatArray:
        """Σ weight·residual² [...] of each shape at its best level."""
        return np.asarray(self.residual(alpha, slope)[1] ** 2 @ self.weight)

    def line(self) -> tuple[float, float]:
        """The alpha of the best law with E = 0, a straight line in logs, and the curvature of its deviance."""
        # Weighted linear regression of log F* on depth; the deviance is curvature·(alpha - best)² above its least.
        away = self.depth - self.weight @ self.depth / self.weight.sum()
        curvature = float(self.weight @ away**2)
        alpha = float((self.weight * away) @ self.log_f_star) / curvature
        return float(np.clip(alpha, SMALLEST_ALPHA, LARGEST_ALPHA)), curvature

    def best_slope(self, alpha: FloatArray) -> FloatArray:
        """The best slope for each alpha [K]: the best of a grid, then golden section between its neighbours."""
        # A grid first, since nothing says that the deviance has only one minimum in the slope.
        best = self.deviance(alpha[:, None], alpha[:, None] * _SHARES).argmin(axis=1)
        low, high = (_SHARES[np.clip(best + step, 0, len(_SHARES) - 1)] for step in (-1, 1))
        for _ in range(32):
            inner = np.stack([high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)])
            left, right = self.deviance(alpha, alpha * inner)
            low, high = np.where(left < right, low, inner[0]), np.where(left < right, inner[1], high)
        return np.asarray(alpha * (low + high) / 2)

    def best(self, free_E: bool) -> tuple[FloatArray, FloatArray]:
        """The alpha [1] and slope [1] of the best law; E is 0 unless free."""
        line = np.array([self.line()[0]])
        if not free_E:
            return line, line

        # Bends: least squares in alpha and slope / alpha, whose bounds are a box, from the local minima of a grid over
        # alpha. The optimiser stays inside the box, so the bound of alpha is tried for itself.
        grid = self.deviance(_ALPHAS[:, None], _ALPHAS[:, None] * _SHARES)
        lowest = np.pad(grid.min(axis=1), 1, constant_values=inf)
        minima = np.flatnonzero((lowest[1:-1] <= lowest[:-2]) & (lowest[1:-1] < lowest[2:]))
        root = np.sqrt(self.weight)
        bends = [(LARGEST_ALPHA, float(self.best_slope(np.array([LARGEST_ALPHA]))[0]))]
        for at in minima[np.argsort(lowest[minima + 1])][:3]:
            fit = least_squares(
                lambda x: root * self.residual(x[:1], x[:1] * x[1:])[1][0],
                (_ALPHAS[at], _SHARES[grid[at].argmin()]),
                bounds=([SMALLEST_ALPHA, 0.0], [LARGEST_ALPHA, 1.0]),
                **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-13),
            )
            bends.append((float(fit.x[0]), float(fit.x[0] * fit.x[1])))
        # E = 0 and an F* that does not fall are no bends; they are kept where a bend gains nothing.
        alpha, slope = np.array([(line[0], line[0]), (SMALLEST_ALPHA, 0.0), *bends]).T
        deviance = self.deviance(alpha, slope)
        best, bend = int(deviance[:2].argmin()), 2 + int(deviance[2:].argmin())
        if deviance[bend] < deviance[best] * (1 - 1e-9) - 1e-12:
            best = bend
        return alpha[[best]], slope[[best]]


@dataclass(frozen=True)
class LawRegion:
    """The joint 95 % region of (A, alpha, E): at each `alpha` [P], in order, the range of `E` and of `A` [P, 2] in it.

    In other words the outlines of its shadows on (alpha, E) and (alpha, A). It ends where alpha does, at 0.001 and 3.
    """

    alpha: FloatArray
    E: FloatArray
    A: FloatArray


@dataclass(frozen=True)
class _Region:
    """Laws that fit well enough: shapes [K], their best levels, and how far each level may move (`slack`).

    These are the laws whose deviance is within `rise` of the least. For a given shape the deviance is quadratic in the
    level, so a quantity that rises with the level has its extremes at ± sqrt((threshold - deviance) / Σ weight). The
    range of a quantity over the region is its profile-likelihood interval.
    """

    width: float
    alpha: FloatArray
    slope: FloatArray
    level: FloatArray
    slack: FloatArray

    @classmethod
    def of(cls, problem: _Problem, best: tuple[FloatArray, FloatArray], rise: float, free_E: bool) -> "_Region":
        """The region about the best shape; of laws with E = 0 only, unless E is free."""
        threshold = float(problem.deviance(*best)[0]) + rise
        # E = 0: the deviance is a parabola in alpha, so the ends are known. They are added to the bends below, which
        # would find them only where their grid of alphas meets the edge s = alpha.
        line, curvature = problem.line()
        spare = threshold - float(problem.deviance(np.array([line]), np.array([line]))[0])
        reach = np.sqrt(max(spare, 0.0) / curvature)
        alpha = slope = np.clip(line + reach * np.linspace(-1, 1, 201), SMALLEST_ALPHA, LARGEST_ALPHA)
        if free_E:
            # Bends: for alphas between its ends the slopes on both sides of the best one, crowded towards their ends.
            # The ends of alpha are where the best law of an alpha is just at the threshold.
            grid = np.unique([*_ALPHAS, *best[0]])

            def excess(alpha: ArrayLike) -> FloatArray:
                row = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
                return problem.deviance(row, problem.best_slope(row)) - threshold

            within = np.flatnonzero((excess(grid) < 0) | (grid == best[0]))
            ends = []
            for last, beyond in ((within[0], within[0] - 1), (within[-1], within[-1] + 1)):
                crosses = 0 <= beyond < len(grid) and excess(grid[last])[0] < 0
                crossing = brentq(lambda a: excess(a)[0], *grid[[last, beyond]], xtol=1e-10) if crosses else grid[last]
                ends.append(float(crossing))
            low, high = ends
            alphas = np.unique([*np.linspace(low, high, 81), *np.geomspace(low, high, 81), *best[0]])
            bounds = np.stack([np.zeros_like(alphas), alphas])
            near, far = problem.best_slope(alphas), bounds
            for _ in range(40):  # bisection for the last slope within the threshold
                half = (near + far) / 2
                fits = problem.deviance(alphas, half) <= threshold
                near, far = np.where(fits, half, near), np.where(fits, far, half)
            smallest, largest = np.where(problem.deviance(alphas, bounds) <= threshold, bounds, near)
            # Quantities are extreme near the rim, where the slack ends like a square root: a cosine spacing.
            part = (1 - np.cos(np.linspace(0, np.pi, 61))) / 2
            slopes = smallest[:, None] + (largest - smallest)[:, None] * part
            alpha = np.concatenate([alpha, np.repeat(alphas, len(part)), best[0]])
            slope = np.concatenate([slope, slopes.ravel(), best[1]])
        level, residual = problem.residual(alpha, slope)
        spares = threshold - residual**2 @ problem.weight
        inside = spares >= -1e-6 * rise  # the ends of alpha are roots, on either side of the threshold
        slack = np.sqrt(np.maximum(spares[inside], 0.0) / problem.weight.sum())
        return cls(float(problem.depth.max()), alpha[inside], slope[inside], level[inside], slack)

    def log_f_star(self, depth: float) -> tuple[float, float]:
        """The range of log F* at `depth` = log(largest measured C / C)."""
        value = self.level + _log_relative(self.alpha, self.slope, self.width, np.array([depth]))[:, 0]
        return float((value - self.slack).min()), float((value + self.slack).max())

    def outline(self, largest_compute: float) -> LawRegion:
        """The ranges of E and A at some of the alphas."""
        alpha, row, laws = np.unique(self.alpha, return_inverse=True, return_counts=True)
        # At an alpha of the E = 0 line alone there is one law, and no range to see
        several = np.flatnonzero(laws > 2)
        rows = several[np.unique(np.linspace(0, len(several) - 1, OUTLINE).round().astype(int))]
        falling, constant = (self.level + share for share in _log_shares(self.alpha, self.slope, self.width))
        ranges = []
        for value in (constant, falling + self.alpha * np.log(largest_compute)):
            ends = np.full((len(alpha), 2), (inf, -inf))
            np.minimum.at(ends[:, 0], row, value - self.slack)
            np.maximum.at(ends[:, 1], row, value + self.slack)
            ranges.append(np.exp(ends[rows]))
        return LawRegion(alpha[rows], *ranges)

    def parameter_intervals(self, largest_compute: float) -> tuple[Interval, Interval, Interval]:
        """The ranges of alpha (0 at its lower bound, open at its upper), E (from 0 where E = 0 fits too) and A."""
        low, high = float(self.alpha.min()), float(self.alpha.max())
        of_alpha = 0.0 if low <= SMALLEST_ALPHA else low, None if high >= LARGEST_ALPHA * (1 - 1e-9) else high
        falling, constant = (self.level + share for share in _log_shares(self.alpha, self.slope, self.width))
        log_A = falling + self.alpha * np.log(largest_compute)
        with np.errstate(over="ignore"):
            of_A = float(np.exp((log_A - self.slack).min())), float(np.exp((log_A + self.slack).max()))
        smallest = 0.0 if (self.alpha == self.slope).any() else float(np.exp((constant - self.slack).min()))
        of_E = smallest, float(np.exp((constant + self.slack).max()))
        return of_alpha, of_E, of_A if of_alpha[1] is not None else (of_A[0], None)


def share_by_chance(log_compute: FloatArray, r2: float) -> float:
    """The share of random decreasing sequences at log C [M] that some infusion law fits with at least `r2`.

    A random sequence is M independent F*, log-uniform over one decade, sorted so that they fall with C. Its R² is the
    largest that any law reaches by least squares of F*. Over the five sizes 137M–3B 40 % reach the paper's 0.9685, over
    the four smallest of them 46 %. The standard error is at most 0.005.
    """
    depth = log_compute.max() - np.sort(log_compute)
    logs = np.random.default_rng(SEED).uniform(-np.log(10.0), 0.0, (SEQUENCES, len(depth)))
    return float(np.mean(largest_r2(depth, np.exp(-np.sort(-logs, axis=1))) >= r2))


def largest_r2(depth: FloatArray, f_star: FloatArray) -> FloatArray:
    """The largest R² [B] of any law with A, E ≥ 0 through F* [B, M] at depth [M] = log(largest C / C).

    For each alpha of a grid least squares is a line in C^-alpha: with the intercept E, or through the origin where that
    would be below 0.
    """
    alpha, mean = np.geomspace(0.01, LARGEST_ALPHA, 120), f_star.mean(axis=1)[:, None]
    falling = np.exp((depth - depth.max()) * alpha[:, None])  # [G, M], 1 at the smallest C
    away = falling - falling.mean(axis=1, keepdims=True)
    A = (f_star @ away.T) / (away**2).sum(axis=1)  # [B, G]
    E = mean - A * falling.mean(axis=1)
    with_E = A**2 * (away**2).sum(axis=1)
    without_E = (f_star @ falling.T) ** 2 / (falling**2).sum(axis=1) - f_star.shape[1] * mean**2
    explained = np.where(A <= 0, 0.0, np.where(E >= 0, with_E, without_E)).max(axis=1)
    return np.asarray(explained / ((f_star - mean) ** 2).sum(axis=1))


@dataclass(frozen=True)
class LeftOut:
    """What the law of the other models predicts for the one at C: `log_error` is log(predicted / measured)."""

    compute: float
    measured: float
    predicted: float
    interval: Interval
    log_error: float


@dataclass(frozen=True, kw_only=True)
class InfusionLaw:
    """F*(C) = A/C^alpha + E, C in floating-point operations.

    `r2` is of F*, as in the paper, and `r2_by_chance` the share of random decreasing sequences of as many points that
    some such law fits as well; both are NaN below four models. `scatter` is the standard deviation of log F* about the
    law beyond the curves' errors and `df` its degrees of freedom (infinite: no scatter seen). Interval ends are None
    where open. `e_distinguishable` (from 0) and `without_E`, the same law with E = 0, are None where they do not apply.
    """

    A: float
    alpha: float
    E: float
    r2: float
    scatter: float
    df: float
    models: int
    compute_range: tuple[float, float]
    alpha_interval: Interval
    E_interval: Interval
    A_interval: Interval
    e_distinguishable: bool | None
    falls: bool
    without_E: "InfusionLaw | None"  # noqa: N815
    noise: Noise = field(repr=False, compare=False)
    _region: _Region | None = field(repr=False, compare=False)
    _points: tuple[FloatArray, FloatArray, FloatArray | None] = field(repr=False, compare=False)  # C, F*, errors

    def predict(self, compute: float) -> float:
        """F* at C > 0."""
        return float(self.A / positive("compute", [compute])[0] ** self.alpha + self.E)

    def interval(self, compute: float) -> Interval:
        """The 95 % interval of the F* of a further model at C: profile likelihood and its own scatter, in quadrature.

        From three models it is the range of the laws that fit the curves' errors; (None, None) where nothing is known
        of the errors.
        """
        best = float(np.log(self.predict(compute)))
        if self._region is None:
            return OPEN
        # The two are independent, so each side of the interval adds them as standard errors add.
        low, high = self._region.log_f_star(float(np.log(self.compute_range[1] / compute)))
        scatter = self.noise.quantile * self.noise.scatter
        return float(np.exp(best - np.hypot(best - low, scatter))), float(np.exp(best + np.hypot(high - best, scatter)))

    @cached_property
    def region(self) -> LawRegion | None:
        """The joint region of A, alpha and E, from four models on.

        By the likelihood ratio, as the intervals: the laws whose deviance exceeds the least by no more than
        3·F(3, df), the 95 % point of F (of chi-square where no scatter was found).
        """
        if self._region is None or self.models < FEWEST_WITH_R2 or self.without_E is None:
            return None
        C, F, _ = self._points
        problem = _Problem(np.log(C.max() / C), np.log(F), self.noise.weights(len(C)))
        rise = 3 * fdtri(3, self.df, 0.95) if np.isfinite(self.df) else chdtri(3, 0.05)
        return _Region.of(problem, problem.best(True), float(rise), True).outline(float(C.max()))

    @cached_property
    def r2_by_chance(self) -> float:
        """How often a random decreasing sequence has this R² or more."""
        return nan if np.isnan(self.r2) else share_by_chance(np.log(self._points[0]), self.r2)

    @cached_property
    def leave_one_out(self) -> tuple[LeftOut, ...]:
        """Each model predicted by the law of the others, where those have at least three distinct C."""
        C, F, errors = self._points
        left_out = []
        for at, (compute, measured) in enumerate(zip(C.tolist(), F.tolist(), strict=True)):
            rest = np.arange(len(C)) != at
            if len(np.unique(C[rest])) < FEWEST_MODELS:
                continue
            own = None if errors is None else errors[rest]
            law = _fit(C[rest], F[rest], own, free_E=self.without_E is not None)
            predicted, ends = law.predict(compute), law.interval(compute)
            left_out.append(LeftOut(compute, measured, predicted, ends, float(np.log(predicted / measured))))
        return tuple(left_out)

    @property
    def leave_one_out_error(self) -> float:
        """Root mean square of the left-out models' log errors; NaN where none could be left out."""
        errors = [left.log_error for left in self.leave_one_out]
        return float(np.sqrt(np.mean(np.square(errors)))) if errors else nan

    @property
    def interval_method(self) -> str:
        """How the intervals were made."""
        if self._region is None:
            return "none: three models without intervals of F* give no measure of error"
        if self.models < FEWEST_WITH_R2:
            return "predictions: the range of the laws that fit the curves' errors; three models cannot show scatter"
        if self.noise.errors is None:
            return f"profile likelihood, errors from the scatter about the law alone, F(1, {self.df:.0f})"
        if self.scatter:
            scatter = f"a scatter of {whole_percent(self.scatter)}"
            return f"profile likelihood, the curves' errors and {scatter}, F(1, {self.df:.1f})"
        return "profile likelihood, the curves' errors; no scatter beyond them was found"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be read with the numbers: bounds that were reached, and what R² is worth."""
        caveats = []
        if not self.falls:
            caveats.append("F* does not fall with C in these data: they do not support the law")
        elif self.E == 0 and self.without_E:
            caveats.append("E is at its bound 0")
        if self.falls and self.alpha >= LARGEST_ALPHA * (1 - 1e-9):
            caveats.append(f"alpha is at its bound {LARGEST_ALPHA:g}")
        if self.e_distinguishable is False:
            caveats.append("E is not distinguishable from 0")
        if self.models < FEWEST_WITH_R2:
            caveats.append("three models determine the three parameters by construction: R² and intervals need four")
        elif np.isnan(self.r2):
            caveats.append("every F* is the same: there is no R²")
        else:
            share = f"{whole_percent(self.r2_by_chance)} of random decreasing sequences of {self.models} points"
            caveats.append(f"{share} reach this R² of {self.r2:.4f}")
        return tuple(caveats)


def fit_infusion_law(compute: ArrayLike, f_star: ArrayLike, intervals: Sequence[Interval] | None = None) -> InfusionLaw:
    """Fit F* [M] at C [M] in floating-point operations, from at least three distinct C.

    Least squares of log F*, weighted by the errors from `intervals` [M] (95 %, of F*; without them all weigh the same)
    and the scatter about the law, with alpha in [0.001, 3] and the share of E in F* at the largest C in [0, 1].

    Raises:
        InputError: the lengths differ, a value is not above 0, or fewer than three distinct C.
    """
    C, F = positive("compute", compute), positive("f_star", f_star)
    if C.shape != F.shape:
        raise InputError(f"compute and f_star have shapes {C.shape} and {F.shape}; expected one row each")
    if len(np.unique(C)) < FEWEST_MODELS:
        raise InputError(f"{len(np.unique(C))} distinct C; the law has three parameters and needs {FEWEST_MODELS}")
    return _fit(C, F, log_errors(F, intervals), free_E=True)


def law_through(points: Sequence[CollapsePoint]) -> InfusionLaw:
    """The infusion law through collapse points of three sizes or more, of one D or along a ray."""
    C, F = [point.compute for point in points], [point.f_star for point in points]
    return fit_infusion_law(C, F, [point.interval for point in points])


def _fit(C: FloatArray, F: FloatArray, errors: FloatArray | None, *, free_E: bool) -> InfusionLaw:
    """The law of F* [M] at C [M] with standard errors [M] of log F* (None: unknown); E is 0 unless free."""
    models, depth, y = len(C), np.log(C.max() / C), np.log(F)

    def least_deviance(weight: FloatArray) -> float:
        problem = _Problem(depth, y, weight)
        return float(problem.deviance(*problem.best(free_E))[0])

    noise = estimate_noise(errors, models, 3 if free_E else 2, least_deviance)
    problem = _Problem(depth, y, noise.weights(models))
    alpha, slope = best = problem.best(free_E)
    level = problem.residual(alpha, slope)[0]
    falling, constant = _log_shares(alpha, slope, float(depth.max()))
    A, E = np.exp(level + falling + alpha * np.log(C.max()))[0], np.exp(level + constant)[0]
    spread = float(((F - F.mean()) ** 2).sum())
    has_r2 = models >= FEWEST_WITH_R2 and spread > 0
    region = _Region.of(problem, best, noise.quantile**2, free_E) if noise.known else None
    # Three models fit three parameters exactly: predictions have a range, but the parameters have no interval.
    bounded = region if models >= FEWEST_WITH_R2 else None
    alpha_interval, E_interval, A_interval = bounded.parameter_intervals(C.max()) if bounded else (OPEN, OPEN, OPEN)
    return InfusionLaw(
        A=float(A),
        alpha=float(alpha[0]),
        E=float(E),
        r2=1 - float(((F - A / C ** alpha[0] - E) ** 2).sum()) / spread if has_r2 else nan,
        scatter=noise.scatter if noise.known else nan,
        df=noise.df,
        models=models,
        compute_range=(float(C.min()), float(C.max())),
        alpha_interval=alpha_interval,
        E_interval=E_interval if free_E else OPEN,
        A_interval=A_interval,
        e_distinguishable=E_interval[0] != 0 if bounded and free_E else None,
        falls=bool(slope[0] > SMALLEST_ALPHA),
        without_E=_fit(C, F, errors, free_E=False) if free_E else None,
        noise=noise,
        _region=region,
        _points=(C, F, errors),
    )
