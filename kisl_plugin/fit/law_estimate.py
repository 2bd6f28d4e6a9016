"""One law from its collapse points: the best shape, the noise about it, and what else fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtri, stdtrit

from kisl_plugin.errors import InputError

# What a law is fitted to: collapse points and their errors.

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Interval = tuple[float | None, float | None]

OPEN: Interval = (None, None)
NORMAL_95 = 1.959963984540054
FLOPS = 6  # per parameter and token: C = 6·N·D
SMALLEST_ERROR = 1e-3  # a collapse point is not known better than to 0.1 %, whatever its interval says


@dataclass(frozen=True, kw_only=True)
class CollapsePoint:
    """F* of the model with N = `params` trained on D = `tokens`, with its 95 % interval (None: an open end)."""

    params: int
    tokens: int
    f_star: float
    interval: Interval = OPEN

    @property
    def compute(self) -> float:
        """C = 6·N·D floating-point operations."""
        return float(FLOPS * self.params * self.tokens)


def log_errors(f_star: ArrayLike, intervals: Sequence[Interval] | None) -> FloatArray | None:
    """Standard errors [M] of log F* from 95 % intervals; None where no interval is closed on either side.

    With one open end the closed side counts, but no less than the median of the closed intervals.

    Raises:
        InputError: not one interval for each F*, or one that does not hold it.
    """
    values = np.asarray(f_star, dtype=np.float64)
    if intervals is None:
        return None
    if len(intervals) != len(values):
        raise InputError(f"{len(intervals)} intervals for {len(values)} F*; expected one each")
    sides = np.array(
        [_sides(at, float(value), ends) for at, (value, ends) in enumerate(zip(values, intervals, strict=True))]
    )
    whole = sides.mean(axis=1)  # NaN where an end is open
    if not np.isfinite(sides).any():
        return None
    known = whole[np.isfinite(whole)] if np.isfinite(whole).any() else sides[np.isfinite(sides)]
    errors = np.where(np.isfinite(whole), whole, np.fmax(np.fmax(sides[:, 0], sides[:, 1]), np.median(known)))
    return np.asarray(np.maximum(errors / NORMAL_95, SMALLEST_ERROR))


def _sides(at: int, value: float, ends: Interval) -> tuple[float, float]:
    """How far the ends are from F*, in logs; NaN for an open one."""
    low, high = ends
    if (low is not None and not 0 < low <= value) or (high is not None and not value <= high < np.inf):
        raise InputError(f"intervals[{at}] is {ends} around F* = {value:g}; expected low <= F* <= high (None: open)")
    return (
        float("nan") if low is None else float(np.log(value / low)),
        float("nan") if high is None else float(np.log(high / value)),
    )


def positive(name: str, values: ArrayLike, fewest: int = 1) -> FloatArray:
    """A row of finite numbers above 0.

    Raises:
        InputError: it is none, or shorter than `fewest`.
    """
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or len(row) < fewest:
        raise InputError(f"{name} has shape {row.shape}; expected one row of {fewest} or more numbers")
    wrong = ~(np.isfinite(row) & (row > 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(f"{name}[{at}] is {row[at]:g}; expected more than 0")
    return row


# The shape of the infusion law: log F* relative to that at the largest measured C.
#
# Written in alpha and the mean slope s of log F* on log C over the measured range, 0 ≤ s ≤ alpha ≤ 3. The slope is
# what data tell best and alpha is the bend, so the two are far less correlated than alpha and E. s = alpha is E = 0,
# s = 0 is an F* that does not fall (A = 0).

LARGEST_ALPHA = 3.0
SMALLEST_ALPHA = 1e-3
TINY = 1e-12


@dataclass(frozen=True)
class Range:
    """Measured C [M] as `depth` [M] = log(largest C / C); `width` is the largest depth."""

    largest: float
    depth: FloatArray

    @classmethod
    def of(cls, compute: FloatArray) -> "Range":
        """The range of C [M]."""
        return cls(float(compute.max()), np.log(compute.max() / compute))

    @property
    def width(self) -> float:
        """log(largest C / smallest C)."""
        return float(self.depth.max())


def bend(span: Range, alpha: FloatArray, slope: FloatArray) -> FloatArray:
    """Log F*(C) - log F*(largest C) [..., M] of shapes alpha, slope [...]."""
    return np.asarray(np.log1p(np.expm1(slope * span.width)[..., None] * _lift(span, alpha)))


def bend_and_slopes(span: Range, alpha: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`bend` and its derivatives by alpha and by slope, each [..., M]."""
    lift, rise = _lift(span, alpha), np.expm1(slope * span.width)[..., None]
    height = 1 + rise * lift
    depth = np.maximum(span.depth, TINY)
    by_alpha = lift * (
        depth / -np.expm1(-alpha[..., None] * depth) - (span.width / -np.expm1(-alpha * span.width))[..., None]
    )
    return np.log(height), rise * by_alpha / height, span.width * (rise + 1) * lift / height


