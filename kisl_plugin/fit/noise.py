"""The uncertainty of fitted curves: items, run-to-run noise, shared items, the guessing floor.

The share of one run is taken to have the variance v/n + tau²·v² with v = P(1-P): n items, and run-to-run noise with
standard deviation tau in log-odds (two trainings that differ only in their seeds do not memorise equally much). Noise
enters the likelihood as a smaller, effective number of items; what that leaves out (the same triples asked in every
run, the floor's own error) enters the intervals by the sandwich variance.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from kisl_plugin.fit.likelihood import (
    LOG_HEIGHT,
    BinomialLikelihood,
    FloatArray,
    IntArray,
    ProfileLikelihood,
    log_share_slopes,
    multistart,
)

__all__ = ["Counts", "CurveFits", "RunNoise", "fit_curves", "pool_runs", "with_pairing"]

SEEDS, LACK_OF_FIT = "seeds", "lack of fit"  # what tau was estimated from; else it was given

FEWEST_SEED_DF = 3  # with fewer degrees of freedom the lack of fit tells more about tau
_INFORMATIVE = 10.0  # expected right and wrong items; with fewer a frequency shows rare counts, not noise
_NOTICEABLE = 1.15  # squares over their expectation; a smaller excess is not taken for noise
LARGEST_TAU, _BISECTIONS = 5.0, 60
_SMALLEST_SHARE = 1e-12


def students_t(df: FloatArray) -> FloatArray:
    """The 97.5 % quantile of Student's t; with infinite degrees of freedom, the normal distribution's."""
    return np.asarray(stdtrit(np.minimum(df, 1e10), 0.975))


@dataclass(frozen=True)
class Counts:
    """What M data sets of one design counted at K frequencies, the runs (seeds) of a frequency pooled.

    `correlation` [M, K, K] is that of the shares due to the choice of triples, as `share_covariance` uses it: that of
    binomial shares is the identity; asking the same triples at every frequency makes shares correlated.
    """

    likelihood: BinomialLikelihood  # the pooled counts [M, K]
    runs: IntArray  # per frequency [K]
    mean_inverse_items: FloatArray  # mean over a frequency's runs of 1 / items [M, K]
    concentration: FloatArray  # Σ (a run's part of the pooled items)² [M, K]; 1 / runs where all are equal
    spread: FloatArray  # Σ (share of a run - their mean)² [M, K]
    correlation: FloatArray
    within: FloatArray | None = None  # variance between runs by the choice of triples [M, K]; None: binomial

    def share_covariance(self, rates: FloatArray) -> FloatArray:
        """The covariance [M, K, K] of the shares due to the choice of triples, where P is `rates` [M, K]."""
        deviation = np.sqrt(rates * (1 - rates) / self.likelihood.total)
        return np.asarray(self.correlation * deviation[:, :, None] * deviation[:, None])

    def effective_total(self, theta: FloatArray, tau2: FloatArray) -> FloatArray:
        """How many independent items [M, K] would make the shares as uncertain as items and noise together do."""
        rates = self.likelihood.rate(theta)
        return np.asarray(1 / (1 / self.likelihood.total + tau2[:, None] * rates * (1 - rates) * self.concentration))


def pool_runs(frequency: FloatArray, correct: FloatArray, total: FloatArray, floor: float) -> Counts:
    """Pool runs by frequency: counts [M, R] at the runs' frequencies [R], in any order."""
    distinct, member = _membership(frequency)
    runs = member.sum(axis=0)
    share = correct / total
    deviation = share - (share @ member / runs) @ member.T
    pooled = BinomialLikelihood(distinct, correct @ member, total @ member, floor)
    return Counts(
        likelihood=pooled,
        runs=runs.astype(np.int64),
        mean_inverse_items=1 / total @ member / runs,
        concentration=total**2 @ member / pooled.total**2,
        spread=deviation**2 @ member,
        correlation=np.broadcast_to(np.eye(len(distinct)), (len(correct), len(distinct), len(distinct))),
    )


