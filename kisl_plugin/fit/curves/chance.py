"""How often chance alone gives as large a statistic: parametric bootstrap, stopped early where the answer is plain.

Draws are binomial with the effective items. Where those rest on a noise that was itself estimated, each drawn
statistic is divided by how far such an estimate strays (a chi-square over its mean), else tests of few runs err.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution

from kisl_plugin.fit.curves.likelihood import BoolArray, FloatArray, IntArray

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
