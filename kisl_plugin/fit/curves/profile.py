"""Profile-likelihood intervals of many sweeps at once: where the best curve with a parameter held loses too much."""

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from kisl_plugin.fit.curves.climb import COARSE, all_but, maximise
from kisl_plugin.fit.curves.likelihood import LOG_F_STAR, LOG_HEIGHT, BoolArray, Cells, FloatArray, IntArray
from kisl_plugin.fit.curves.survey import Survey, highest

HEIGHTS = np.append(np.log(expit(np.linspace(-9, 9, 37))), 0.0)
STARTS_OF_HEIGHT = 8  # curves along the profile of F* from which those of each height climb
NARROWINGS = 60
NARROW = 1e-7  # ends the search for a crossing
Profile = Callable[[IntArray, FloatArray], FloatArray]


def f_star_interval(land: Survey, drop: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ends [M] of log F* where the profile is `drop` [M] below its top; NaN where that lies beyond the grid."""
    return _interval(land, LOG_F_STAR, land.grid, land.heights, drop)


def height_interval(land: Survey, drop: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The same of the log height at F*; NaN where it reaches 1, or a ten-thousandth."""
    sweeps, points = land.grid.shape[:2]
    starts = [land.grid[:, at] for at in range(0, points, max(1, points // STARTS_OF_HEIGHT))] + [land.best]
    every = np.repeat(np.arange(sweeps), len(HEIGHTS))
    value = np.tile(HEIGHTS, sweeps)
    grid, heights = _held(land.cells.take(every), [start[every] for start in starts], LOG_HEIGHT, value, COARSE)
    grid, heights = grid.reshape(sweeps, len(HEIGHTS), 3), heights.reshape(sweeps, len(HEIGHTS))
    return _interval(land, LOG_HEIGHT, grid, heights, drop)


def _interval(
    land: Survey, index: int, grid: FloatArray, heights: FloatArray, drop: FloatArray
) -> tuple[FloatArray, FloatArray]:
    grid = np.concatenate([grid, land.best[:, None]], axis=1)
    heights = np.concatenate([heights, land.log_likelihood[:, None]], axis=1)
    rows = np.arange(len(grid))[:, None]
    order = np.argsort(grid[:, :, index], axis=1, kind="stable")
    grid, inside = grid[rows, order], heights[rows, order] >= (land.log_likelihood - drop)[:, None]
    first, last = inside.argmax(axis=1), inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    low = _crossing(land, index, grid, first - 1, first, first > 0, drop)
    high = _crossing(land, index, grid, last + 1, last, last < inside.shape[1] - 1, drop)
    return low, high


def _crossing(
    land: Survey, index: int, grid: FloatArray, outside: IntArray, inside: IntArray, closed: BoolArray, drop: FloatArray
) -> FloatArray:
    """Where the profile passes the threshold [M] between two curves of the grid; NaN where the interval is open."""
    found, rows = np.full(len(grid), np.nan), np.flatnonzero(closed)
    beyond, within = grid[rows, outside[rows]], grid[rows, inside[rows]]
    best, cells, threshold = land.best[rows], land.cells.take(rows), (land.log_likelihood - drop)[rows]

    def above(some: IntArray, value: FloatArray) -> FloatArray:
        starts = [within[some], beyond[some], best[some]] if cells.floor else [within[some]]
        return _held(cells.take(some), starts, index, value)[1] - threshold[some]

    found[rows] = _roots(above, beyond[:, index], within[:, index])
    return found


def _held(
    cells: Cells, starts: list[FloatArray], index: int, value: FloatArray, tolerance: float = 1e-9
) -> tuple[FloatArray, FloatArray]:
    """The best curves with parameter `index` at `value` [M], from several starts [M, 3]."""
    held = np.concatenate(starts)
    held[:, index] = np.tile(value, len(starts))
    every = cells.take(np.tile(np.arange(len(value)), len(starts)))
    curves, reached = maximise(every, held, all_but(index), tolerance)
    return highest(curves.reshape(len(starts), -1, 3), reached.reshape(len(starts), -1))


def _roots(above: Profile, outside: FloatArray, inside: FloatArray) -> FloatArray:
    """Roots [M] of functions below 0 at `outside` and above at `inside`, by the Illinois method.

    Where a climb from other starts went higher than the grid, so that nothing is below 0, the root is `outside`.
    """
    every = np.arange(len(outside))
    a, b, at_a, at_b = outside.copy(), inside.copy(), above(every, outside), above(every, inside)
    rows = np.flatnonzero((at_a < 0) & (at_b >= 0))
    for _ in range(NARROWINGS):
        rows = rows[np.abs(b[rows] - a[rows]) > NARROW]
        if not len(rows):
            break
        middle = b[rows] - at_b[rows] * (b[rows] - a[rows]) / (at_b[rows] - at_a[rows])
        value = above(rows, middle)
        low, high = rows[value < 0], rows[value >= 0]
        a[low], at_a[low], at_b[low] = middle[value < 0], value[value < 0], at_b[low] / 2
        b[high], at_b[high], at_a[high] = middle[value >= 0], value[value >= 0], at_a[high] / 2
    return np.where(at_b >= 0, a, outside)
