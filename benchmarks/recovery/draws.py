"""Counts drawn from known shares, each draw from a seed of its own truth: whoever draws, gets the same."""

from dataclasses import replace
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from kisl_plugin.fit.curve_estimate import Sweeps, pair, pool
from recovery.truths import FloatArray

SEED = 25091937
NEVER = 1e-15  # of a million items none is right
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def generator(*key: int) -> np.random.Generator:
    """Random numbers that are those of the key."""
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=key))


def log_odds(rates: FloatArray, spread: float) -> FloatArray:
    """The log-odds [K] that, normally spread so much, give the rates in the mean."""
    return np.array([_log_odds(float(rate), spread) for rate in np.clip(rates, NEVER, 1 - NEVER)])


@cache
def _log_odds(rate: float, spread: float) -> float:
    if not spread:
        return float(logit(rate))
    weights = WEIGHTS / WEIGHTS.sum()
    return float(brentq(lambda middle: weights @ expit(middle + spread * NODES) - rate, -40, 40))


def counts(
    rng: np.random.Generator, rates: FloatArray, items: int, draws: int, seeds: int = 1, tau: float = 0.0
) -> FloatArray:
    """Counts [draws, K · seeds] of runs whose log-odds scatter by tau; a frequency's seeds stand side by side."""
    middle = np.repeat(log_odds(rates, tau), seeds)
    noise = tau * rng.standard_normal((draws, len(middle)))
    return rng.binomial(items, expit(middle + noise)).astype(np.float64)


def same_triples(
    rng: np.random.Generator,
    frequency: FloatArray,
    rates: FloatArray,
    floor: float,
    items: int,
    draws: int,
    seeds: int,
    tau: float,
    difficulty: float,
) -> tuple[Sweeps, Sweeps]:
    """Sweeps in which every run is asked the same triples: their counts alone, and paired by triple.

    A triple's log-odds are the curve's, plus its own difficulty (normal, SD `difficulty`), plus the run's noise.
    """
    middle, asked_at = np.repeat(log_odds(rates, float(np.hypot(difficulty, tau))), seeds), np.repeat(frequency, seeds)
    correct, items_of, within = [], [], []
    for _ in range(draws):
        triples = difficulty * rng.standard_normal(items)
        runs = middle + tau * rng.standard_normal(len(middle))
        right = (rng.random((items, len(runs))) < expit(runs + triples[:, None])).astype(np.float64)
        correct.append(right.sum(axis=0))
        one = pair(pool(asked_at, correct[-1][None], np.full((1, len(runs)), float(items)), floor), asked_at, right)
        items_of.append(one.items)
        within.append(one.within)
    plain = pool(asked_at, np.array(correct), np.full((draws, len(middle)), float(items)), floor)
    return plain, replace(plain, items=np.concatenate(items_of), within=np.concatenate(within))
