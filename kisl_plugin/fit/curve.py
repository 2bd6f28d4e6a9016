"""The collapse curve of one model: P(F) = g + (1-g)·a·F^b·exp(-c·F), collapse point F* = b/c (arXiv 2509.19371).

From counts of right answers to a curve with intervals and a status. The decision made here is when F* is a finding:
which tests must agree, in which order, and what is said where they do not.

The first tests assume no form of the curve. Shares are fitted under an order restriction alone ("never falls"; "rises,
then falls"), and the likelihood ratio is compared with its distribution in data drawn from the restricted fit
(parametric bootstrap): its large-sample distribution, a mixture of chi-squares, depends on the unknown shares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, expit, logit
from scipy.stats import f as f_distribution

from kisl_plugin.errors import InputError
from kisl_plugin.fit import text
from kisl_plugin.fit.collapse_points import NORMAL_95, Interval
from kisl_plugin.fit.likelihood import (
    LARGEST_B,
    LOG_F_STAR,
    LOG_HEIGHT,
    STEEPNESS,
    BinomialLikelihood,
    BoolArray,
    FloatArray,
    IntArray,
    collapse_rate,
    log_likelihood,
    log_share_slopes,
)
from kisl_plugin.fit.noise import (
    FEWEST_SEED_DF,
    LACK_OF_FIT,
    SEEDS,
    CurveFits,
    RunNoise,
    fit_curves,
    pool_runs,
    students_t,
    with_pairing,
)

__all__ = ["CollapseCurve", "curve_verdicts", "fit_collapse_curve", "wilson"]

_FEWEST_FREQUENCIES = 4
_FALL_P, _UNIMODAL_P, _FORM_P = 0.05, 0.05, 0.01
_MOST_NOISE = 0.25  # tau that is believed without seeds that show it
_FLAT = 1e-6  # a curve with a smaller b is flat: any F* fits

Statistic = Callable[[FloatArray, FloatArray, IntArray], FloatArray]

_STAGES = (99, 900)  # draws; the second stage only where the first has not answered
_PLAIN_EXCEEDANCES = 15  # of the first stage: p is above 0.1
_CERTAIN = 1e-4
_AT_ONCE = 100_000  # drawn data sets in memory
_SEED = 0  # the same counts always have the same p-values


def wilson(correct: ArrayLike, total: ArrayLike, quantile: ArrayLike = NORMAL_95) -> tuple[FloatArray, FloatArray]:
    """Wilson's interval of shares, of 95 % with the default quantile; the arguments are broadcast."""
    k, n, z2 = np.asarray(correct), np.asarray(total), np.square(quantile)
    middle = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(k * (n - k) / n + z2 / 4)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


# Tests that assume no form of the curve


