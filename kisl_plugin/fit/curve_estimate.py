"""Profile-likelihood intervals of many sweeps at once: where the best curve with a parameter held loses too much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, stdtrit

from kisl_plugin.errors import InputError

# The binomial likelihood of collapse curves, of many sweeps at once.
#
# Written in log q (q = the curve's height at F*), b and φ = log F*, the curve a·F^b·exp(-c·F) is
# exp(log q - b·h(F/F*)) with h(x) = x - 1 - log x ≥ 0. So `peak ≤ 1` and `b ≥ 0` are plain bounds, and without floor
# the problem is concave in log a, b and c. These three are far less correlated than log a, b and log c.

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

LOG_HEIGHT, STEEPNESS, LOG_F_STAR = range(3)
LARGEST_B = 12.0  # P rises as F^12 there: a peak so narrow falls between two frequencies of a usual grid
SMALLEST_HEIGHT = 1e-9
REACH = np.log(30.0)  # F* is looked for so far beyond the frequencies
SURE = -1e-12  # the log share nearest to 0, where the curve touches P = 1
LOG_SMALLEST = -700.0  # what exp can hold


@dataclass(frozen=True)
class Cells:
    """Counts [M, K] of M sweeps at K frequencies: `correct` of `total` items; `floor` is what guessing reaches.

    Counts need not be whole: run-to-run noise makes fewer effective items of them.
    """

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    floor: float

    @property
    def share(self) -> FloatArray:
        """The shares right [M, K]."""
        return self.correct / self.total

    @property
    def lower(self) -> FloatArray:
        """The least values [3] of the parameters."""
        return np.array([np.log(SMALLEST_HEIGHT), 0.0, np.log(self.frequency.min()) - REACH])

    @property
    def upper(self) -> FloatArray:
        """The largest values [3] of the parameters."""
        return np.array([0.0, LARGEST_B, np.log(self.frequency.max()) + REACH])

    def take(self, rows: IntArray | BoolArray) -> "Cells":
        """Some of the sweeps, or some of them several times."""
        return Cells(self.frequency, self.correct[rows], self.total[rows], self.floor)

    def with_total(self, total: FloatArray) -> "Cells":
        """The same shares of `total` [M, K] items."""
        return Cells(self.frequency, self.share * total, total, self.floor)


def log_share(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """log(a·F^b·exp(-c·F)) [M, K] of M curves theta [M, 3] at frequencies [K]."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    return np.asarray(theta[:, LOG_HEIGHT, None] - theta[:, STEEPNESS, None] * (np.expm1(log_x) - log_x))


def rate(frequency: FloatArray, theta: FloatArray, floor: float) -> FloatArray:
    """P(F) [M, K] of M curves theta [M, 3] at frequencies [K], guessing included."""
    return np.asarray(floor + (1 - floor) * np.exp(np.clip(log_share(frequency, theta), LOG_SMALLEST, 0.0)))


