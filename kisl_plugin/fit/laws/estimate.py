"""One law from its collapse points: the best shape, the noise about it, and what else fits."""

from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.laws.points import OPEN, FloatArray, Interval
from kisl_plugin.fit.laws.refit import Shapes, fit_shapes, straight
from kisl_plugin.fit.laws.region import Region, find_region, lines_region
from kisl_plugin.fit.laws.scatter import Noise, find_noise
from kisl_plugin.fit.laws.shape import SMALLEST_ALPHA, Range, log_shares


@dataclass(frozen=True)
class Estimate:
    """The best law (one row of `shapes`), its noise, and the region of laws that fit (None: no intervals)."""

    shapes: Shapes
    noise: Noise
    region: Region | None

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """A, alpha and E."""
        falling, constant = log_shares(self.shapes.span, self.shapes.alpha, self.shapes.slope)
        alpha, level = float(self.shapes.alpha[0]), float(self.shapes.level[0])
        A = np.exp(level + falling[0] + alpha * np.log(self.shapes.span.largest))
        return float(A), alpha, float(np.exp(level + constant[0]))

    def predict(self, compute: FloatArray) -> FloatArray:
        """F* [P] at C [P]."""
        return np.asarray(np.exp(self.shapes.log_predictions(compute)[0]))

    def interval(self, compute: float) -> Interval:
        """The 95 % interval of the F* of a model at C: profile likelihood and that model's scatter in quadrature."""
        if self.region is None:
            return OPEN
        best = float(self.shapes.log_predictions(np.array([compute]))[0, 0])
        low, high = self.region.log_f_star(compute)
        scatter = self.noise.quantile * self.noise.scatter
        return float(np.exp(best - np.hypot(best - low, scatter))), float(np.exp(best + np.hypot(high - best, scatter)))

    @property
    def rises(self) -> bool:
        """Whether the best law is one that does not fall."""
        return bool(self.shapes.slope[0] <= SMALLEST_ALPHA)


def estimate(compute: FloatArray, f_star: FloatArray, errors: FloatArray | None, free_E: bool) -> Estimate:
    """Fit F* [M] at C [M] with log errors [M] (None: unknown); E is 0 unless free."""
    span, y = Range.of(compute), np.log(f_star)
    fit = fit_shapes if free_E else straight

    def misfit(weight: FloatArray) -> FloatArray:
        return fit(span, np.broadcast_to(y, weight.shape), weight).deviance

    noise = find_noise(errors, len(y), len(y) - (3 if free_E else 2), misfit)
    weight = noise.weight
    best = fit(span, y[None], weight[None])
    if not noise.known:
        return Estimate(best, noise, None)
    region = (find_region if free_E else lines_region)(best, y, weight, noise.quantile**2)
    return Estimate(best, noise, region)