def _lift(span: Range, alpha: FloatArray) -> FloatArray:
    """(C^-alpha - largest^-alpha) / (smallest^-alpha - largest^-alpha) [..., M]."""
    return np.asarray(np.expm1(alpha[..., None] * span.depth) / np.expm1(alpha * span.width)[..., None])


def log_shares(span: Range, alpha: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log of the shares of A/C^alpha and of E in F*(largest C), each [...]; -inf where a share is 0."""
    alpha, slope = np.asarray(alpha), np.minimum(slope, alpha)
    with np.errstate(divide="ignore"):
        whole = np.log(np.expm1(alpha * span.width))
        falling = np.log(np.expm1(slope * span.width)) - whole
        constant = slope * span.width + np.log(np.expm1((alpha - slope) * span.width)) - whole
    return np.asarray(falling), np.asarray(constant)


def log_relative(span: Range, alpha: FloatArray, slope: FloatArray, compute: FloatArray) -> FloatArray:
    """Log F*(C) - log F*(largest measured C) [..., P] at any C [P]."""
    falling, constant = log_shares(span, alpha, slope)
    decline = np.asarray(alpha)[..., None] * np.log(compute / span.largest)
    return np.asarray(np.logaddexp(falling[..., None] - decline, constant[..., None]))


# Many infusion laws at once: weighted least squares of log F*, the level in closed form.
#
# A grid over the shape, then Levenberg–Marquardt in (alpha, slope) from the best of each band of alpha, beside E = 0
# in closed form (a straight line in logs). There is no other estimator of the law: `fit_infusion_law` is one row.

BANDS = (0.02, 0.35, 1.0, LARGEST_ALPHA)
ALPHAS_PER_BAND, SLOPES = 9, 17
ITERATIONS, GAIN = 400, 1e-13  # most rows are done after ten; far from any law Gauss–Newton creeps
FIRST_DAMPING, EASIER, HARDER = 1e-3, 0.2, 5.0


@dataclass(frozen=True)
class Shapes:
    """Laws [B]: log F* at the largest measured C, alpha, mean slope, and the deviance Σ(residual / error)²."""

    span: Range
    level: FloatArray
    alpha: FloatArray
    slope: FloatArray
    deviance: FloatArray

    def log_predictions(self, compute: FloatArray) -> FloatArray:
        """Log F* [B, P] at C [P]."""
        return np.asarray(self.level[:, None] + log_relative(self.span, self.alpha, self.slope, compute))


@dataclass(frozen=True)
class Refits:
    """B infusion laws: `A`, `alpha`, `E` [B] and F* `predictions` [B, P]; NaN where a row's F* is not finite."""

    A: FloatArray
    alpha: FloatArray
    E: FloatArray
    predictions: FloatArray


def refit_laws(compute: ArrayLike, f_star: ArrayLike, errors: ArrayLike, predict_at: ArrayLike = ()) -> Refits:
    """Fit F*(C) = A/C^alpha + E to each row of F* [B, M] at C [M]; `errors` [M] or [B, M] of log F*.

    For bootstraps: 2,000 rows of five models take a few tenths of a second. A row with an F* that is NaN or not
    above 0 (a resample without collapse) gives NaN.

    Raises:
        InputError: shapes that do not go together, fewer than three distinct C, or an error not above 0.
    """
    C, targets = positive("compute", compute, 3), np.asarray(predict_at, dtype=np.float64)
    rows = np.atleast_2d(np.asarray(f_star, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != len(C):
        raise InputError(f"f_star has shape {rows.shape}; expected [B, {len(C)}], a column for each C")
    if len(np.unique(C)) < 3:
        raise InputError(f"{len(np.unique(C))} distinct C; the law has three parameters: give 3 or more")
    deviations = np.broadcast_to(np.asarray(errors, dtype=np.float64), rows.shape)
    if not (deviations > 0).all():
        raise InputError("errors hold a value that is not above 0; expected standard errors of log F*")
    known = np.all(np.isfinite(rows) & (rows > 0), axis=1)
    shapes = fit_shapes(Range.of(C), np.log(rows[known]), deviations[known] ** -2.0)
    return _refits(shapes, known, targets)


def _refits(shapes: Shapes, known: BoolArray, targets: FloatArray) -> Refits:
    falling, constant = log_shares(shapes.span, shapes.alpha, shapes.slope)

    def spread(values: FloatArray) -> FloatArray:
        out = np.full((len(known), *values.shape[1:]), np.nan)
        out[known] = values
        return out

    return Refits(
        A=spread(np.exp(shapes.level + falling + shapes.alpha * np.log(shapes.span.largest))),
        alpha=spread(shapes.alpha),
        E=spread(np.exp(shapes.level + constant)),
        predictions=spread(np.exp(shapes.log_predictions(targets))),
    )


def fit_shapes(span: Range, y: FloatArray, weight: FloatArray) -> Shapes:
    """The best law of each row of log F* [B, M] with weights [B, M]."""
    line = _flat(y, weight, straight(span, y, weight))
    alpha, slope = _starts(span, y, weight)
    rows = np.repeat(np.arange(len(y)), alpha.shape[1])
    found = climb(span, y[rows], weight[rows], alpha.ravel(), slope.ravel())
    best = np.arange(len(y)) * alpha.shape[1] + found.deviance.reshape(alpha.shape).argmin(axis=1)
    bent = found.deviance[best] < line.deviance * (1 - 1e-9) - 1e-12
    return Shapes(
        span,
        *(
            np.where(bent, getattr(found, name)[best], getattr(line, name))
            for name in ("level", "alpha", "slope", "deviance")
        ),
    )


def straight(span: Range, y: FloatArray, weight: FloatArray) -> Shapes:
    """The best law with E = 0, a line in logs."""
    total = weight.sum(axis=1)
    centre = (weight * span.depth).sum(axis=1) / total
    away = span.depth - centre[:, None]
    slope = (weight * away * y).sum(axis=1) / (weight * away**2).sum(axis=1)
    slope = np.clip(slope, SMALLEST_ALPHA, LARGEST_ALPHA)
    level, residual = centred(y - slope[:, None] * span.depth, weight)
    return Shapes(span, level, slope, slope, (weight * residual**2).sum(axis=1))


def _flat(y: FloatArray, weight: FloatArray, line: Shapes) -> Shapes:
    """Where the line is at its least slope, an F* that does not fall at all, A = 0."""
    level, residual = centred(y, weight)
    rises = line.slope <= SMALLEST_ALPHA
    return Shapes(
        line.span,
        np.where(rises, level, line.level),
        line.alpha,
        np.where(rises, 0.0, line.slope),
        np.where(rises, (weight * residual**2).sum(axis=1), line.deviance),
    )


def centred(y: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The weighted mean [B] of y [B, M] and what is left [B, M]."""
    level = (weight * y).sum(axis=-1) / weight.sum(axis=-1)
    return level, y - level[..., None]


def _starts(span: Range, y: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For each row the best shape of the grid in each band of alpha: alpha and slope [B, bands]."""
    alpha = np.concatenate([np.geomspace(low, high, ALPHAS_PER_BAND) for low, high in pairwise(BANDS)])
    part = np.linspace(0.03, 0.97, SLOPES)
    grid_alpha = np.repeat(alpha, SLOPES)
    grid_slope = grid_alpha * np.tile(part, len(alpha))
    z = bend(span, grid_alpha, grid_slope)  # [G, M]
    level = weight @ z.T - (weight * y).sum(axis=1)[:, None]
    misfit = weight @ (z**2).T - 2 * (weight * y) @ z.T - level**2 / weight.sum(axis=1)[:, None]
    best = misfit.reshape(len(y), len(BANDS) - 1, -1).argmin(axis=2)
    best += np.arange(len(BANDS) - 1) * ALPHAS_PER_BAND * SLOPES
    return grid_alpha[best], grid_slope[best]


def climb(
    span: Range, y: FloatArray, weight: FloatArray, alpha: FloatArray, slope: FloatArray, free_alpha: bool = True
) -> Shapes:
    """Levenberg–Marquardt from shapes [R] for log F* [R, M], the level eliminated; alpha stays unless free."""
    alpha, slope, damping = alpha.copy(), slope.copy(), np.full(len(alpha), FIRST_DAMPING)
    level, residual = centred(y - bend(span, alpha, slope), weight)
    deviance = (weight * residual**2).sum(axis=1)
    active = np.arange(len(alpha))
    for _ in range(ITERATIONS):
        a, s, w = alpha[active], slope[active], weight[active]
        by_alpha, by_slope = _step(span, y[active], w, a, s, damping[active], free_alpha)
        a = np.clip(a + by_alpha, SMALLEST_ALPHA, LARGEST_ALPHA)
        s = np.clip(s + by_slope, 0.0, a)
        there, residual = centred(y[active] - bend(span, a, s), w)
        reached = (w * residual**2).sum(axis=1)
        gain = deviance[active] - reached
        up = gain >= 0
        to = active[up]
        alpha[to], slope[to], level[to], deviance[to] = a[up], s[up], there[up], reached[up]
        damping[active] *= np.where(up, EASIER, HARDER)
        active = active[np.where(up, gain > GAIN, damping[active] < 1e8)]
        if not len(active):
            break
    return Shapes(span, level, alpha, slope, deviance)


def _step(
    span: Range,
    y: FloatArray,
    weight: FloatArray,
    alpha: FloatArray,
    slope: FloatArray,
    damping: FloatArray,
    free_alpha: bool,
) -> tuple[FloatArray, FloatArray]:
    """The damped Gauss–Newton step [R] in alpha and in slope; alpha at its bound does not leave."""
    z, by_alpha, by_slope = bend_and_slopes(span, alpha, slope)
    residual, u, v = (centred(part, weight)[1] for part in (y - z, by_alpha, by_slope))
    gu, gv = (weight * u * residual).sum(axis=1), (weight * v * residual).sum(axis=1)
    uu, uv, vv = ((weight * p * q).sum(axis=1) for p, q in ((u, u), (u, v), (v, v)))
    stuck = np.full(len(alpha), not free_alpha) | ((alpha >= LARGEST_ALPHA) & (gu > 0))
    gu, uu, uv = np.where(stuck, 0.0, gu), np.where(stuck, 1.0, uu), np.where(stuck, 0.0, uv)
    uu, vv = uu * (1 + damping) + 1e-300, vv * (1 + damping) + 1e-300
    determinant = uu * vv - uv**2
    return (gu * vv - gv * uv) / determinant, (gv * uu - gu * uv) / determinant


# Profile-likelihood intervals of the law: the range of a quantity over all laws that fit well enough.
#
# For a given shape (alpha, slope) the deviance is quadratic in the level, so over all levels within the threshold a
# quantity that rises with the level spans ± sqrt((threshold - deviance) / Σ weight): closed form. What is left is a
# grid over the shapes, scaled to the region they fill.

ALPHAS, REGION_SLOPES, COARSE, LINES = 81, 61, 161, 201
ZOOMS, ZOOM_POINTS = 5, 17
BEYOND = 1.6  # the grid of slopes reaches so much farther than a parabola's region
NEAR = 1e-9


@dataclass(frozen=True)
class Region:
    """The shapes [G] within the threshold, their best levels, and by how much the level may move (`slack`)."""

    span: Range
    alpha: FloatArray
    slope: FloatArray
    level: FloatArray
    slack: FloatArray
    holds_zero: bool

    def log_f_star(self, compute: float) -> tuple[float, float]:
        """The range of log F* at C."""
        there = self.level + log_relative(self.span, self.alpha, self.slope, np.array([compute]))[:, 0]
        return float((there - self.slack).min()), float((there + self.slack).max())

    @property
    def alpha_interval(self) -> Interval:
        """The range of alpha; None at the upper bound, 0 at the lower."""
        low, high = float(self.alpha.min()), float(self.alpha.max())
        return (0.0 if low <= SMALLEST_ALPHA else low, None if high >= LARGEST_ALPHA * (1 - NEAR) else high)

    @property
    def constant_interval(self) -> Interval:
        """The range of E; it starts at 0 where E = 0 fits well enough."""
        constant = self.level + log_shares(self.span, self.alpha, self.slope)[1]
        low = 0.0 if self.holds_zero else float(np.exp((constant - self.slack).min()))
        return low, float(np.exp((constant + self.slack).max()))


def find_region(best: Shapes, y: FloatArray, weight: FloatArray, rise: float) -> Region:
    """All shapes whose deviance is at most `rise` above that of `best`, a single row, for log F* [M]."""
    span, threshold = best.span, float(best.deviance[0]) + rise
    low, high = _ends(best, y, weight, threshold)
    alphas = np.unique([*np.linspace(low, high, ALPHAS), *np.geomspace(low, high, ALPHAS), *best.alpha])
    ridge = _ridge(span, y, weight, alphas[(alphas >= low) & (alphas <= high)])
    alpha, slope = _around(ridge, weight, threshold)
    lines = _lines(span, y, weight, threshold)
    return _within(span, y, weight, threshold, np.append(alpha, lines), np.append(slope, lines))


def lines_region(line: Shapes, y: FloatArray, weight: FloatArray, rise: float) -> Region:
    """The same among laws with E = 0; `line` is the best of them."""
    threshold = float(line.deviance[0]) + rise
    lines = np.append(_lines(line.span, y, weight, threshold), line.alpha)
    return _within(line.span, y, weight, threshold, lines, lines)


def _within(
    span: Range, y: FloatArray, weight: FloatArray, threshold: float, alpha: FloatArray, slope: FloatArray
) -> Region:
    level, residual = centred(y - bend(span, alpha, slope), weight)
    deviance = (weight * residual**2).sum(axis=1)
    inside = deviance <= threshold + NEAR
    slack = np.sqrt(np.maximum(threshold - deviance[inside], 0.0) / weight.sum())
    alpha, slope = alpha[inside], slope[inside]
    return Region(span, alpha, slope, level[inside], slack, bool((alpha == slope).any()))


def _lines(span: Range, y: FloatArray, weight: FloatArray, threshold: float) -> FloatArray:
    """The alphas of laws with E = 0 that may be within the threshold."""
    line = straight(span, y[None], weight[None])
    curvature = float((weight * centred(span.depth, weight)[1] ** 2).sum())
    reach = float(np.sqrt(max(threshold - line.deviance[0], 0.0) / curvature))
    return np.unique(np.clip(line.alpha + reach * np.linspace(-1, 1, LINES), SMALLEST_ALPHA, LARGEST_ALPHA))


def _ridge(span: Range, y: FloatArray, weight: FloatArray, alpha: FloatArray) -> Shapes:
    """For each alpha [A] the slope that fits best."""
    shape = (len(alpha), len(y))
    start = np.minimum(straight(span, y[None], weight[None]).slope, alpha) * 0.98
    return climb(span, np.broadcast_to(y, shape), np.broadcast_to(weight, shape), alpha, start, free_alpha=False)


def _ends(best: Shapes, y: FloatArray, weight: FloatArray, threshold: float) -> tuple[float, float]:
    """The smallest and the largest alpha within the threshold."""
    grid = np.unique([*np.geomspace(SMALLEST_ALPHA, LARGEST_ALPHA, COARSE), *best.alpha])
    inside = _ridge(best.span, y, weight, grid).deviance <= threshold + NEAR
    inside |= grid == best.alpha[0]
    first, last = np.flatnonzero(inside)[[0, -1]]
    low = grid[0] if first == 0 else _edge(best.span, y, weight, threshold, grid[first - 1], grid[first])
    high = grid[-1] if last == len(grid) - 1 else _edge(best.span, y, weight, threshold, grid[last + 1], grid[last])
    return float(low), float(high)


def _edge(span: Range, y: FloatArray, weight: FloatArray, threshold: float, outside: float, inside: float) -> float:
    """The alpha between the two at which the profile passes the threshold."""
    for _ in range(ZOOMS):
        grid = np.linspace(inside, outside, ZOOM_POINTS)
        beyond = _ridge(span, y, weight, grid).deviance > threshold
        beyond[0], beyond[-1] = False, True
        at = int(np.argmax(beyond))
        inside, outside = float(grid[at - 1]), float(grid[at])
    return inside


def _around(ridge: Shapes, weight: FloatArray, threshold: float) -> tuple[FloatArray, FloatArray]:
    """Shapes [G] that fill the region: for each alpha slopes about the best one, as far as they may fit."""
    by_slope = centred(bend_and_slopes(ridge.span, ridge.alpha, ridge.slope)[2], weight)[1]
    curvature = np.maximum((weight * by_slope**2).sum(axis=1), 1e-12)
    reach = BEYOND * np.sqrt(np.maximum(threshold - ridge.deviance, 0.0) / curvature)
    slope = ridge.slope[:, None] + np.linspace(-1, 1, REGION_SLOPES) * reach[:, None]
    alpha = np.broadcast_to(ridge.alpha[:, None], slope.shape)
    return alpha.ravel(), np.clip(slope, 0.0, alpha).ravel()


# The scatter of collapse points about a law beyond the curves' own errors, and what it does to intervals.
#
# Each log F* has the variance error² + scatter². The scatter is the one at which the deviance
# Σ residual² / (error² + scatter²) equals the median of chi-square with M - p degrees of freedom, 0 where the errors
# alone explain the misfit. With the mean in place of the median (Paule and Mandel 1982) it is 0 too often with few
# models: intervals cover 0.91–0.93 where these cover 0.93–0.95 (benchmarks/law_recovery.py). Without errors it is
# the root of deviance / (M - p). An interval holds what raises the deviance by no more than the 95 % point of
# F(1, df), df by Satterthwaite: infinite without scatter, M - p where there is nothing but scatter.

SCATTER_ZOOMS, SCATTER_ZOOM_POINTS = 6, 25
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
    for _ in range(SCATTER_ZOOMS):
        grid = low + (high - low) * np.linspace(0, 1, SCATTER_ZOOM_POINTS) ** 2
        above = misfit(1 / (errors**2 + grid[:, None] ** 2)) > target
        above[0], above[-1] = True, False
        last = int(np.argmin(above))
        low, high = float(grid[last - 1]), float(grid[last])
    return high


# One law from its collapse points: the best shape, the noise about it, and what else fits.


@dataclass(frozen=True)
class Estimate:
    """The best law (one row of `shapes`), its noise, and the region of laws that fit (None: no intervals)."""

    shapes: Shapes
    noise: Noise
    region: Region | None

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """A, alpha and E."""
        falling, constant = log_shares(self.shapes.span, self.shapes.alpha, self.shapes.slope)
        alpha, level = float(self.shapes.alpha[0]), float(self.shapes.level[0])
        A = np.exp(level + falling[0] + alpha * np.log(self.shapes.span.largest))
        return float(A), alpha, float(np.exp(level + constant[0]))

    def predict(self, compute: FloatArray) -> FloatArray:
        """F* [P] at C [P]."""
        return np.asarray(np.exp(self.shapes.log_predictions(compute)[0]))

    def interval(self, compute: float) -> Interval:
        """The 95 % interval of the F* of a model at C: profile likelihood and that model's scatter in quadrature."""
        if self.region is None:
            return OPEN
        best = float(self.shapes.log_predictions(np.array([compute]))[0, 0])
        low, high = self.region.log_f_star(compute)
        scatter = self.noise.quantile * self.noise.scatter
        return float(np.exp(best - np.hypot(best - low, scatter))), float(np.exp(best + np.hypot(high - best, scatter)))

    @property
    def rises(self) -> bool:
        """Whether the best law is one that does not fall."""
        return bool(self.shapes.slope[0] <= SMALLEST_ALPHA)


def estimate(compute: FloatArray, f_star: FloatArray, errors: FloatArray | None, free_E: bool) -> Estimate:
    """Fit F* [M] at C [M] with log errors [M] (None: unknown); E is 0 unless free."""
    span, y = Range.of(compute), np.log(f_star)
    fit = fit_shapes if free_E else straight

    def misfit(weight: FloatArray) -> FloatArray:
        return fit(span, np.broadcast_to(y, weight.shape), weight).deviance

    noise = find_noise(errors, len(y), len(y) - (3 if free_E else 2), misfit)
    weight = noise.weight
    best = fit(span, y[None], weight[None])
    if not noise.known:
        return Estimate(best, noise, None)
    region = (find_region if free_E else lines_region)(best, y, weight, noise.quantile**2)
    return Estimate(best, noise, region)
