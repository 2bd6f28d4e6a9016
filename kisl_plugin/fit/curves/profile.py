"""Profile-likelihood intervals of the collapse point and of the curve's height."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from kisl_plugin.fit.curves.likelihood import (
    COARSE,
    LOG_F_STAR,
    LOG_HEIGHT,
    BoolArray,
    Cells,
    FloatArray,
    maximise,
)

CHI_SQUARE_95 = 3.841458820694124  # 1 degree of freedom
SPACING = 0.15  # of the grid in log F*
HEIGHTS = np.append(np.log(expit(np.linspace(-9, 9, 37))), 0.0)
STARTING_B = (0.3, 3.0, 30.0)
EVERY = np.ones(3, dtype=bool)


@dataclass(frozen=True)
class Landscape:
    """The best curve, and the best curve for each F* of a grid in log F*, ends included."""

    cells: Cells
    best: FloatArray  # [3]
    log_likelihood: float
    grid: FloatArray  # [G, 3]
    heights: FloatArray  # [G], log-likelihoods


def survey(cells: Cells) -> Landscape:
    """Maximise for each F* of a grid, then climb freely from every hilltop: a floor makes several hills."""
    nearest, farthest = cells.lower[LOG_F_STAR], cells.upper[LOG_F_STAR]
    log_f_star = np.linspace(nearest, farthest, int((farthest - nearest) / SPACING) + 2)
    share = np.clip((cells.correct / cells.total - cells.floor) / (1 - cells.floor), 0.01, 0.99)
    start = np.stack(np.meshgrid(np.log(share.mean()), STARTING_B, log_f_star, indexing="ij"), axis=-1)
    curves, reached = maximise(cells, start.reshape(-1, 3), _all_but(LOG_F_STAR))
    grid, heights = _highest(curves.reshape(-1, len(log_f_star), 3), reached.reshape(-1, len(log_f_star)))
    around = np.concatenate([[-np.inf], heights, [-np.inf]])
    hilltops = (heights >= around[:-2]) & (heights >= around[2:])
    free, reached = maximise(cells, grid[hilltops], EVERY)
    top = int(np.argmax(reached))
    return Landscape(cells, free[top], float(reached[top]), grid, heights)


def _highest(curves: FloatArray, reached: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of curves [S, G, 3] from S starts the best of each column [G, 3], and its log-likelihood [G]."""
    best = reached.argmax(axis=0)
    return curves[best, np.arange(len(best))], reached.max(axis=0)


def f_star_interval(land: Landscape) -> tuple[float | None, float | None]:
    """The 95 % interval of F*; None for an end that lies beyond the grid, which is 30 times beyond the data."""
    low, high = _interval(land, LOG_F_STAR, land.grid, land.heights)
    return (None if low is None else float(np.exp(low)), None if high is None else float(np.exp(high)))


def peak_interval(land: Landscape) -> tuple[float, float]:
    """The 95 % interval of the peak P, guessing included; its ends are at most the floor and 1."""
    starts = np.vstack([land.grid[:: max(1, len(land.grid) // 8)], land.best])
    curves = np.repeat(starts[:, None], len(HEIGHTS), axis=1)
    curves[:, :, LOG_HEIGHT] = HEIGHTS
    found, reached = maximise(land.cells, curves.reshape(-1, 3), _all_but(LOG_HEIGHT), COARSE)
    best, heights = _highest(found.reshape(curves.shape), reached.reshape(curves.shape[:2]))
    low, high = _interval(land, LOG_HEIGHT, best, heights)
    floor = land.cells.floor
    return (
        floor if low is None else floor + (1 - floor) * float(np.exp(low)),
        1.0 if high is None else floor + (1 - floor) * float(np.exp(high)),
    )


def _interval(land: Landscape, index: int, grid: FloatArray, heights: FloatArray) -> tuple[float | None, float | None]:
    """The outermost values of parameter `index` within the 95 % interval; None where the grid ends first."""
    grid = np.vstack([grid, land.best])
    heights = np.append(heights, land.log_likelihood)
    order = np.argsort(grid[:, index], kind="stable")
    grid, above = grid[order], heights[order] - _threshold(land)
    inside = np.flatnonzero(above >= 0)
    first, last = int(inside[0]), int(inside[-1])
    low = None if first == 0 else _crossing(land, index, grid[first - 1], grid[first])
    high = None if last == len(grid) - 1 else _crossing(land, index, grid[last + 1], grid[last])
    return low, high


def _crossing(land: Landscape, index: int, outside: FloatArray, inside: FloatArray) -> float:
    """Where the profile passes the threshold between two curves of the grid."""
    starts = np.stack([outside, inside, land.best])
    threshold = _threshold(land)

    def above(value: float) -> float:
        curves = starts.copy()
        curves[:, index] = value
        return float(maximise(land.cells, curves, _all_but(index))[1].max() - threshold)

    low, high = float(outside[index]), float(inside[index])
    if above(low) * above(high) > 0:  # the climb from other starts went higher: the end is at the grid's point
        return low
    return float(brentq(above, low, high, xtol=1e-7))


def _threshold(land: Landscape) -> float:
    return land.log_likelihood - CHI_SQUARE_95 / 2


def _all_but(index: int) -> BoolArray:
    return np.asarray(np.arange(3) != index)
