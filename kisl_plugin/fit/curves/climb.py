"""Fisher scoring with step-halving: many curves climb to their maximum at once."""

import numpy as np

from kisl_plugin.fit.curves.likelihood import (
    LOG_F_STAR,
    LOG_SMALLEST,
    STEEPNESS,
    SURE,
    BoolArray,
    Cells,
    FloatArray,
    log_likelihood,
    log_share,
    slopes,
)

ITERATIONS, HALVINGS = 200, 25
FINE, MIDDLING, COARSE = 1e-10, 1e-4, 1e-2  # steps that gain less log-likelihood end the climb
LARGEST_STEP = 2.0
AT_BOUND = 1e-6  # nearer than this a step towards the bound is cut so short that the others go astray
EVERY = np.ones(3, dtype=bool)


def all_but(index: int) -> BoolArray:
    """Which parameters [3] move when `index` is held."""
    return np.asarray(np.arange(3) != index)


def maximise(
    cells: Cells, start: FloatArray, free: BoolArray = EVERY, tolerance: float = FINE
) -> tuple[FloatArray, FloatArray]:
    """Climb from start [M, 3], one for each sweep, moving the `free` [3] parameters: curves [M, 3], likelihoods [M]."""
    theta = np.clip(start, cells.lower, cells.upper)
    value = log_likelihood(cells, theta)
    rows, some = np.arange(len(theta)), cells
    for _ in range(ITERATIONS):
        theta[rows], higher = _rise(some, theta[rows], value[rows], _step(some, theta[rows], free))
        gain, value[rows] = higher - value[rows], higher
        going = gain > tolerance
        if not going.any():
            break
        rows, some = rows[going], some.take(going)
    return theta, value


def expected_information(cells: Cells, theta: FloatArray) -> FloatArray:
    """Fisher information [M, 3, 3]."""
    slope, rise, right, wrong = _pieces(cells, theta)
    weight = cells.total * rise * (rise / right / wrong)
    return np.asarray(np.matmul(slope * weight[:, None], slope.transpose(0, 2, 1)))


def _pieces(cells: Cells, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Slopes of log share [M, 3, K]; dP / d log share, P and 1 - P [M, K]."""
    eta = np.clip(log_share(cells.frequency, theta), LOG_SMALLEST, SURE)
    rise = (1 - cells.floor) * np.exp(eta)
    return slopes(cells.frequency, theta), rise, cells.floor + rise, (1 - cells.floor) * -np.expm1(eta)


def _step(cells: Cells, theta: FloatArray, free: BoolArray) -> FloatArray:
    """The step [M, 3]: Newton's where the surface is concave, else scoring's; what would leave its bounds stays."""
    slope, rise, right, wrong = _pieces(cells, theta)
    ratio = rise / right / wrong
    score, weight = (cells.correct - cells.total * right) * ratio, cells.total * rise * ratio
    gradient = np.matmul(slope, score[:, :, None])[:, :, 0]
    low, high = theta <= cells.lower + AT_BOUND, theta >= cells.upper - AT_BOUND
    stuck = ~free | (low & (gradient < 0)) | (high & (gradient > 0))
    expected = _held(np.matmul(slope * weight[:, None], slope.transpose(0, 2, 1)), stuck)
    bend = (cells.total - cells.correct) * (1 - cells.floor) * rise / wrong**2
    bend -= cells.correct * (rise / right) * (cells.floor / right)
    observed = np.matmul(slope * bend[:, None], slope.transpose(0, 2, 1)) - _twist(theta, slope, score)
    observed = _held(observed, stuck)
    concave = _positive_definite(observed)[:, None, None]
    return _solve(np.where(stuck, 0.0, gradient), np.where(concave, observed, expected))


def _twist(theta: FloatArray, slope: FloatArray, score: FloatArray) -> FloatArray:
    """What the second derivatives of log share add to those of the likelihood [M, 3, 3]."""
    b = np.maximum(theta[:, STEEPNESS], 1e-300)
    beyond = slope[:, LOG_F_STAR] / b[:, None]
    twist = np.zeros((len(theta), 3, 3))
    twist[:, STEEPNESS, LOG_F_STAR] = twist[:, LOG_F_STAR, STEEPNESS] = (score * beyond).sum(axis=1)
    twist[:, LOG_F_STAR, LOG_F_STAR] = -b * (score * (1 + beyond)).sum(axis=1)
    return twist


def _held(information: FloatArray, stuck: BoolArray) -> FloatArray:
    information = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, information)
    diagonal = np.arange(3)
    information[:, diagonal, diagonal] += np.where(stuck, 1.0, 1e-10)
    return np.asarray(information)


def _positive_definite(matrix: FloatArray) -> BoolArray:
    """Whether [M, 3, 3] are, by their minors; a little more is asked, so that steps stay finite."""
    a, b, c = (matrix[:, i, i] for i in range(3))
    ab, ac, bc = matrix[:, 0, 1] ** 2, matrix[:, 0, 2] ** 2, matrix[:, 1, 2] ** 2
    third = a * b * c + 2 * matrix[:, 0, 1] * matrix[:, 0, 2] * matrix[:, 1, 2] - a * bc - b * ac - c * ab
    return np.asarray((a > 0) & (a * b > ab * (1 + 1e-9)) & (third > 1e-9 * a * b * c))


def _solve(gradient: FloatArray, information: FloatArray) -> FloatArray:
    diagonal = np.arange(3)
    information[:, diagonal, diagonal] *= 1 + 1e-9
    step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return np.asarray(step * np.minimum(1.0, LARGEST_STEP / np.maximum(longest, LARGEST_STEP)))


def _rise(cells: Cells, theta: FloatArray, value: FloatArray, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Halve each step until it does not go down; a curve that cannot rise stays."""
    best, height = theta.copy(), value.copy()
    rows, some, factor = np.arange(len(theta)), cells, 1.0
    for _ in range(HALVINGS):
        trial = np.clip(theta[rows] + factor * step[rows], cells.lower, cells.upper)
        reached = log_likelihood(some, trial)
        up = reached >= value[rows]
        best[rows[up]], height[rows[up]] = trial[up], reached[up]
        if up.all():
            break
        rows, some, factor = rows[~up], some.take(~up), factor / 2
    return best, height