def with_pairing(counts: Counts, frequency: FloatArray, outcomes: FloatArray) -> Counts:
    """One data set (M = 1) with the correlation shown by `outcomes` [T, R]: 1 right, 0 wrong, NaN not asked.

    Deviations are from the mean of their own run, so run-to-run noise is not part of them. A frequency at which every
    item was right, or none, shows no variance; its share is taken to be binomial.
    """
    _, member = _membership(frequency)
    answered = np.isfinite(outcomes)
    items = answered.sum(axis=0)
    mean = np.nansum(outcomes, axis=0) / items
    deviation = np.where(answered, outcomes - mean, 0.0) / np.sqrt(items * np.maximum(items - 1, 1))
    of_runs = deviation.T @ deviation  # covariance [R, R] of the runs' shares
    # Two runs of a frequency differ by what their items do not share: mean variance less mean covariance of its pairs
    one_run = np.diag(of_runs) @ member / counts.runs
    pairs = np.maximum(counts.runs * (counts.runs - 1), 1)
    shared = (np.diag(member.T @ of_runs @ member) - one_run * counts.runs) / pairs
    within = np.maximum(one_run - shared, 0.0)
    # The pooled share of a frequency is a weighted mean of its runs; its covariance is set against a binomial share's
    weight = member * items[:, None] / (items @ member)
    share = counts.likelihood.share[0]
    binomial = np.sqrt(share * (1 - share) / counts.likelihood.total[0])
    shows = binomial > 0
    scale = np.divide(1.0, binomial, out=np.zeros_like(binomial), where=shows)
    correlation = scale[:, None] * (weight.T @ of_runs @ weight) * scale + np.diag(np.where(shows, 0.0, 1.0))
    return replace(counts, correlation=correlation[None], within=within[None])


