"""What the counts show without the curve's form, and whether they bear it: a fall, a second peak, lack of fit."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from kisl_plugin.fit.curves.chance import Null, Statistic, p_values
from kisl_plugin.fit.curves.climb import MIDDLING, maximise
from kisl_plugin.fit.curves.fitting import Fits
from kisl_plugin.fit.curves.isotonic import fall_ratio, rising_fit, second_peak_ratio, unimodal_fit
from kisl_plugin.fit.curves.likelihood import Cells, FloatArray, IntArray, rate, saturated
from kisl_plugin.fit.curves.noise import SEEDS
from kisl_plugin.fit.curves.sandwich import MOST
from kisl_plugin.fit.curves.wilson import wilson

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
