"""The collapse curve of one model: P(F) = g + (1-g)·a·F^b·exp(-c·F), collapse point F* = b/c (arXiv 2509.19371)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtrit
from scipy.stats import f as f_distribution

from kisl_plugin.fit.curve_estimate import (
    LACK_OF_FIT,
    LARGEST_B,
    LOG_F_STAR,
    LOG_HEIGHT,
    MIDDLING,
    MOST,
    SEEDS,
    STEEPNESS,
    BoolArray,
    Cells,
    Counts,
    Fits,
    FloatArray,
    IntArray,
    Sweeps,
    block,
    check_counts,
    check_floor,
    f_star_interval,
    fit_sweeps,
    height_interval,
    maximise,
    pair,
    pool,
    rate,
    saturated,
    slopes,
    wilson,
)
from kisl_plugin.fit.text import (
    FORM_REJECTED,
    NO_COLLAPSE,
    NOT_IDENTIFIED,
    NOT_UNIMODAL,
    OK,
    TOO_FEW_POINTS,
    probability,
)

# How often chance alone gives as large a statistic: parametric bootstrap, stopped early where the answer is plain.
#
# Draws are binomial with the effective items. Where those rest on a noise that was itself estimated, each drawn
# statistic is divided by how far such an estimate strays (a chi-square over its mean), else tests of few runs err.

Statistic = Callable[[FloatArray, FloatArray, IntArray], FloatArray]  # correct, total [L, K], their sweeps [L] → [L]
STAGES = (99, 900)
PLAIN_EXCEEDANCES = 15  # of the first stage: p is above 0.1
CERTAIN = 1e-4
AT_ONCE = 100_000
SEED = 0  # the same counts give the same p-values


@dataclass(frozen=True)
class Null:
    """What chance draws from: shares [M, K] of whole effective items [M, K].

    `noisy` [M] is the part of the variance that is run-to-run noise, estimated with `df` [M] degrees of freedom.
    """

    rates: FloatArray
    total: FloatArray
    noisy: FloatArray
    df: FloatArray

    def take(self, rows: IntArray) -> "Null":
        """Those of some sweeps, or of some several times."""
        return Null(self.rates[rows], self.total[rows], self.noisy[rows], self.df[rows])


def p_values(observed: FloatArray, null: Null, statistic: Statistic) -> FloatArray:
    """The p-values [M] of `observed` [M] statistics."""
    rng = np.random.default_rng(SEED)
    exceeding, drawn = np.zeros(len(observed)), np.zeros(len(observed))
    rows = np.flatnonzero((observed > 0) & _in_doubt(observed, null))
    for stage in STAGES:
        for some in np.array_split(rows, max(1, len(rows) * stage // AT_ONCE)):
            exceeding[some] += _exceeding(observed[some], null.take(some), some, stage, statistic, rng)
        drawn[rows] += stage
        rows = rows[exceeding[rows] < PLAIN_EXCEEDANCES]
    p = np.where(drawn > 0, (1 + exceeding) / (1 + drawn), 1 / (1 + sum(STAGES)))
    return np.where(observed > 0, p, 1.0)


def _in_doubt(observed: FloatArray, null: Null) -> BoolArray:
    """All but where even the statistic of as many free shares as there are cells would hardly ever be as large."""
    cells = null.total.shape[1]
    spread = np.where(null.noisy > 0, np.maximum(null.df, 1), 1e9)
    return np.asarray(f_distribution.sf(observed / cells, cells, spread) >= CERTAIN)


def _exceeding(
    observed: FloatArray, null: Null, sweeps: IntArray, draws: int, statistic: Statistic, rng: np.random.Generator
) -> FloatArray:
    total = np.repeat(null.total, draws, axis=0)
    correct = rng.binomial(total.astype(np.int64), np.repeat(null.rates, draws, axis=0)).astype(np.float64)
    found = statistic(correct, total, np.repeat(sweeps, draws)).reshape(-1, draws)
    if (null.noisy > 0).any():
        df = np.maximum(null.df, 1)[:, None]
        strayed = rng.chisquare(np.broadcast_to(df, found.shape)) / df
        found = found / (1 - null.noisy[:, None] + null.noisy[:, None] * strayed)
    return np.asarray((found >= observed[:, None] - 1e-9).sum(axis=1), dtype=np.float64)


# Shares that only rise, or rise and then fall: order-restricted likelihoods of many sweeps at once.
#
# No form of the curve is assumed: these are the fits against which a fall, or a second peak, is tested.


def fall_ratio(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Twice the log-likelihood ratio [M] of "rises, then falls" over "only rises", of counts [M, K]."""
    rising, falling = _prefixes_and_suffixes(correct, total)
    return np.asarray(2 * ((rising + falling).max(axis=1) - rising[:, -1]))


