"""Tests that assume no form of the curve: whether shares fall at all, and whether they rise and fall only once.

Shares are fitted under an order restriction alone ("never falls"; "rises, then falls"), and the likelihood ratio is
compared with its distribution in data drawn from the restricted fit (parametric bootstrap), since its distribution in
large samples, a mixture of chi-squares, depends on the unknown shares.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import xlog1py, xlogy
from scipy.stats import f as f_distribution

from kisl_plugin.fit.likelihood import FloatArray, IntArray

__all__ = ["bootstrap_p_values", "order_restricted"]

Statistic = Callable[[FloatArray, FloatArray, IntArray], FloatArray]

_STAGES = (99, 900)  # draws; the second stage only where the first has not answered
_PLAIN_EXCEEDANCES = 15  # of the first stage: p is above 0.1
_CERTAIN = 1e-4
_AT_ONCE = 100_000  # drawn data sets in memory
_SEED = 0  # the same counts always have the same p-values


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
    free = _log_likelihood(correct, total, correct / total).sum(axis=1)
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
    is run-to-run noise that was itself estimated with `df` [M] degrees of freedom: the observed statistic was divided
    by that estimate, so each drawn one is divided by as uncertain an estimate, a chi-square over its mean. Otherwise
    tests that rest on few seeds reject too often.
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
    each = _log_likelihood(correct[:, None], total[:, None], fits)
    return fits, np.where(cells < np.arange(len(cells) + 1)[:, None], each, 0.0).sum(axis=2)


def _log_likelihood(correct: FloatArray, total: FloatArray, share: FloatArray) -> FloatArray:
    return np.asarray(xlogy(correct, share) + xlog1py(total - correct, -share))
