"""What many sweeps of one design counted: per frequency the items of all its runs, and how far its runs lie apart."""

from dataclasses import dataclass, replace

import numpy as np

from kisl_plugin.fit.curves.likelihood import Cells, FloatArray, IntArray


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
