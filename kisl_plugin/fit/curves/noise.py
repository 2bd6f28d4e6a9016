"""Run-to-run noise: two trainings that differ in their seeds alone do not remember equally much.

The share of one run is taken to have the variance v/n + tau²·v², v = P(1 - P): tau is the standard deviation of
log-odds between runs. It is estimated by moments (Paule and Mandel's equation): from the spread of seeds, and where
there are few of them from the lack of fit about the curve, which assumes the curve's form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.curves.likelihood import BoolArray, FloatArray, rate
from kisl_plugin.fit.curves.sandwich import influence
from kisl_plugin.fit.curves.sweeps import Sweeps

SEEDS, LACK_OF_FIT = "seeds", "lack of fit"
FEWEST_OF_SEEDS = 3  # degrees of freedom; with fewer the lack of fit says more
FREE = 3  # parameters of a curve
INFORMATIVE = 10.0  # expected items right, and wrong; with fewer a cell shows no noise, only rare counts
NOTICEABLE = 1.15  # squares over their expectation; what is less is not taken for noise
LARGEST_TAU = 5.0
BISECTIONS = 60
LEAST = 1e-9


@dataclass(frozen=True)
class Noise:
    """tau² [M], with the degrees of freedom [M] that it rests on."""

    tau2: FloatArray
    df: FloatArray
    source: str


def source_of_noise(sweeps: Sweeps) -> str:
    """Where tau comes from in this design."""
    if (sweeps.runs - 1).sum() >= FEWEST_OF_SEEDS:
        return SEEDS
    return LACK_OF_FIT


def estimate_noise(sweeps: Sweeps, theta: FloatArray, tau2: FloatArray) -> Noise:
    """tau² about the curves theta [M, 3], which were fitted with tau2 [M]."""
    source = source_of_noise(sweeps)
    rates = rate(sweeps.cells.frequency, theta, sweeps.cells.floor)
    v = rates * (1 - rates)
    shows = v / sweeps.each >= INFORMATIVE
    v = np.maximum(v, 0.25 / sweeps.cells.total)
    if source == SEEDS:
        df = (shows * (sweeps.runs - 1)).sum(axis=1)
        return Noise(_solve(_of_seeds(sweeps, v, shows), df), df, source)
    df = np.maximum(shows.sum(axis=1) - FREE, 0.0)
    return Noise(_solve(_of_fit(sweeps, theta, rates, v, shows, tau2), df), df, source)


def effective_total(sweeps: Sweeps, theta: FloatArray, tau2: FloatArray) -> FloatArray:
    """How many independent items [M, K] would make shares as uncertain as they are."""
    rates = rate(sweeps.cells.frequency, theta, sweeps.cells.floor)
    return np.asarray(1 / (1 / sweeps.cells.total + tau2[:, None] * rates * (1 - rates) * sweeps.concentration))


Squares = Callable[[FloatArray], FloatArray]  # tau² [M] → squares over their expectation, in degrees of freedom [M]


def _of_seeds(sweeps: Sweeps, v: FloatArray, shows: BoolArray) -> Squares:
    """The squares between seeds over their variance at tau²."""
    within = v * sweeps.each if sweeps.within is None else sweeps.within
    spread, least = np.where(shows, sweeps.spread, 0.0), 1e-6 / sweeps.cells.total
    return lambda tau2: np.asarray((spread / np.maximum(within + tau2[:, None] * v**2, least)).sum(axis=1))


def _of_fit(
    sweeps: Sweeps, theta: FloatArray, rates: FloatArray, v: FloatArray, shows: BoolArray, fitted: FloatArray
) -> Squares:
    """The squares about the curve over their variance at tau²; where items are shared, over what that comes to."""
    left = np.where(shows, (sweeps.cells.share - rates) ** 2, 0.0)
    binomial, run = v / sweeps.cells.total, v**2 * sweeps.concentration
    if sweeps.items is None:
        return lambda tau2: np.asarray((left / (binomial + tau2[:, None] * run)).sum(axis=1))
    gradient, weighed = influence(sweeps, theta, effective_total(sweeps, theta, fitted))
    residual = np.eye(len(sweeps.runs)) - np.matmul(gradient.transpose(0, 2, 1), weighed)  # [M, K, K]
    items = sweeps.item_covariance(rates)
    of_items = np.where(shows, np.einsum("mij,mjk,mik->mi", residual, items, residual), 0.0)
    of_runs = np.where(shows, np.einsum("mij,mj,mij->mi", residual, run, residual), 0.0)
    df = np.maximum(shows.sum(axis=1) - FREE, 1)

    def squares(tau2: FloatArray) -> FloatArray:
        variance = binomial + tau2[:, None] * run
        expected = ((of_items + tau2[:, None] * of_runs) / variance).sum(axis=1)
        return np.asarray(df * (left / variance).sum(axis=1) / np.maximum(expected, LEAST))

    return squares


def _solve(squares: Squares, df: FloatArray) -> FloatArray:
    """The tau² [M] at which the squares are what they should be; 0 where they hardly exceed it without. Bisection."""
    low, high = np.zeros(len(df)), np.full(len(df), LARGEST_TAU)
    noisy = (squares(low) > NOTICEABLE * df) & (df > 0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = squares(middle**2) > df
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(noisy, low**2, 0.0)