def order_restricted(correct: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Fits of counts [M, K] under an order restriction alone, and how much worse the stricter one fits.

    Returns:
        The shares [M, K] of highest likelihood that never fall, and those that rise and then fall; twice the
        log-likelihood ratios [M] for a fall ("rises, then falls" against "never falls") and for a second peak ("each
        share is its own" against "rises, then falls").
    """
    # Fits of every number of first cells that rise, and of last cells that fall (reversed); the best pair is unimodal.
    rising, value_of_rising = _isotonic_prefixes(correct, total)
    falling, value_of_falling = _isotonic_prefixes(correct[:, ::-1], total[:, ::-1])
    value = value_of_rising + value_of_falling[:, ::-1]
    split, rows, cells = value.argmax(axis=1), np.arange(len(correct)), correct.shape[1]
    up, down = rising[rows, split], falling[rows, cells - split][:, ::-1]
    unimodal, best = np.where(np.arange(cells) < split[:, None], up, down), value.max(axis=1)
    free = log_likelihood(correct, total, correct / total).sum(axis=1)
    return rising[:, -1], unimodal, 2 * (best - value_of_rising[:, -1]), 2 * (free - best)


def bootstrap_p_values(
    observed: FloatArray,
    rates: FloatArray,
    total: FloatArray,
    noise_share: FloatArray,
    df: FloatArray,
    statistic: Statistic,
) -> FloatArray:
    """How often chance alone gives a statistic as large as `observed` [M].

    Draws are binomial with the restricted fit's `rates` [M, K] and whole numbers of effective items `total` [M, K];
    `statistic` maps drawn counts [L, K], their items and data sets [L] to [L]. A part `noise_share` [M] of the variance
    is run-to-run noise that was itself estimated with `df` [M] degrees of freedom.
    """
    cells, df = total.shape[1], np.clip(df, 1, 1e9)
    rng = np.random.default_rng(_SEED)
    exceeding, drawn = np.zeros(len(observed)), np.zeros(len(observed))
    # Where the statistic is beyond what even one free share per cell would give by chance, nothing needs to be drawn.
    hopeless = f_distribution.sf(observed / cells, cells, np.where(noise_share > 0, df, 1e9)) < _CERTAIN
    rows = np.flatnonzero((observed > 0) & ~hopeless)
    for draws in _STAGES:
        for some in np.array_split(rows, max(1, len(rows) * draws // _AT_ONCE)):
            repeated = np.repeat(some, draws)
            correct = rng.binomial(total[repeated].astype(np.int64), rates[repeated]).astype(np.float64)
            values = statistic(correct, total[repeated], repeated).reshape(-1, draws)
            # The observed statistic was divided by an estimate of noise, so each drawn one is divided by as uncertain
            # an estimate, a chi-square over its mean. Otherwise tests that rest on few seeds reject too often.
            if (noise_share[some] > 0).any():
                deviation = rng.chisquare(np.broadcast_to(df[some, None], values.shape)) / df[some, None]
                values = values / (1 - noise_share[some, None] + noise_share[some, None] * deviation)
            exceeding[some] += (values >= observed[some, None] - 1e-9).sum(axis=1)
        drawn[rows] += draws
        rows = rows[exceeding[rows] < _PLAIN_EXCEEDANCES]
    p = np.where(drawn > 0, (1 + exceeding) / (1 + drawn), 1 / (1 + sum(_STAGES)))
    return np.where(observed > 0, p, 1.0)


def _isotonic_prefixes(correct: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Isotonic fits [M, K + 1, K] of the first 0 … K cells, and their log-likelihoods [M, K + 1].

    For a binomial likelihood the fit is the isotonic regression of the shares weighted by their items, which pools
    adjacent violators. All prefixes of many data sets are computed at once by its min-max formula: the fit at cell i
    of the first j is max over s ≤ i of the min over i ≤ e < j of the pooled share of cells s … e.
    """
    cells = np.arange(correct.shape[1])
    right = np.pad(np.cumsum(correct, axis=1), ((0, 0), (1, 0)))
    items = np.pad(np.cumsum(total, axis=1), ((0, 0), (1, 0)))
    upper = cells[:, None] <= cells  # start ≤ end
    pooled_items = np.where(upper, items[:, None, 1:] - items[:, :-1, None], 1.0)
    pooled = np.where(upper, (right[:, None, 1:] - right[:, :-1, None]) / pooled_items, np.inf)
    fits = np.zeros((len(correct), len(cells) + 1, len(cells)))
    for count in range(1, len(cells) + 1):
        lowest = np.minimum.accumulate(pooled[:, :count, count - 1 :: -1], axis=2)[:, :, ::-1]
        fits[:, count, :count] = np.where(upper[:count, :count], lowest, -np.inf).max(axis=1)
    fits = np.clip(fits, 0.0, 1.0)
    each = log_likelihood(correct[:, None], total[:, None], fits)
    return fits, np.where(cells < np.arange(len(cells) + 1)[:, None], each, 0.0).sum(axis=2)


# The status of a fitted curve


@dataclass(frozen=True)
class Verdicts:
    """What M fitted curves are worth; every array has one entry [M] per curve."""

    fits: CurveFits
    low: FloatArray  # ends of the 95 % interval of log F*; NaN where open
    high: FloatArray
    fall_p: FloatArray  # p-values of "never falls", "rises, then falls" and "has the curve's form"
    unimodal_p: FloatArray
    form_p: FloatArray
    # The least run-to-run noise with which the last two are not rejected; 0: none is needed, inf: too much
    needed_tau: FloatArray
    largest_fall: FloatArray  # upper end of the 95 % interval of the fall between any two frequencies
    status: NDArray[np.str_]  # "no collapse" is without its frequency


def curve_verdicts(fits: CurveFits, trusted: float | None = _MOST_NOISE) -> Verdicts:
    """Test M fitted curves. Tests that assume no form come first; F* is a finding only where all tests agree.

    Seeds that vary by more than the tau that is `trusted` are not taken for seeds of one experiment; None: they are,
    however they vary.
    """
    # The fall is tested with the effective items, a whole number of them
    effective = fits.weighted.likelihood.total
    noise_share = (1 - effective / fits.counts.likelihood.total).mean(axis=1)
    counts, theta = fits.counts.likelihood.with_total(np.maximum(1, np.round(effective))), fits.theta
    sample = (counts.total, noise_share, fits.noise_df)
    rising, unimodal, fall, second_peak = order_restricted(counts.correct, counts.total)
    fall_p = bootstrap_p_values(fall, rising, *sample, lambda k, n, _: order_restricted(k, n)[2])

    # So are form and second peak, unless there is one run a frequency: nothing except the fit itself could then tell
    # noise from either. They are tested with the items as counted, and where they reject, the least noise that would
    # explain the counts is part of the verdict.
    tested = counts
    if fits.tau_source == LACK_OF_FIT:
        tested, theta = fits.counts.likelihood, fits.unweighted.best
        sample = (tested.total, np.zeros(len(theta)), fits.noise_df)
        _, unimodal, _, second_peak = order_restricted(tested.correct, tested.total)

    def deviance(correct: FloatArray, total: FloatArray, rows: IntArray) -> FloatArray:
        drawn = BinomialLikelihood(tested.frequency, correct, total, tested.floor)
        return np.asarray(2 * (drawn.saturated() - drawn.maximise(theta[rows], tolerance=1e-4)[1]))

    lack_of_fit = deviance(tested.correct, tested.total, np.arange(len(theta)))
    unimodal_p = bootstrap_p_values(second_peak, unimodal, *sample, lambda k, n, _: order_restricted(k, n)[3])
    form_p = bootstrap_p_values(lack_of_fit, tested.rate(theta), *sample, deviance)
    one_peak = unimodal_p >= _UNIMODAL_P
    rejected = ~one_peak | (form_p < _FORM_P)
    needed_tau = np.where(rejected, np.inf, 0.0)
    if fits.tau_source == LACK_OF_FIT and rejected.any():
        needed_tau[rejected], one_peak[rejected] = _least_noise(fits, np.flatnonzero(rejected))

    # The fall between two frequencies has Newcombe's interval (1998), made of Wilson's. The interval of the pair that
    # truly falls most covers that fall, and the largest upper end of all pairs is not below it.
    t = students_t(np.where(sample[1] > 0, np.maximum(1, fits.noise_df), np.inf))[:, None]
    share, (lowest, highest) = tested.share, wilson(tested.correct, tested.total, t)
    rise, drop = (highest - share)[:, :, None], (share - lowest)[:, None]
    between = share[:, :, None] - share[:, None] + np.hypot(rise, drop)  # [M, earlier, later]
    pairs = np.triu_indices(share.shape[1], k=1)
    largest_fall = np.clip(between[:, pairs[0], pairs[1]].max(axis=1), 0.0, 1.0)

    low, high = fits.interval(LOG_F_STAR)
    first, last = np.log(counts.frequency[[0, -1]])
    identified = (low > first) & (high < last) & (fits.theta[:, STEEPNESS] < LARGEST_B * 0.99)
    # Seeds that vary by more than is trusted, at 99 %: the squares that add up to df with tau would add up to this
    # with the trusted noise instead
    disagree = np.zeros(len(low), dtype=bool)
    if fits.tau_source == SEEDS and trusted is not None:
        rate = fits.counts.likelihood.rate(fits.theta)
        variance = rate * (1 - rate)
        by_items = variance * fits.counts.mean_inverse_items
        excess = (by_items + fits.tau[:, None] ** 2 * variance**2) / (by_items + trusted**2 * variance**2)
        squares = fits.noise_df * excess[:, fits.counts.runs > 1].mean(axis=1)
        disagree = chdtrc(np.maximum(1, fits.noise_df), squares) < 0.01
    status = np.select(
        [disagree, ~one_peak, fall_p >= _FALL_P, np.isinf(needed_tau), ~identified, rejected],
        [
            text.RUNS_DISAGREE,
            text.NOT_UNIMODAL,
            text.NO_COLLAPSE,
            text.FORM_REJECTED,
            text.NOT_IDENTIFIED,
            text.OK_IF_RUNS_VARY,
        ],
        text.OK,
    )
    return Verdicts(fits, low, high, fall_p, unimodal_p, form_p, needed_tau, largest_fall, status)


def _least_noise(fits: CurveFits, rows: IntArray) -> tuple[FloatArray, BoolArray]:
    """The least tau with which data sets `rows` agree with one peak and the form (inf: none); whether with one peak."""

    def agree(tau: FloatArray, some: IntArray) -> tuple[BoolArray, BoolArray]:
        counts, theta = fits.counts.likelihood.take(some), fits.theta[some]
        rates = counts.rate(theta)
        noise = tau[:, None] ** 2 * rates * (1 - rates) * fits.counts.concentration[some]
        noisy = counts.with_total(np.maximum(1, np.round(1 / (1 / counts.total + noise))))
        _, unimodal, _, second_peak = order_restricted(noisy.correct, noisy.total)
        exactly = (np.zeros(len(tau)), np.full(len(tau), np.inf))
        p = bootstrap_p_values(second_peak, unimodal, noisy.total, *exactly, lambda k, n, _: order_restricted(k, n)[3])
        deviance = 2 * (noisy.saturated() - noisy.maximise(theta, tolerance=1e-4)[1])
        return p >= _UNIMODAL_P, chdtrc(rates.shape[1] - 3, deviance) >= _FORM_P

    # No more noise than is believed without seeds, or than the lack of fit shows, which is what the intervals include
    most = np.minimum(fits.tau[rows], _MOST_NOISE)
    one_peak, form = agree(most, rows)
    explained = one_peak & form
    low, high = np.zeros(int(explained.sum())), most[explained]
    for _ in range(6 if explained.any() else 0):  # bisection, to 0.004
        middle = (low + high) / 2
        enough = np.logical_and(*agree(middle, rows[explained]))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    least = np.full(len(rows), np.inf)
    least[explained] = high
    return least, one_peak


# One curve


@dataclass(frozen=True, kw_only=True)
class CollapseCurve:
    """A fitted curve. Only where it is `ok` is F* a finding; else the numbers are mere estimates, NaN if none.

    Attributes:
        a, b, c: of P(F) = floor + (1 - floor)·a·F^b·exp(-c·F).
        f_star, peak: the collapse point b/c and P there, guessing included.
        f_star_interval, peak_interval: of 95 %; an open end is None.
        form_p, fall_p, unimodal_p: p-values of "has the curve's form", "never falls" and "rises, then falls".
        largest_fall: upper end of the 95 % interval of the fall between any two of the frequencies.
        tau: standard deviation of log-odds between runs, from `tau_source`.
        needed_tau: the least tau with which the last two tests do not reject; above 0 only where no seeds show tau, inf
            where even much noise would not explain the counts.
        df: degrees of freedom of the intervals; inf where no noise was found.
        theta, covariance: log height, b and log F* with their covariance; they sink by `floor_effect` where the
            floor is higher by its standard error `floor_error`.
        quantile: Student's t that the intervals use.
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
    deviance: float = np.nan
    form_p: float = np.nan
    fall_p: float = np.nan
    unimodal_p: float = np.nan
    largest_fall: float = np.nan
    tau: float = np.nan
    tau_source: str = "none"
    needed_tau: float = np.nan
    df: float = np.inf
    interval_method: str = "none"
    paired: bool = False
    theta: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    quantile: float = np.nan
    floor_error: float = 0.0
    floor_effect: tuple[float, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a collapse point was found, be it on the condition that runs vary."""
        return self.status in (text.OK, text.OK_IF_RUNS_VARY)

    def rate(self, frequency: ArrayLike) -> FloatArray:
        """P at frequencies of any shape (all > 0); NaN where no curve was fitted."""
        at = np.asarray(frequency, dtype=np.float64)
        if not self.theta:
            return np.full_like(at, np.nan)
        return np.asarray(collapse_rate(at.ravel(), np.array([self.theta]), self.floor)[0].reshape(at.shape))

    def band(self, frequency: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The 95 % band of P at frequencies of any shape, pointwise, by the delta method on log-odds."""
        at = np.asarray(frequency, dtype=np.float64)
        if not self.theta:
            return np.full_like(at, np.nan), np.full_like(at, np.nan)
        share = np.clip(self.rate(at.ravel()), 1e-9, 1 - 1e-9)
        slope = log_share_slopes(at.ravel(), np.array([self.theta]))[0] * (share - self.floor).clip(0)
        by_floor = (1 - share) / (1 - self.floor) * self.floor_error - np.array(self.floor_effect) @ slope
        variance = np.einsum("pk,pq,qk->k", slope, np.array(self.covariance), slope) + by_floor**2
        half = self.quantile * np.sqrt(variance) / (share * (1 - share))
        center = logit(share)
        return expit(center - half).reshape(at.shape), expit(center + half).reshape(at.shape)

    def residuals(self, frequency: ArrayLike, correct: ArrayLike, total: ArrayLike) -> FloatArray:
        """Pearson residuals [R] of runs with these counts [R]: (k/n - P) / sqrt(v/n + tau²·v²), with v = P(1-P).

        NaN where no curve was fitted. `v` is at least 1/(4n), as for the estimate of tau.
        """
        k, n = np.asarray(correct, dtype=np.float64), np.asarray(total, dtype=np.float64)
        rate = self.rate(frequency)
        v = np.maximum(rate * (1 - rate), 0.25 / n)
        return np.asarray((k / n - rate) / np.sqrt(v / n + self.tau**2 * v**2))


def fit_collapse_curve(
    frequency: ArrayLike,
    correct: ArrayLike,
    total: ArrayLike,
    floor: float = 0.0,
    *,
    floor_error: float = 0.0,
    outcomes: ArrayLike | None = None,
    noise: RunNoise | None = None,
    one_experiment: bool = False,
) -> CollapseCurve:
    """Binomial maximum likelihood of the collapse curve, peak ≤ 1, with a status that says what it is worth.

    Args:
        frequency: F of each training run [R], above 0, in any order; runs of equal frequency count as other seeds.
        correct: right answers of each run [R].
        total: items each run was asked [R].
        floor: the share that guessing gets right; 0 is the paper's form.
        floor_error: the standard error of the floor.
        outcomes: which triple was right in which run [T, R] (1 right, 0 wrong, NaN not asked); the covariance of runs
            that were asked the same triples is then taken into account.
        noise: run-to-run noise, for runs that do not show it by their seeds; None estimates it from the lack of fit.
            Seeds are trusted to vary as much, or by tau = 0.25.
        one_experiment: whether runs of equal frequency are known to differ in their seeds alone. Where they are not,
            seeds that vary by more than is trusted have the status `runs disagree`.

    Raises:
        InputError: the lengths differ, a value is outside its range, or the outcomes contradict the counts.
    """
    for name, share in (("floor", floor), ("floor_error", floor_error)):
        if not 0 <= share < 1:
            raise InputError(f"{name} is {share!r}; expected a share from 0 to below 1")
    F, k, n, paired = _check_counts(frequency, correct, total, outcomes)
    counts = pool_runs(F, k[None], n[None], float(floor))
    distinct = counts.likelihood.frequency
    frequency_range = (float(distinct[0]), float(distinct[-1]))
    if len(distinct) < _FEWEST_FREQUENCIES:
        number = "1 distinct frequency" if len(distinct) == 1 else f"{len(distinct)} distinct frequencies"
        message = f"{number}; at least {_FEWEST_FREQUENCIES} are needed"
        return CollapseCurve(status=text.TOO_FEW_POINTS, message=message, floor=floor, frequency_range=frequency_range)
    if paired is not None:
        counts = with_pairing(counts, F, paired)

    fits = fit_curves(counts, floor_error, noise)
    verdicts = curve_verdicts(fits, None if one_experiment else max(_MOST_NOISE, noise.tau if noise else 0.0))
    status = str(verdicts.status[0])
    log_height, b, log_f_star = fits.theta[0].tolist()
    # Back to the paper's parameters: log a = log q + b·(1 - φ), c = b/F*; for a flat curve any F* is as good
    height, peaked = np.exp(log_height), b > _FLAT
    f_star = float(np.exp(log_f_star)) if peaked else np.nan
    ends = [None if np.isnan(end[0]) else float(np.exp(end[0])) for end in (verdicts.low, verdicts.high)]
    peak_low, peak_high = (float(floor + (1 - floor) * np.exp(end[0])) for end in fits.interval(LOG_HEIGHT))
    source = "the lack of fit, which assumes the form" if fits.tau_source == LACK_OF_FIT else fits.tau_source
    return CollapseCurve(
        status=f"{text.NO_COLLAPSE}{frequency_range[1]:g}" if status == text.NO_COLLAPSE else status,
        message=_message(verdicts),
        floor=float(floor),
        frequency_range=frequency_range,
        a=float(height * np.exp(b * (1 - log_f_star)) if peaked else height),
        b=b,
        c=b / f_star if peaked else 0.0,
        f_star=f_star,
        f_star_interval=(ends[0], ends[1]),
        peak=float(floor + (1 - floor) * height),
        peak_interval=(floor if np.isnan(peak_low) else peak_low, 1.0 if np.isnan(peak_high) else peak_high),
        deviance=max(0.0, 2 * float(counts.likelihood.saturated()[0] - fits.unweighted.maximum[0])),
        form_p=float(verdicts.form_p[0]),
        fall_p=float(verdicts.fall_p[0]),
        unimodal_p=float(verdicts.unimodal_p[0]),
        largest_fall=float(verdicts.largest_fall[0]),
        tau=float(fits.tau[0]),
        tau_source=fits.tau_source,
        needed_tau=float(verdicts.needed_tau[0]),
        df=float(fits.df[0]),
        interval_method=(
            "profile likelihood, scaled to the sandwich variance, against Student's t with df degrees of freedom: "
            f"{'binomial items' if paired is None else 'items paired by triple'}, run-to-run noise from {source}"
        ),
        paired=paired is not None,
        theta=(log_height, b, log_f_star),
        covariance=tuple(map(tuple, fits.covariance[0].tolist())),
        quantile=float(fits.quantile[0]),
        floor_error=floor_error,
        floor_effect=tuple(fits.floor_effect[0].tolist()),
    )


def _check_counts(
    frequency: ArrayLike, correct: ArrayLike, total: ArrayLike, outcomes: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray | None]:
    """The arrays, ordered by frequency and then by counts, so that the order of the runs changes nothing."""
    F, k, n = (np.asarray(values, dtype=np.float64) for values in (frequency, correct, total))
    if not (F.ndim == 1 and F.shape == k.shape == n.shape and len(F)):
        raise InputError(
            f"frequency, correct and total have shapes {F.shape}, {k.shape}, {n.shape}; expected one row each"
        )
    for name, values, valid, expected in (
        ("frequency", F, np.isfinite(F) & (F > 0), "more than 0 (runs at F = 0 measure the floor)"),
        ("total", n, np.isfinite(n) & (n > 0) & (n % 1 == 0), "a whole number above 0"),
        ("correct", k, (k >= 0) & (k <= n) & (k % 1 == 0), "a whole number from 0 to total"),
    ):
        if not valid.all():
            at = int(np.argmin(valid))
            raise InputError(f"{name}[{at}] is {values[at]:g}; expected {expected}")
    order = np.lexsort((n, k, F))
    if outcomes is None:
        return F[order], k[order], n[order], None
    right = np.asarray(outcomes, dtype=np.float64)
    if right.ndim != 2 or right.shape[1] != len(k):
        raise InputError(f"outcomes have shape {right.shape}; expected a row per triple and {len(k)} columns")
    answered = np.isfinite(right)
    if not np.isin(right[answered], (0.0, 1.0)).all():
        raise InputError("outcomes have other values than 1 (right), 0 (wrong) and NaN (not asked)")
    for name, sums, expected_sums in (("items", answered.sum(axis=0), n), ("right", np.nansum(right, axis=0), k)):
        if (sums != expected_sums).any():
            at = int(np.argmax(sums != expected_sums))
            raise InputError(f"outcomes of run {at} have {sums[at]:g} {name}; its counts have {expected_sums[at]:g}")
    return F[order], k[order], n[order], right[:, order]


def _message(verdicts: Verdicts) -> str:
    """Why the first curve has its status."""
    fits, counts = verdicts.fits, verdicts.fits.counts
    frequency = counts.likelihood.frequency
    low, high = np.exp(verdicts.low[0]), np.exp(verdicts.high[0])
    status, single, tau = str(verdicts.status[0]), fits.tau_source == LACK_OF_FIT, fits.tau[0]
    advice = f"; run-to-run noise of tau = {min(tau, _MOST_NOISE):.2f} does not explain it" if single and tau else ""
    if status == text.OK:
        return text.f_star_in_words(np.exp(fits.theta[0, LOG_F_STAR]), (low, high))
    if status == text.OK_IF_RUNS_VARY:
        # The fewest runs that would measure tau are seeds near F*: all cost the same, and those also sharpen F*
        missing = text.plural(FEWEST_SEED_DF - int((counts.runs - 1).sum()), "more run")
        nearest = frequency[np.argmin(np.abs(np.log(frequency) - fits.theta[0, LOG_F_STAR]))]
        return (
            f"the counts scatter more about the curve than their items explain, but not if runs that differ in their "
            f"seeds alone vary by tau = {verdicts.needed_tau[0]:.2f} or more (SD of log-odds); to measure tau, train "
            f"{missing} at F = {nearest:g} of this size with other seeds"
        )
    if status == text.RUNS_DISAGREE:
        return (
            f"runs of one frequency differ by tau = {tau:.2f} (SD of log-odds), more than seeds are trusted with: are "
            "they of different data, tokenizers or settings? Fit those separately, or trust them with --noise"
        )
    if status == text.NOT_UNIMODAL:
        return f"accuracy does not rise once and then fall ({text.probability(verdicts.unimodal_p[0])}){advice}"
    if status == text.FORM_REJECTED:
        return f"the curve's form does not fit the counts ({text.probability(verdicts.form_p[0])}){advice}"
    if status == text.NO_COLLAPSE:
        ignored = "; run-to-run noise is ignored: train more seeds to include it" if single else ""
        return (
            f"a curve that never falls fits as well ({text.probability(verdicts.fall_p[0])}); "
            f"the data allow a fall of at most {verdicts.largest_fall[0]:.2g} (95 %){ignored}"
        )
    if not high < frequency[-1]:
        return f"it falls, but the 95 % interval of F* includes F={frequency[-1]:g}: probe larger frequencies"
    if not low > frequency[0]:
        return f"the 95 % interval of F* includes F={frequency[0]:g}: probe smaller frequencies"
    return "the peak is narrower than the frequencies can resolve: probe between them"