def second_peak_ratio(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Twice the log-likelihood ratio [M] of "each cell its own share" over "rises, then falls", of counts [M, K]."""
    rising, falling = _prefixes_and_suffixes(correct, total)
    return np.asarray(2 * (block(correct, total).sum(axis=1) - (rising + falling).max(axis=1)))


def rising_fit(correct: FloatArray, total: FloatArray) -> FloatArray:
    """The shares [M, K] of highest likelihood among those that never fall (isotonic regression)."""
    return _rising_up_to(correct, total, np.full(len(correct), correct.shape[1]))


def unimodal_fit(correct: FloatArray, total: FloatArray) -> FloatArray:
    """The shares [M, K] of highest likelihood among those that rise, then fall."""
    rising, falling = _prefixes_and_suffixes(correct, total)
    top = (rising + falling).argmax(axis=1)
    cells = correct.shape[1]
    up = _rising_up_to(correct, total, top)
    down = _rising_up_to(correct[:, ::-1], total[:, ::-1], cells - top)[:, ::-1]
    return np.where(np.arange(cells) < top[:, None], up, down)


def rising_prefixes(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Log-likelihoods [M, K + 1] of the isotonic fits of the first 0 … K cells (pool adjacent violators)."""
    sweeps, cells = correct.shape
    right, asked = np.zeros((sweeps, cells)), np.ones((sweeps, cells))
    sums = np.zeros((sweeps, cells + 1))  # of the blocks below, per height of the stack
    top = np.full(sweeps, -1)
    prefixes = np.zeros((sweeps, cells + 1))
    every = np.arange(sweeps)
    for cell in range(cells):
        top += 1
        right[every, top], asked[every, top] = correct[:, cell], total[:, cell]
        rows = every
        while len(rows := _violated(right, asked, top, rows)):
            at = top[rows]
            right[rows, at - 1] += right[rows, at]
            asked[rows, at - 1] += asked[rows, at]
            top[rows] -= 1
        sums[every, top + 1] = sums[every, top] + block(right[every, top], asked[every, top])
        prefixes[:, cell + 1] = sums[every, top + 1]
    return prefixes


def _prefixes_and_suffixes(correct: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    falling = rising_prefixes(correct[:, ::-1], total[:, ::-1])[:, ::-1]
    return rising_prefixes(correct, total), falling


def _violated(right: FloatArray, asked: FloatArray, top: IntArray, rows: IntArray) -> IntArray:
    """The rows whose topmost block's share is below that of the block under it."""
    at, under = top[rows], np.maximum(top[rows] - 1, 0)
    lower = right[rows, at] * asked[rows, under] < right[rows, under] * asked[rows, at]
    return np.asarray(rows[(at > 0) & lower])


def _rising_up_to(correct: FloatArray, total: FloatArray, ends: IntArray) -> FloatArray:
    """Isotonic shares [M, K] of the first `ends` [M] cells (beyond them without meaning), by the min-max formula."""
    right = np.pad(np.cumsum(correct, axis=1), ((0, 0), (1, 0)))
    asked = np.pad(np.cumsum(total, axis=1), ((0, 0), (1, 0)))
    starts, stops = np.arange(correct.shape[1]), np.arange(1, correct.shape[1] + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (right[:, None, stops] - right[:, starts, None]) / (asked[:, None, stops] - asked[:, starts, None])
    empty = starts[:, None] >= stops
    mean[empty[None] | (stops[None, None] > ends[:, None, None])] = np.inf
    least = np.minimum.accumulate(mean[:, :, ::-1], axis=2)[:, :, ::-1]  # over ends at or after
    least[np.broadcast_to(empty, least.shape)] = -np.inf
    return np.asarray(np.clip(least.max(axis=1), 0, 1))


# What the counts show without the curve's form, and whether they bear it: a fall, a second peak, lack of fit.

UPPER_END = 0.975  # of a 95 % interval


@dataclass(frozen=True)
class Tests:
    """p-values [M] of "never falls", "rises once, then falls" and "has the curve's form"; the largest falls allowed."""

    fall: FloatArray
    unimodal: FloatArray
    form: FloatArray
    largest_fall: FloatArray


def run_tests(fits: Fits) -> Tests:
    """All tests of M fitted sweeps."""
    tested = _what_is_tested(fits)
    cells, noisy = tested.cells, tested.noisy

    def p(observed: FloatArray, rates: FloatArray, statistic: Statistic) -> FloatArray:
        return p_values(observed, Null(rates, cells.total, noisy, fits.noise.df), statistic)

    return Tests(
        fall=p(fall_ratio(*tested.counts), rising_fit(*tested.counts), lambda k, n, _: fall_ratio(k, n)),
        unimodal=p(
            second_peak_ratio(*tested.counts), unimodal_fit(*tested.counts), lambda k, n, _: second_peak_ratio(k, n)
        ),
        form=p(_deviance(cells, tested.theta), rate(cells.frequency, tested.theta, cells.floor), _refitted(tested)),
        largest_fall=_largest_fall(tested, fits.noise.df),
    )


@dataclass(frozen=True)
class _Tested:
    """Whole effective items, the curves [M, 3] fitted to them, and the part [M] of the variance that is noise."""

    cells: Cells
    theta: FloatArray
    noisy: FloatArray

    @property
    def counts(self) -> tuple[FloatArray, FloatArray]:
        return self.cells.correct, self.cells.total


def _what_is_tested(fits: Fits) -> _Tested:
    """With one run a cell only the fit itself could tell noise from a wrong form, so there items alone count."""
    counted = fits.sweeps.cells
    if fits.noise.source != SEEDS:
        return _Tested(counted, fits.plain.best, np.zeros(len(fits.theta)))
    effective = fits.land.cells.total
    cells = counted.with_total(np.maximum(1, np.round(effective)))
    return _Tested(cells, fits.land.best, np.asarray((1 - effective / counted.total).mean(axis=1)))


def _deviance(cells: Cells, start: FloatArray) -> FloatArray:
    return np.asarray(2 * (saturated(cells) - maximise(cells, start, tolerance=MIDDLING)[1]))


def _refitted(tested: _Tested) -> Statistic:
    """The deviance of drawn counts about a curve fitted to them."""

    def statistic(correct: FloatArray, total: FloatArray, sweeps: IntArray) -> FloatArray:
        drawn = Cells(tested.cells.frequency, correct, total, tested.cells.floor)
        return _deviance(drawn, tested.theta[sweeps])

    return statistic


def _largest_fall(tested: _Tested, df: FloatArray) -> FloatArray:
    """The upper end [M] of the 95 % interval of the fall between any two of the frequencies.

    That of the pair that truly falls most holds, and the largest of all pairs is not below it. Of Wilson's intervals
    Newcombe (1998) makes that of a difference.
    """
    share = tested.cells.share
    quantile: FloatArray = np.asarray(
        stdtrit(np.where(tested.noisy > 0, np.maximum(1, df), MOST), UPPER_END), dtype=np.float64
    )[:, None]
    low, high = wilson(*tested.counts, quantile)
    limit = np.zeros(len(share))
    for later in range(1, share.shape[1]):
        for earlier in range(later):
            reach = np.hypot(high[:, earlier] - share[:, earlier], share[:, later] - low[:, later])
            limit = np.maximum(limit, share[:, earlier] - share[:, later] + reach)
    return np.minimum(limit, 1.0)


# What a fitted curve is worth. Tests that need no form come first; F* is a finding only where all agree.

FALL_P, UNIMODAL_P, FORM_P = 0.05, 0.05, 0.01


@dataclass(frozen=True)
class Verdicts:
    """Statuses [M] (that of no collapse without its frequency), the tests, and the ends [M] of log F*, NaN if open."""

    fits: Fits
    tests: Tests
    low: FloatArray
    high: FloatArray
    status: NDArray[np.str_]


def judge(fits: Fits) -> Verdicts:
    """Judge M fitted sweeps."""
    tests = run_tests(fits)
    low, high = f_star_interval(fits.land, fits.uncertainty.drop(LOG_F_STAR))
    smallest, largest = np.log(fits.sweeps.cells.frequency[[0, -1]])
    inside = (low > smallest) & (high < largest) & (fits.theta[:, STEEPNESS] < LARGEST_B * 0.99)
    status = np.select(
        [tests.unimodal < UNIMODAL_P, tests.fall >= FALL_P, tests.form < FORM_P, ~inside],
        [NOT_UNIMODAL, NO_COLLAPSE, FORM_REJECTED, NOT_IDENTIFIED],
        OK,
    )
    return Verdicts(fits, tests, low, high, status)


def explain(found: Verdicts) -> str:
    """Why the first sweep has its status."""
    status, tests, frequency = str(found.status[0]), found.tests, found.fits.sweeps.cells.frequency
    seeds = found.fits.noise.source == SEEDS
    alone = "" if seeds else "; noise between runs may do the same: train other seeds"
    unseen = "" if seeds else "; noise between runs, which other seeds would show, is not in it"
    if status == NO_COLLAPSE:
        fall = f"a curve that only rises fits as well ({probability(tests.fall[0])})"
        return f"{fall}; the data allow a fall of at most {tests.largest_fall[0]:.2g} (95 %){unseen}"
    if status == NOT_UNIMODAL:
        return f"it does not rise once and then fall ({probability(tests.unimodal[0])}){alone}"
    if status == FORM_REJECTED:
        return f"the curve's form does not fit the counts ({probability(tests.form[0])}){alone}"
    low, high = np.exp(found.low[0]), np.exp(found.high[0])
    if status == OK:
        f_star = np.exp(found.fits.theta[0, LOG_F_STAR])
        return f"collapse point {f_star:.4g} (95 % interval {low:.4g} to {high:.4g})"
    if not high < frequency[-1]:
        return f"it falls, but the 95 % interval of F* does not exclude F={frequency[-1]:g}: probe larger frequencies"
    if not low > frequency[0]:
        return f"the 95 % interval of F* does not exclude F={frequency[0]:g}: probe smaller frequencies"
    return "the peak is narrower than the frequencies can show: probe between them"


# The collapse curve of one model: P(F) = g + (1-g)·a·F^b·exp(-c·F), collapse point F* = b/c (arXiv 2509.19371).

FEWEST_FREQUENCIES = 4
FLAT = 1e-6  # b below this is a flat curve, whose F* is any
NOISES = {
    SEEDS: "run-to-run noise from seeds",
    LACK_OF_FIT: "run-to-run noise from the lack of fit, which assumes the form",
}
Interval = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class CollapseCurve:
    """A fitted curve. Only where `status` is "ok" is F* a finding; else the numbers are mere estimates, NaN if none.

    Intervals are of 95 %; an open end is None. `peak` is P(F*), guessing included. `tau` is the standard deviation of
    log-odds between runs, estimated with `df` degrees of freedom (inf: it was found to be 0). `largest_fall` is the
    upper end of the interval of the fall between any two of the frequencies. `theta` is log height, b and log F*,
    with their `covariance`; they sink by `floor_moves` where the floor is higher by its standard error `floor_error`.
    """

    status: str
    message: str
    floor: float
    frequency_range: tuple[float, float]
    a: float = np.nan
    b: float = np.nan
    c: float = np.nan
    f_star: float = np.nan
    f_star_interval: Interval = (None, None)
    peak: float = np.nan
    peak_interval: tuple[float, float] = (np.nan, np.nan)
    log_likelihood: float = np.nan
    deviance: float = np.nan
    form_p: float = np.nan
    fall_p: float = np.nan
    unimodal_p: float = np.nan
    largest_fall: float = np.nan
    tau: float = np.nan
    tau_source: str = "none"
    df: float = np.inf
    interval_method: str = "none"
    paired: bool = False
    theta: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    quantile: float = np.nan
    floor_error: float = 0.0
    floor_moves: tuple[float, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a collapse point was found."""
        return self.status == OK

    def rate(self, frequency: ArrayLike) -> FloatArray:
        """P at frequencies of any shape (all > 0); NaN where no curve was fitted."""
        at = np.asarray(frequency, dtype=np.float64)
        if not self.theta:
            return np.full_like(at, np.nan)
        return np.asarray(rate(at.ravel(), np.array([self.theta]), self.floor)[0].reshape(at.shape))

    def band(self, frequency: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The 95 % band of P at frequencies of any shape, pointwise, by the delta method on log-odds."""
        at, middle = np.asarray(frequency, dtype=np.float64), self.rate(frequency)
        if not self.covariance:
            return np.full_like(at, np.nan), np.full_like(at, np.nan)
        share = np.clip(middle, 1e-9, 1 - 1e-9)
        slope = slopes(at.ravel(), np.array([self.theta]))[0] * (share.ravel() - self.floor).clip(0)
        by_floor = (1 - share.ravel()) / (1 - self.floor) * self.floor_error - np.array(self.floor_moves) @ slope
        variance = np.einsum("pk,pq,qk->k", slope, np.array(self.covariance), slope) + by_floor**2
        error = np.sqrt(variance).reshape(at.shape)
        reach = self.quantile * error / (share * (1 - share))
        return np.asarray(expit(logit(share) - reach)), np.asarray(expit(logit(share) + reach))


def fit_collapse_curve(
    frequency: ArrayLike,
    correct: ArrayLike,
    total: ArrayLike,
    floor: float = 0.0,
    *,
    floor_error: float = 0.0,
    outcomes: ArrayLike | None = None,
) -> CollapseCurve:
    """Binomial maximum likelihood of the collapse curve, peak ≤ 1, with a status that says what it is worth.

    One entry for each training run [R]: `correct` of `total` items were right at `frequency` (> 0, any order); runs
    of equal frequency are taken for other seeds and show the run-to-run noise. `floor` is the share that guessing gets
    right, 0 for the paper's form, and `floor_error` its standard error. `outcomes` [T, R] (1 right, 0 wrong, NaN not
    asked) tell which triples were right in which run: what the runs share by asking the same triples then counts.

    Raises:
        InputError: the lengths differ, a value is outside its range, or the outcomes are not those of the counts.
    """
    check_floor(floor, floor_error)
    counts = check_counts(frequency, correct, total, outcomes)
    sweep = _sweep(counts, float(floor))
    distinct = sweep.cells.frequency
    reach = (float(distinct[0]), float(distinct[-1]))
    if len(distinct) < FEWEST_FREQUENCIES:
        many = "1 distinct frequency" if len(distinct) == 1 else f"{len(distinct)} distinct frequencies"
        message = f"{many}; at least {FEWEST_FREQUENCIES} are needed"
        return CollapseCurve(status=TOO_FEW_POINTS, message=message, floor=floor, frequency_range=reach)
    found = judge(fit_sweeps(sweep, floor_error))
    return replace(_estimates(found, reach), floor_error=floor_error)


def _sweep(counts: Counts, floor: float) -> Sweeps:
    sweep = pool(counts.frequency, counts.correct[None], counts.total[None], floor)
    return sweep if counts.outcomes is None else pair(sweep, counts.frequency, counts.outcomes)


def _estimates(found: Verdicts, reach: tuple[float, float]) -> CollapseCurve:
    fits, tests, status = found.fits, found.tests, str(found.status[0])
    sure, land = fits.uncertainty, fits.land
    low, high = (None if np.isnan(end[0]) else float(np.exp(end[0])) for end in (found.low, found.high))
    curve = CollapseCurve(
        status=f"{NO_COLLAPSE}{reach[1]:g}" if status == NO_COLLAPSE else status,
        message=explain(found),
        floor=land.cells.floor,
        frequency_range=reach,
        f_star_interval=(low, high),
        peak_interval=_peak_interval(found),
        log_likelihood=float(fits.plain.log_likelihood[0]),
        deviance=max(0.0, float(2 * (saturated(fits.plain.cells) - fits.plain.log_likelihood)[0])),
        form_p=float(tests.form[0]),
        fall_p=float(tests.fall[0]),
        unimodal_p=float(tests.unimodal[0]),
        largest_fall=float(tests.largest_fall[0]),
        tau=float(np.sqrt(fits.noise.tau2[0])),
        tau_source=fits.noise.source,
        df=float(sure.df[0]),
        interval_method=_method(fits.sweeps, fits.noise.source),
        paired=fits.sweeps.items is not None,
        covariance=tuple(map(tuple, sure.covariance[0].tolist())),
        quantile=float(sure.quantile[0]),
        floor_moves=tuple(sure.moved[0].tolist()),
    )
    return _with_theta(curve, fits.theta[0])


def _with_theta(curve: CollapseCurve, theta: FloatArray) -> CollapseCurve:
    """a, b, c, F* and the peak of log height, b and log F*."""
    height, b = float(np.exp(theta[LOG_HEIGHT])), float(theta[STEEPNESS])
    peaked = b > FLAT
    f_star = float(np.exp(theta[LOG_F_STAR])) if peaked else np.nan
    return replace(
        curve,
        theta=tuple(theta.tolist()),
        a=height * float(np.exp(b * (1 - theta[LOG_F_STAR]))) if peaked else height,
        b=b,
        c=b / f_star if peaked else 0.0,
        f_star=f_star,
        peak=curve.floor + (1 - curve.floor) * height,
    )


def _peak_interval(found: Verdicts) -> tuple[float, float]:
    land = found.fits.land
    low, high = height_interval(land, found.fits.uncertainty.drop(LOG_HEIGHT))
    floor = land.cells.floor
    return (
        floor if np.isnan(low[0]) else floor + (1 - floor) * float(np.exp(low[0])),
        1.0 if np.isnan(high[0]) else floor + (1 - floor) * float(np.exp(high[0])),
    )


def _method(sweep: Sweeps, source: str) -> str:
    items = "items paired by triple" if sweep.items is not None else "binomial items"
    scale = "profile likelihood, scaled to the sandwich variance, against Student's t with df degrees of freedom"
    return f"{scale}: {items}, {NOISES[source]}"