def slopes(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """Derivatives [M, 3, K] of log share by theta."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    beyond = np.expm1(log_x)
    return np.stack([np.ones_like(log_x), log_x - beyond, theta[:, STEEPNESS, None] * beyond], axis=1)


def log_likelihood(cells: Cells, theta: FloatArray) -> FloatArray:
    """Binomial log-likelihood [M] of M curves for M sweeps, without the binomial coefficients."""
    eta = np.minimum(log_share(cells.frequency, theta), SURE)
    wrong = np.log(-np.expm1(eta))
    if cells.floor:
        right = np.log(cells.floor + (1 - cells.floor) * np.exp(eta))
        wrong += np.log1p(-cells.floor)
    else:
        right = eta
    return np.asarray((cells.correct * (right - wrong) + cells.total * wrong).sum(axis=1))


def saturated(cells: Cells) -> FloatArray:
    """The largest log-likelihoods [M] of any curve: every cell at its own share."""
    return np.asarray(block(cells.correct, cells.total).sum(axis=1))


def block(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Log-likelihoods of counts at their own share, any shape."""
    share = correct / total
    with np.errstate(divide="ignore", invalid="ignore"):
        hit, miss = correct * np.log(share), (total - correct) * np.log1p(-share)
    return np.asarray(np.where(correct > 0, hit, 0.0) + np.where(correct < total, miss, 0.0))


# Intervals of single shares.

NORMAL_95 = 1.959963984540054


def wilson(correct: ArrayLike, total: ArrayLike, quantile: ArrayLike = NORMAL_95) -> tuple[FloatArray, FloatArray]:
    """Wilson's intervals of shares, arguments of any shapes that go together; of 95 % with the usual quantile."""
    k, n, z2 = np.asarray(correct), np.asarray(total), np.square(quantile)
    middle = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(k * (n - k) / n + z2 / 4)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


# Counts as users give them, checked before anything is fitted.


@dataclass(frozen=True)
class Counts:
    """One sweep: per run [R] its frequency and how many of its items were right; per triple and run, which [T, R]."""

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    outcomes: FloatArray | None


def check_counts(frequency: ArrayLike, correct: ArrayLike, total: ArrayLike, outcomes: ArrayLike | None) -> Counts:
    """The counts as arrays, runs in order of frequency, then of counts, so that their order changes nothing.

    Raises:
        InputError: shapes differ, a value is outside its range, or the outcomes are not those of the counts.
    """
    F, k, n = (np.asarray(values, dtype=np.float64) for values in (frequency, correct, total))
    if not (F.ndim == 1 and F.shape == k.shape == n.shape and len(F)):
        raise InputError(
            f"frequency, correct and total have shapes {F.shape}, {k.shape}, {n.shape}; expected one row each"
        )
    _refuse("frequency", F, ~(np.isfinite(F) & (F > 0)), "more than 0 (runs at F = 0 measure the floor)")
    _refuse("total", n, ~(np.isfinite(n) & (n > 0) & (n % 1 == 0)), "a whole number above 0")
    _refuse("correct", k, ~((k >= 0) & (k <= n) & (k % 1 == 0)), "a whole number from 0 to total")
    order = np.lexsort((n, k, F))
    paired = None if outcomes is None else _check_outcomes(np.asarray(outcomes, dtype=np.float64), k, n)[:, order]
    return Counts(F[order], k[order], n[order], paired)


def check_floor(floor: float, floor_error: float) -> None:
    """Raises InputError unless the floor is a share below 1 and its standard error is none or positive."""
    if not 0 <= floor < 1:
        raise InputError(f"floor is {floor!r}; expected a share from 0 to below 1")
    if not 0 <= floor_error < 1:
        raise InputError(f"floor_error is {floor_error!r}; expected a standard error from 0 to below 1")


def _refuse(name: str, values: FloatArray, wrong: Sequence[bool] | np.ndarray, expected: str) -> None:
    if np.any(wrong):
        at = int(np.argmax(wrong))
        raise InputError(f"{name}[{at}] is {values[at]:g}; expected {expected}")


def _check_outcomes(outcomes: FloatArray, correct: FloatArray, total: FloatArray) -> FloatArray:
    if outcomes.ndim != 2 or outcomes.shape[1] != len(correct):
        raise InputError(f"outcomes have shape {outcomes.shape}; expected a row per triple and {len(correct)} columns")
    known = np.isfinite(outcomes)
    if not np.isin(outcomes[known], (0.0, 1.0)).all():
        raise InputError("outcomes hold other values than 1 (right), 0 (wrong) and NaN (not asked)")
    for name, found, given in (("items", known.sum(axis=0), total), ("right", np.nansum(outcomes, axis=0), correct)):
        if (found != given).any():
            at = int(np.argmax(found != given))
            raise InputError(f"outcomes of run {at} hold {found[at]:g} {name}; its counts say {given[at]:g}")
    return outcomes


# What many sweeps of one design counted: per frequency the items of all its runs, and how far its runs lie apart.


@dataclass(frozen=True)
class Sweeps:
    """M sweeps over K frequencies, `runs` [K] training runs (seeds) at each.

    `each` [M, K] is the mean over a cell's runs of one over their items, `concentration` [M, K] the share of one run in
    the pooled counts (1 / runs where all have as many items). `spread` [M, K] is the sum of squares of the runs' shares
    about their mean. `items` [M, K, K] is the covariance of the cells' shares that the choice of triples makes, where
    the same triples were asked at every frequency, and `within` [M, K] the variance between runs that it makes; None
    where items count as independent (binomial).
    """

    cells: Cells
    runs: IntArray
    each: FloatArray
    concentration: FloatArray
    spread: FloatArray
    items: FloatArray | None = None
    within: FloatArray | None = None

    def item_covariance(self, rates: FloatArray) -> FloatArray:
        """The covariance [M, K, K] of the cells' shares that the choice of triples makes, where P is `rates` [M, K].

        Correlations are those that were seen, variances those of the rates: a cell where every item was right has
        shown no variance, and has one.
        """
        variance = rates * (1 - rates) / self.cells.total
        diagonal = np.arange(rates.shape[1])
        covariance = np.zeros((*rates.shape, rates.shape[1]))
        if self.items is None:
            covariance[:, diagonal, diagonal] = variance
            return covariance
        seen = self.cells.share * (1 - self.cells.share) / self.cells.total
        scale = np.sqrt(np.where(seen > 0, variance / np.where(seen > 0, seen, 1.0), 0.0))
        covariance = self.items * scale[:, :, None] * scale[:, None]
        covariance[:, diagonal, diagonal] += np.where(seen > 0, 0.0, variance)
        return covariance


def pool(frequency: FloatArray, correct: FloatArray, total: FloatArray, floor: float) -> Sweeps:
    """Pool runs: counts [M, R] at the frequencies [R] of the runs, in any order."""
    distinct, cell = np.unique(frequency, return_inverse=True)
    member = (cell[:, None] == np.arange(len(distinct))).astype(np.float64)  # [R, K]
    runs = member.sum(axis=0)
    share = correct / total
    about = share - (share @ member / runs)[:, cell]
    cells = Cells(distinct, correct @ member, total @ member, floor)
    concentration = total**2 @ member / cells.total**2
    return Sweeps(cells, runs.astype(np.int64), 1 / total @ member / runs, concentration, about**2 @ member)


def pair(sweep: Sweeps, frequency: FloatArray, outcomes: FloatArray) -> Sweeps:
    """One sweep (M = 1) with the covariances that `outcomes` [T, R] show: 1 right, 0 wrong, NaN not asked.

    Deviations are from the share of their own run, so that what a whole run got better or worse is not in them.
    """
    _, cell = np.unique(frequency, return_inverse=True)
    asked = np.isfinite(outcomes)
    items = asked.sum(axis=0)
    mean = np.nansum(outcomes, axis=0) / items
    deviation = np.where(asked, outcomes - mean, 0.0) / np.sqrt(items * np.maximum(items - 1, 1))
    between_runs = deviation.T @ deviation  # [R, R] covariance of the runs' shares
    member = (cell[:, None] == np.arange(len(sweep.runs))).astype(np.float64)
    weight = member * items[:, None] / (items @ member)
    one_run = np.diag(between_runs) @ member / sweep.runs
    pairs = np.maximum(sweep.runs * (sweep.runs - 1), 1)
    shared = (np.diag(member.T @ between_runs @ member) - one_run * sweep.runs) / pairs
    within = np.maximum(one_run - shared, 0.0)
    return replace(sweep, items=(weight.T @ between_runs @ weight)[None], within=within[None])


# Fisher scoring with step-halving: many curves climb to their maximum at once.

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


# The best curve of each sweep, and its profile over a grid of F*: with a floor there are several hills to climb.

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


# How uncertain the parameters of a curve are, when the shares scatter more, or together, than the likelihood knows.

CONFIDENCE = 0.95
MOST = 1e10  # degrees of freedom; beyond it Student's t is the normal
SMALLEST_SHARE = 1e-12


@dataclass(frozen=True)
class Uncertainty:
    """How far log height, b and log F* [M] may be off.

    `covariance` [M, 3, 3] knows the items and the runs; `moved` [M, 3] is how far the parameters sink where the floor
    is higher by its standard error. `df` [M] are the degrees of freedom. `inflation` [M, 3] is the variance with all
    of it over the likelihood's, of the first parameter that of the peak, which a higher floor lifts.
    """

    covariance: FloatArray
    moved: FloatArray
    df: FloatArray
    inflation: FloatArray

    def drop(self, index: int) -> FloatArray:
        """How far [M] the profile of a parameter may fall below its top within its 95 % interval."""
        return np.asarray(self.inflation[:, index] * self.quantile**2 / 2)

    @property
    def quantile(self) -> FloatArray:
        """Student's t [M] that 95 % lie within; the normal's where nothing was estimated."""
        return np.asarray(stdtrit(np.minimum(self.df, MOST), (1 + CONFIDENCE) / 2))


def influence(sweeps: Sweeps, theta: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    """dP/dtheta [M, 3, K], and what a change of each share does to the estimates [M, 3, K], at `total` [M, K] items."""
    cells = sweeps.cells
    rates = np.clip(rate(cells.frequency, theta, cells.floor), SMALLEST_SHARE, 1 - SMALLEST_SHARE)
    rise = (1 - cells.floor) * np.exp(np.clip(log_share(cells.frequency, theta), -700, 0))
    gradient = slopes(cells.frequency, theta) * rise[:, None]
    return gradient, np.matmul(_inverse(sweeps, theta, total), gradient * (total / (rates * (1 - rates)))[:, None])


def uncertainty(
    sweeps: Sweeps, theta: FloatArray, total: FloatArray, tau2: FloatArray, df: FloatArray, floor_error: float
) -> Uncertainty:
    """The sandwich: what items, runs and the measured floor do to the estimates fitted with `total` effective items."""
    cells = sweeps.cells
    rates = rate(cells.frequency, theta, cells.floor)
    _, weighed = influence(sweeps, theta, total)
    v = rates * (1 - rates)
    of_items = np.einsum("mpj,mjk,mqk->mpq", weighed, sweeps.item_covariance(rates), weighed)
    of_runs = np.einsum("mpk,mk,mqk->mpq", weighed, tau2[:, None] * v**2 * sweeps.concentration, weighed)
    moved = np.einsum("mpk,mk->mp", weighed, (1 - rates) / (1 - cells.floor)) * floor_error
    covariance = of_items + of_runs
    of_model = np.einsum("mpk,mk,mqk->mpq", weighed, v / total, weighed)
    variance, model = (np.einsum("mpp->mp", matrix) for matrix in (covariance, of_model))
    height = np.exp(theta[:, LOG_HEIGHT])
    lifted = (1 - height) / ((1 - cells.floor) * height) * floor_error
    by_floor = np.column_stack([lifted - moved[:, LOG_HEIGHT], moved[:, LOG_HEIGHT + 1 :]])
    with np.errstate(divide="ignore", invalid="ignore"):
        inflation = np.where(model > 0, (variance + by_floor**2) / model, 1.0)
    return Uncertainty(covariance, moved, np.where(tau2 > 0, np.maximum(df, 1), np.inf), inflation)


def _inverse(sweeps: Sweeps, theta: FloatArray, total: FloatArray) -> FloatArray:
    """The inverse information [M, 3, 3]; a parameter at its bound does not move."""
    cells = sweeps.cells.with_total(total)
    information = expected_information(cells, theta)
    held = (theta <= cells.lower + AT_BOUND) | (theta >= cells.upper - AT_BOUND)
    information = np.where(held[:, :, None] | held[:, None, :], 0.0, information)
    diagonal = np.arange(3)
    information[:, diagonal, diagonal] += np.where(held, 1.0, 1e-10)
    inverse = np.linalg.inv(information)
    return np.asarray(np.where(held[:, :, None] | held[:, None, :], 0.0, inverse))


# Run-to-run noise: two trainings that differ in their seeds alone do not remember equally much.
#
# The share of one run is taken to have the variance v/n + tau²·v², v = P(1 - P): tau is the standard deviation of
# log-odds between runs. It is estimated by moments (Paule and Mandel's equation): from the spread of seeds, and where
# there are few of them from the lack of fit about the curve, which assumes the curve's form.

SEEDS, LACK_OF_FIT = "seeds", "lack of fit"
FEWEST_OF_SEEDS = 3  # degrees of freedom; with fewer the lack of fit says more
FREE = 3  # parameters of a curve
INFORMATIVE = 10.0  # expected items right, and wrong; with fewer a cell shows no noise, only rare counts
NOTICEABLE = 1.15  # squares over their expectation; what is less is not taken for noise
LARGEST_TAU = 5.0
BISECTIONS = 60
LEAST = 1e-9


@dataclass(frozen=True)
class Noise:
    """tau² [M], with the degrees of freedom [M] that it rests on."""

    tau2: FloatArray
    df: FloatArray
    source: str


def source_of_noise(sweeps: Sweeps) -> str:
    """Where tau comes from in this design."""
    if (sweeps.runs - 1).sum() >= FEWEST_OF_SEEDS:
        return SEEDS
    return LACK_OF_FIT


def estimate_noise(sweeps: Sweeps, theta: FloatArray, tau2: FloatArray) -> Noise:
    """tau² about the curves theta [M, 3], which were fitted with tau2 [M]."""
    source = source_of_noise(sweeps)
    rates = rate(sweeps.cells.frequency, theta, sweeps.cells.floor)
    v = rates * (1 - rates)
    shows = v / sweeps.each >= INFORMATIVE
    v = np.maximum(v, 0.25 / sweeps.cells.total)
    if source == SEEDS:
        df = (shows * (sweeps.runs - 1)).sum(axis=1)
        return Noise(_noise_solve(_of_seeds(sweeps, v, shows), df), df, source)
    df = np.maximum(shows.sum(axis=1) - FREE, 0.0)
    return Noise(_noise_solve(_of_fit(sweeps, theta, rates, v, shows, tau2), df), df, source)


def effective_total(sweeps: Sweeps, theta: FloatArray, tau2: FloatArray) -> FloatArray:
    """How many independent items [M, K] would make shares as uncertain as they are."""
    rates = rate(sweeps.cells.frequency, theta, sweeps.cells.floor)
    return np.asarray(1 / (1 / sweeps.cells.total + tau2[:, None] * rates * (1 - rates) * sweeps.concentration))


Squares = Callable[[FloatArray], FloatArray]  # tau² [M] → squares over their expectation, in degrees of freedom [M]


def _of_seeds(sweeps: Sweeps, v: FloatArray, shows: BoolArray) -> Squares:
    """The squares between seeds over their variance at tau²."""
    within = v * sweeps.each if sweeps.within is None else sweeps.within
    spread, least = np.where(shows, sweeps.spread, 0.0), 1e-6 / sweeps.cells.total
    return lambda tau2: np.asarray((spread / np.maximum(within + tau2[:, None] * v**2, least)).sum(axis=1))


def _of_fit(
    sweeps: Sweeps, theta: FloatArray, rates: FloatArray, v: FloatArray, shows: BoolArray, fitted: FloatArray
) -> Squares:
    """The squares about the curve over their variance at tau²; where items are shared, over what that comes to."""
    left = np.where(shows, (sweeps.cells.share - rates) ** 2, 0.0)
    binomial, run = v / sweeps.cells.total, v**2 * sweeps.concentration
    if sweeps.items is None:
        return lambda tau2: np.asarray((left / (binomial + tau2[:, None] * run)).sum(axis=1))
    gradient, weighed = influence(sweeps, theta, effective_total(sweeps, theta, fitted))
    residual = np.eye(len(sweeps.runs)) - np.matmul(gradient.transpose(0, 2, 1), weighed)  # [M, K, K]
    items = sweeps.item_covariance(rates)
    of_items = np.where(shows, np.einsum("mij,mjk,mik->mi", residual, items, residual), 0.0)
    of_runs = np.where(shows, np.einsum("mij,mj,mij->mi", residual, run, residual), 0.0)
    df = np.maximum(shows.sum(axis=1) - FREE, 1)

    def squares(tau2: FloatArray) -> FloatArray:
        variance = binomial + tau2[:, None] * run
        expected = ((of_items + tau2[:, None] * of_runs) / variance).sum(axis=1)
        return np.asarray(df * (left / variance).sum(axis=1) / np.maximum(expected, LEAST))

    return squares


def _noise_solve(squares: Squares, df: FloatArray) -> FloatArray:
    """The tau² [M] at which the squares are what they should be; 0 where they hardly exceed it without. Bisection."""
    low, high = np.zeros(len(df)), np.full(len(df), LARGEST_TAU)
    noisy = (squares(low) > NOTICEABLE * df) & (df > 0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = squares(middle**2) > df
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(noisy, low**2, 0.0)


# From counts to curves with intervals: fit, estimate the run-to-run noise, fit again with effective items.

ROUNDS = 2  # of estimating noise and fitting again


@dataclass(frozen=True)
class Fits:
    """M fitted sweeps: with the items as counted (`plain`), and with effective items (`land`)."""

    sweeps: Sweeps
    plain: Survey
    land: Survey
    noise: Noise
    uncertainty: Uncertainty

    @property
    def theta(self) -> FloatArray:
        """The curves [M, 3]."""
        return self.land.best


def fit_sweeps(sweeps: Sweeps, floor_error: float = 0.0) -> Fits:
    """Fit M sweeps; `floor_error` is the standard error of their floor."""
    plain = survey(sweeps.cells)
    theta, noise = plain.best, estimate_noise(sweeps, plain.best, np.zeros(len(plain.best)))
    for _ in range(ROUNDS - 1):
        total = effective_total(sweeps, theta, noise.tau2)
        theta, _ = maximise(sweeps.cells.with_total(total), theta)
        noise = estimate_noise(sweeps, theta, noise.tau2)
    total = effective_total(sweeps, theta, noise.tau2)
    land = _again(plain, sweeps, total, noise)
    sure = uncertainty(sweeps, land.best, total, noise.tau2, noise.df, floor_error)
    return Fits(sweeps, plain, land, noise, sure)


def _again(plain: Survey, sweeps: Sweeps, total: FloatArray, noise: Noise) -> Survey:
    """The survey with effective items; where there is no noise it is the plain one."""
    cells, rows = sweeps.cells.with_total(total), np.flatnonzero(noise.tau2 > 0)
    if not len(rows):
        return plain
    found = survey(cells.take(rows))
    merged = {}
    for name in ("best", "log_likelihood", "grid", "heights"):
        merged[name] = getattr(plain, name).copy()
        merged[name][rows] = getattr(found, name)
    return replace(plain, cells=cells, **merged)


# Profile-likelihood intervals of many sweeps at once: where the best curve with a parameter held loses too much.

HEIGHTS = np.append(np.log(expit(np.linspace(-9, 9, 37))), 0.0)
STARTS_OF_HEIGHT = 8  # curves along the profile of F* from which those of each height climb
NARROWINGS = 60
PROFILE_NARROW = 1e-7  # ends the search for a crossing
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
    grid, heights = _profile_held(land.cells.take(every), [start[every] for start in starts], LOG_HEIGHT, value, COARSE)
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
        return _profile_held(cells.take(some), starts, index, value)[1] - threshold[some]

    found[rows] = _roots(above, beyond[:, index], within[:, index])
    return found


def _profile_held(
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
        rows = rows[np.abs(b[rows] - a[rows]) > PROFILE_NARROW]
        if not len(rows):
            break
        middle = b[rows] - at_b[rows] * (b[rows] - a[rows]) / (at_b[rows] - at_a[rows])
        value = above(rows, middle)
        low, high = rows[value < 0], rows[value >= 0]
        a[low], at_a[low], at_b[low] = middle[value < 0], value[value < 0], at_b[low] / 2
        b[high], at_b[high], at_a[high] = middle[value >= 0], value[value >= 0], at_a[high] / 2
    return np.where(at_b >= 0, a, outside)
