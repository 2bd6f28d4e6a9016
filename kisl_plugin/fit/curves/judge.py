"""What a fitted curve is worth. Tests that need no form come first; F* is a finding only where all agree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.fit.curves.fitting import Fits
from kisl_plugin.fit.curves.likelihood import LARGEST_B, LOG_F_STAR, STEEPNESS, FloatArray
from kisl_plugin.fit.curves.noise import SEEDS
from kisl_plugin.fit.curves.order_tests import Tests, run_tests
from kisl_plugin.fit.curves.profile import f_star_interval
from kisl_plugin.fit.curves.status import FORM_REJECTED, NO_COLLAPSE, NOT_IDENTIFIED, NOT_UNIMODAL, OK
from kisl_plugin.fit.human import probability

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
