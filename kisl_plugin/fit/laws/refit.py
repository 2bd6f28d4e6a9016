"""Many infusion laws at once: weighted least squares of log F*, the level in closed form.

A grid over the shape, then Levenberg–Marquardt in (alpha, slope) from the best of each band of alpha, beside E = 0
in closed form (a straight line in logs). There is no other estimator of the law: `fit_infusion_law` is one row.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from kisl_plugin.errors import InputError
from kisl_plugin.fit.laws.points import BoolArray, FloatArray, positive
from kisl_plugin.fit.laws.shape import (
    LARGEST_ALPHA,
    SMALLEST_ALPHA,
    Range,
    bend,
    bend_and_slopes,
    log_relative,
    log_shares,
)

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
