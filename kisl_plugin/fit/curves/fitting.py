"""From counts to curves with intervals: fit, estimate the run-to-run noise, fit again with effective items."""

from dataclasses import dataclass, replace

import numpy as np

from kisl_plugin.fit.curves.climb import maximise
from kisl_plugin.fit.curves.likelihood import FloatArray
from kisl_plugin.fit.curves.noise import Noise, effective_total, estimate_noise
from kisl_plugin.fit.curves.sandwich import Uncertainty, uncertainty
from kisl_plugin.fit.curves.survey import Survey, survey
from kisl_plugin.fit.curves.sweeps import Sweeps

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
