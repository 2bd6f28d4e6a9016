"""Profile-likelihood intervals of the law: the range of a quantity over all laws that fit well enough.

For a given shape (alpha, slope) the deviance is quadratic in the level, so over all levels within the threshold a
quantity that rises with the level spans ± sqrt((threshold - deviance) / Σ weight): closed form. What is left is a
grid over the shapes, scaled to the region they fill.
"""

from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.laws.points import FloatArray, Interval
from kisl_plugin.fit.laws.refit import Shapes, centred, climb, straight
from kisl_plugin.fit.laws.shape import (
    LARGEST_ALPHA,
    SMALLEST_ALPHA,
    Range,
    bend,
    bend_and_slopes,
    log_relative,
    log_shares,
)

ALPHAS, SLOPES, COARSE, LINES = 81, 61, 161, 201
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
    slope = ridge.slope[:, None] + np.linspace(-1, 1, SLOPES) * reach[:, None]
    alpha = np.broadcast_to(ridge.alpha[:, None], slope.shape)
    return alpha.ravel(), np.clip(slope, 0.0, alpha).ravel()
