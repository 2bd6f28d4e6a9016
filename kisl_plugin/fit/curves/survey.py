"""The best curve of each sweep, and its profile over a grid of F*: with a floor there are several hills to climb."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.curves.climb import COARSE, MIDDLING, all_but, maximise
from kisl_plugin.fit.curves.likelihood import LOG_F_STAR, LOG_HEIGHT, Cells, FloatArray, log_likelihood

NEAR, NEAR_WITH_FLOOR, FAR = 0.3, 0.12, 0.6  # spacing of the grid in log F*, among the frequencies and beyond them
BROAD, NARROW = (0.02, 0.1, 0.3, 1.0), (2.0, 5.0, 12.0)  # starting values of b
HILLS = 8  # climbed freely from, the highest


@dataclass(frozen=True)
class Survey:
    """The best curves [M, 3] of M sweeps with likelihoods [M]; the best for each F* of a grid [M, G, 3], [M, G]."""

    cells: Cells
    best: FloatArray
    log_likelihood: FloatArray
    grid: FloatArray
    heights: FloatArray


def survey(cells: Cells) -> Survey:
    """Maximise for each F* of a grid, then climb freely from the highest hilltops."""
    grid, heights = _profile(cells, _log_f_star(cells))
    best, reached = _from_hilltops(cells, grid, heights)
    return Survey(cells, best, reached, grid, heights)


def _log_f_star(cells: Cells) -> FloatArray:
    low, high = np.log(cells.frequency.min()), np.log(cells.frequency.max())
    lowest, highest = cells.lower[LOG_F_STAR], cells.upper[LOG_F_STAR]
    near = NEAR_WITH_FLOOR if cells.floor else NEAR
    inside = np.linspace(low, high, int((high - low) / near) + 2)
    steps = int((highest - high) / FAR) + 2
    return np.concatenate([np.linspace(lowest, low, steps)[:-1], inside, np.linspace(high, highest, steps)[1:]])


def _profile(cells: Cells, log_f_star: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The best of the climbs from a broad and a narrow start; without floor the problem is concave, one will do."""
    sweeps, points = len(cells.correct), len(log_f_star)
    every = cells.take(np.repeat(np.arange(sweeps), points))
    families = (BROAD, NARROW) if cells.floor else ((*BROAD, *NARROW),)
    climbs = [
        maximise(every, _starts(cells, log_f_star, family).reshape(-1, 3), all_but(LOG_F_STAR), COARSE)
        for family in families
    ]
    curves, reached = highest([theta for theta, _ in climbs], [value for _, value in climbs])
    return curves.reshape(sweeps, points, 3), reached.reshape(sweeps, points)


def highest(
    curves: Sequence[FloatArray] | FloatArray, reached: Sequence[FloatArray] | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Of several curves [M, 3] for each sweep that of the highest likelihood [M]."""
    best = np.argmax(reached, axis=0)
    every = np.arange(len(best))
    return np.asarray(curves)[best, every], np.asarray(reached)[best, every]


def _starts(cells: Cells, log_f_star: FloatArray, family: Sequence[float]) -> FloatArray:
    """For each sweep and F* the best [M, G, 3] of a few b, its height the one that gets as many items right."""
    starts = np.empty((len(cells.correct), len(log_f_star), 3))
    for point, at in enumerate(log_f_star):
        tried = [_with_height(cells, b, at) for b in family]
        starts[:, point], _ = highest(tried, [log_likelihood(cells, theta) for theta in tried])
    return starts


def _with_height(cells: Cells, b: float, log_f_star: float) -> FloatArray:
    log_x = np.log(cells.frequency) - log_f_star
    relative = np.exp(-b * (np.expm1(log_x) - log_x))
    above = (cells.correct - cells.floor * cells.total).sum(axis=1)
    height = above / np.maximum((1 - cells.floor) * (cells.total @ relative), 1e-300)
    theta = np.empty((len(above), 3))
    theta[:] = 0.0, b, log_f_star
    theta[:, LOG_HEIGHT] = np.log(np.clip(height, 0.003, 0.997))
    return theta


def _from_hilltops(cells: Cells, grid: FloatArray, heights: FloatArray) -> tuple[FloatArray, FloatArray]:
    around = np.pad(heights, ((0, 0), (1, 1)), constant_values=-np.inf)
    tops = np.where((heights >= around[:, :-2]) & (heights >= around[:, 2:]), heights, -np.inf)
    order = np.argsort(-tops, axis=1, kind="stable")[:, : HILLS if cells.floor else 1]
    every = np.arange(len(heights))
    climbs = [maximise(cells, grid[every, hill], tolerance=MIDDLING) for hill in order.T]
    top, _ = highest([theta for theta, _ in climbs], [value for _, value in climbs])
    return maximise(cells, top)