def _membership(frequency: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The distinct frequencies [K], and which run [R, K] belongs to which (0 or 1)."""
    distinct, place = np.unique(frequency, return_inverse=True)
    return distinct, (place[:, None] == np.arange(len(distinct))).astype(np.float64)


@dataclass(frozen=True)
class CurveFits:
    """M fitted curves with their uncertainty.

    `inflation` is the variance of each parameter, floor included, over that of the likelihood alone; that of the first
    is the peak's, which a higher floor lifts.
    """

    counts: Counts
    unweighted: ProfileLikelihood  # the fit to the items as counted
    weighted: ProfileLikelihood  # the fit to the effective items; the estimates are this one's
    tau: FloatArray  # estimated standard deviation of log-odds between runs [M]
    tau_source: str  # SEEDS, LACK_OF_FIT, or where it was known from
    noise_df: FloatArray  # degrees of freedom of tau [M]
    covariance: FloatArray  # sandwich covariance of theta due to items and runs [M, 3, 3]
    floor_effect: FloatArray  # how far theta [M, 3] sinks where the floor is higher by its standard error
    inflation: FloatArray  # [M, 3]

    @property
    def theta(self) -> FloatArray:
        """The estimates [M, 3]: log height, b, log F*."""
        return self.weighted.best

    @property
    def df(self) -> FloatArray:
        """Degrees of freedom [M] of the intervals; infinite where no noise was estimated."""
        return np.where(self.tau > 0, np.maximum(self.noise_df, 1), np.inf)

    @property
    def quantile(self) -> FloatArray:
        """The 97.5 % quantile [M] of Student's t."""
        return students_t(self.df)

    def interval(self, index: int) -> tuple[FloatArray, FloatArray]:
        """The 95 % interval [M] of log F* (index LOG_F_STAR) or of the log height (LOG_HEIGHT); NaN: an open end.

        A profile-likelihood interval. The likelihood knows neither noise nor shared items, so its ratio is scaled by
        sandwich over model variance and compared with F(1, df), the square of Student's t.
        """
        return self.weighted.interval(index, self.inflation[:, index] * self.quantile**2 / 2)


@dataclass(frozen=True)
class RunNoise:
    """What is known of tau from elsewhere (`source`), with its degrees of freedom (infinite: exactly)."""

    tau: float
    df: float
    source: str


def fit_curves(counts: Counts, floor_error: float = 0.0, noise: RunNoise | None = None) -> CurveFits:
    """Fit M data sets at once; `floor_error` is the standard error of the guessing floor.

    `noise` is used in place of an estimate that has no seeds to rest on.
    """
    # Noise and curve depend on each other: fit, estimate the noise, fit again with effective items, estimate the noise
    # about that curve, and fit finally
    unweighted = multistart(counts.likelihood)
    theta = unweighted.best
    tau2, df, source = _estimate_noise(counts, theta, np.zeros(len(theta)))
    if noise is None or source == SEEDS:
        theta, _ = counts.likelihood.with_total(counts.effective_total(theta, tau2)).maximise(theta)
        tau2, df, source = _estimate_noise(counts, theta, tau2)
    else:
        tau2, df, source = np.full(len(theta), noise.tau**2), np.full(len(theta), noise.df), noise.source
    total = counts.effective_total(theta, tau2)
    weighted = multistart(counts.likelihood.with_total(total)) if (tau2 > 0).any() else unweighted
    sandwich = _sandwich(counts, weighted.best, total, tau2, floor_error)
    return CurveFits(counts, unweighted, weighted, np.sqrt(tau2), source, df, *sandwich)


def _influence(counts: Counts, theta: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    """dP/dtheta [M, 3, K], and dtheta/dshare [M, 3, K]: how the estimates respond to each share at `total` items."""
    likelihood = counts.likelihood.with_total(total)
    rates = np.clip(likelihood.rate(theta), _SMALLEST_SHARE, 1 - _SMALLEST_SHARE)
    above_floor = likelihood.rate(theta) - likelihood.floor
    gradient = log_share_slopes(likelihood.frequency, theta) * above_floor[:, None]
    # To first order theta moves by I⁻¹·(dP/dtheta)·n/v times the change of the shares, I being the information
    response = likelihood.covariance(theta) @ (gradient * (total / (rates * (1 - rates)))[:, None])
    return gradient, response


def _sandwich(
    counts: Counts, theta: FloatArray, total: FloatArray, tau2: FloatArray, floor_error: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Covariance, floor effect and inflation, as CurveFits has them, of estimates made with `total` effective items."""
    floor = counts.likelihood.floor
    rates = counts.likelihood.rate(theta)
    v = rates * (1 - rates)
    _, response = _influence(counts, theta, total)
    # Sandwich: response · (true covariance of the shares) · responseᵀ, of items (paired where known) plus noise of runs
    covariance = np.einsum("mpj,mjk,mqk->mpq", response, counts.share_covariance(rates), response)
    covariance += np.einsum("mpk,mk,mqk->mpq", response, tau2[:, None] * v**2 * counts.concentration, response)
    floor_effect = np.einsum("mpk,mk->mp", response, (1 - rates) / (1 - floor)) * floor_error
    # The likelihood's own variance takes the effective items for independent
    model = np.einsum("mpk,mk,mpk->mp", response, v / total, response)
    # P(F*) = g + (1-g)·q: the floor moves it directly, and q by way of the fit.
    height = np.exp(theta[:, LOG_HEIGHT])
    by_floor = -floor_effect
    by_floor[:, LOG_HEIGHT] += (1 - height) / ((1 - floor) * height) * floor_error
    variance = np.einsum("mpp->mp", covariance) + by_floor**2
    inflation = np.divide(variance, model, out=np.ones_like(model), where=model > 0)
    return covariance, floor_effect, inflation


def _estimate_noise(counts: Counts, theta: FloatArray, fitted_tau2: FloatArray) -> tuple[FloatArray, FloatArray, str]:
    """tau² [M], its degrees of freedom [M] and its source, about curves that were fitted with `fitted_tau2` [M].

    By moments (Paule and Mandel 1982): tau² is where the squared deviations, each over its variance v/n + tau²·v², add
    up to their degrees of freedom.
    """
    likelihood = counts.likelihood
    rates = likelihood.rate(theta)
    v = rates * (1 - rates)
    informative = v / counts.mean_inverse_items >= _INFORMATIVE
    v = np.maximum(v, 0.25 / likelihood.total)
    expected_items = expected_runs = None
    if (counts.runs - 1).sum() >= FEWEST_SEED_DF:
        # Deviations of seeds from their mean: df = runs - frequencies
        source = SEEDS
        df = (informative * (counts.runs - 1)).sum(axis=1).astype(np.float64)
        squares = counts.spread
        by_items = v * counts.mean_inverse_items if counts.within is None else counts.within
        by_run = v**2
    else:
        # Deviations of shares from the curve, which assumes its form: df = frequencies - 3
        source = LACK_OF_FIT
        df = np.maximum(informative.sum(axis=1) - 3.0, 0.0)
        squares = (likelihood.share - rates) ** 2
        by_items, by_run = v / likelihood.total, v**2 * counts.concentration
        if counts.within is not None:
            # Shared items make the residuals smaller than independent ones would be: what the squares are expected to
            # be follows from the residual matrix 1 - (dP/dtheta)ᵀ·response and the covariance of the items.
            gradient, response = _influence(counts, theta, counts.effective_total(theta, fitted_tau2))
            residual = np.eye(len(counts.runs)) - gradient.transpose(0, 2, 1) @ response
            covariance = counts.share_covariance(rates)
            expected_items = informative * np.einsum("mij,mjk,mik->mi", residual, covariance, residual)
            expected_runs = informative * np.einsum("mij,mj,mij->mi", residual, by_run, residual)
    squares = np.where(informative, squares, 0.0)

    def chi_square(tau2: FloatArray) -> FloatArray:
        variance = np.maximum(by_items + tau2[:, None] * by_run, 1e-6 / likelihood.total)
        value = (squares / variance).sum(axis=1)
        if expected_items is None or expected_runs is None:
            return np.asarray(value)
        expected = ((expected_items + tau2[:, None] * expected_runs) / variance).sum(axis=1)
        return np.asarray(df * value / np.maximum(expected, 1e-9))

    low, high = np.zeros(len(df)), np.full(len(df), LARGEST_TAU)
    noisy = (chi_square(low) > _NOTICEABLE * df) & (df > 0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = chi_square(middle**2) > df
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(noisy, low**2, 0.0), df, source
