"""Run-to-run noise and shared triples: what they do to estimates, and that the intervals know it."""

import numpy as np
import pytest
from fit_files import rate, shared_outcomes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from kisl_plugin.fit import fit_collapse_curve
from kisl_plugin.fit.likelihood import LOG_F_STAR, FloatArray
from kisl_plugin.fit.noise import LACK_OF_FIT, SEEDS, Counts, CurveFits, fit_curves, pool_runs, with_pairing

GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000], dtype=float)
TRUTH = rate(GRID, 300.0)
DRAWS = 300


def noisy_counts(tau: float, seeds: int, items: int, draws: int = DRAWS) -> Counts:
    rng = np.random.default_rng(7)
    odds = logit(np.repeat(TRUTH, seeds)) + tau * rng.standard_normal((draws, seeds * len(GRID)))
    correct = rng.binomial(items, expit(odds)).astype(float)
    return pool_runs(np.repeat(GRID, seeds), correct, np.full(correct.shape, float(items)), 0.0)


def coverage(fits: CurveFits) -> float:
    low, high = fits.interval(LOG_F_STAR)
    return float(np.mean(~(low > np.log(300.0)) & ~(high < np.log(300.0))))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("tau", [0.1, 0.3])
def test_noise_between_runs_is_found_and_the_interval_covers(tau: float, seeds: int) -> None:
    fits = fit_curves(noisy_counts(tau, seeds, items=2000))
    assert fits.tau_source == (SEEDS if seeds > 1 else LACK_OF_FIT)
    assert np.median(fits.tau) == pytest.approx(tau, rel=0.2)
    assert 0.90 <= coverage(fits) <= 0.985


def test_intervals_that_know_nothing_of_the_noise_would_miss_half_the_time() -> None:
    fits = fit_curves(noisy_counts(0.1, 3, items=3000))
    low, high = fits.unweighted.interval(LOG_F_STAR, np.full(DRAWS, 1.92))
    assert np.mean((low < np.log(300)) & (np.log(300) < high)) < 0.75


def test_without_noise_none_is_made_up_and_the_binomial_interval_stays() -> None:
    fits = fit_curves(noisy_counts(0.0, 1, items=2000))
    assert np.mean(fits.tau == 0) > 0.5
    calm = fits.tau == 0
    assert fits.theta[calm] == pytest.approx(fits.unweighted.best[calm], rel=1e-6)
    assert 0.92 <= coverage(fits) <= 0.995


def outcomes(shared: float, runs: int, triples: int = 3000) -> FloatArray:
    """Triples of which a part of the difficulty is `shared` by all runs; each run's share stays the curve's."""
    return shared_outcomes(np.repeat(TRUTH, runs), shared, triples, seed=2)


@pytest.mark.parametrize("runs", [1, 2])
def test_pairing_gives_the_covariances_that_a_bootstrap_of_the_triples_shows(runs: int) -> None:
    right, frequency = outcomes(0.6, runs), np.repeat(GRID, runs)
    counts = with_pairing(
        pool_runs(frequency, right.sum(axis=0)[None], np.full((1, len(frequency)), 3000.0), 0.0), frequency, right
    )
    assert counts.within is not None
    rng = np.random.default_rng(3)
    drawn = np.array([right[rng.integers(0, 3000, 3000)].mean(axis=0) for _ in range(3000)])
    shares = drawn.reshape(-1, len(GRID), runs).mean(axis=2)
    covariance = counts.share_covariance(counts.likelihood.share)[0]
    deviations = np.sqrt(np.diag(covariance))
    scaled = (covariance - np.cov(shares.T)) / np.outer(deviations, deviations)
    assert np.abs(scaled).max() < 0.12
    if runs == 2:
        apart = drawn.reshape(-1, len(GRID), 2)
        between = (apart[:, :, 0] - apart[:, :, 1]).var(axis=0) / 2
        assert counts.within[0] == pytest.approx(between, rel=0.15)


def test_the_same_triples_at_every_frequency_make_f_star_surer_and_the_peak_less_sure() -> None:
    right = outcomes(0.8, 1)
    counts = (GRID, right.sum(axis=0), np.full(8, 3000))
    alone, paired = fit_collapse_curve(*counts), fit_collapse_curve(*counts, outcomes=right)
    assert paired.paired
    assert paired.tau == alone.tau == 0
    assert paired.f_star == alone.f_star
    assert np.diff(paired.f_star_interval)[0] < 0.9 * np.diff(alone.f_star_interval)[0]
    assert np.diff(paired.peak_interval)[0] > 1.1 * np.diff(alone.peak_interval)[0]


def test_triples_not_asked_everywhere_are_paired_where_they_were() -> None:
    right = outcomes(0.5, 1)
    right[:1000, 2] = np.nan
    asked = np.isfinite(right).sum(axis=0)
    curve = fit_collapse_curve(GRID, np.nansum(right, axis=0), asked, outcomes=right)
    assert curve.ok
    assert curve.paired


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200)), min_size=5, max_size=5))
def test_pooling_keeps_every_item_and_the_spread_of_the_seeds(cells: list[tuple[int, int, int]]) -> None:
    frequency = np.tile(GRID[:5], 3)
    correct = np.array(cells, dtype=float).T.ravel()
    counts = pool_runs(frequency, correct[None], np.full((1, 15), 200.0), 0.0)
    assert counts.likelihood.correct.sum() == correct.sum()
    assert counts.likelihood.total.tolist() == [[600.0] * 5]
    assert counts.spread[0] == pytest.approx(2 * np.var(np.array(cells) / 200, axis=1, ddof=1))


def test_seeds_that_disagree_far_beyond_their_items_take_the_collapse_point_away() -> None:
    rng = np.random.default_rng(5)
    truth = rate(GRID, 2000.0, height=0.8)
    total = np.full(24, 3000)
    calm = rng.binomial(3000, np.repeat(truth, 3))
    wild = rng.binomial(3000, expit(logit(np.repeat(truth, 3)) + 0.8 * rng.standard_normal(24)))
    frequency = np.repeat(GRID, 3)
    assert fit_collapse_curve(frequency, calm, total).ok
    curve = fit_collapse_curve(frequency, wild, total)
    assert not curve.ok
    assert curve.tau == pytest.approx(0.8, rel=0.5)


def test_runs_of_unequal_items_show_no_noise_where_there_is_none() -> None:
    rng, items = np.random.default_rng(3), np.tile([6000, 300, 300], len(GRID))
    correct = rng.binomial(items, np.repeat(TRUTH, 3), size=(DRAWS, len(items))).astype(float)
    counts = pool_runs(np.repeat(GRID, 3), correct, np.broadcast_to(items, correct.shape).astype(float), 0.0)
    fits = fit_curves(counts)
    assert np.mean(fits.tau > 0) < 0.45
    assert 0.90 <= coverage(fits) <= 0.99


def test_one_run_of_many_items_does_not_average_its_noise_away() -> None:
    rng, items = np.random.default_rng(3), np.tile([6000, 300, 300], len(GRID))
    odds = logit(np.repeat(TRUTH, 3)) + 0.2 * rng.standard_normal((DRAWS, len(items)))
    correct = rng.binomial(items, expit(odds)).astype(float)
    fits = fit_curves(pool_runs(np.repeat(GRID, 3), correct, np.broadcast_to(items, correct.shape).astype(float), 0.0))
    assert np.median(fits.tau) == pytest.approx(0.2, rel=0.2)
    assert 0.88 <= coverage(fits) <= 0.99
