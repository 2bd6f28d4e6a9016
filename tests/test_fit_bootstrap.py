import numpy as np
import pytest
from fit_files import rate, shared_outcomes

from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_collapse_curve
from kisl_plugin.fit.curve import Runs, bootstrap_collapse_points
from kisl_plugin.fit.curve_estimate import FloatArray

GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000], dtype=float)


def model(correct: FloatArray, total: FloatArray, floor: float = 0.0, outcomes: FloatArray | None = None) -> Runs:
    return Runs(fit_collapse_curve(GRID, correct, total, floor, outcomes=outcomes), GRID, correct, total)


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_drawn_counts_spread_as_the_profile_interval_says(floor: float) -> None:
    total = np.full(8, 3000.0)
    correct = np.random.default_rng(1).binomial(3000, rate(GRID, 300.0, floor=floor)).astype(float)
    found = model(correct, total, floor)
    low, high = np.percentile(bootstrap_collapse_points([found], draws=1000)[:, 0], [2.5, 97.5])
    assert (low, high) == pytest.approx(found.curve.f_star_interval, rel=0.03)


def test_drawn_triples_spread_as_the_paired_interval_says() -> None:
    truth = np.concatenate([rate(GRID, 300.0), rate(GRID, 400.0)])
    right = np.split(shared_outcomes(truth, 0.8, 2000, seed=4), 2, axis=1)
    models = [model(one.sum(axis=0), np.full(8, 2000.0), outcomes=one) for one in right]
    assert [found.curve.tau for found in models] == [0, 0]
    drawn = bootstrap_collapse_points(models, np.concatenate(right, axis=1), draws=1500)
    for at in range(2):
        low, high = np.percentile(drawn[:, at], [2.5, 97.5])
        assert (low, high) == pytest.approx(models[at].curve.f_star_interval, rel=0.03)


def test_the_same_triples_are_drawn_for_every_model() -> None:
    right = shared_outcomes(rate(GRID, 300.0), 0.5, 2000, seed=4)
    found = model(right.sum(axis=0), np.full(8, 2000.0), outcomes=right)
    twice = bootstrap_collapse_points([found, found], np.tile(right, 2), draws=50)
    assert np.array_equal(twice[:, 0], twice[:, 1])
    apart = bootstrap_collapse_points([found, found], draws=50)
    assert not np.array_equal(apart[:, 0], apart[:, 1])


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    found = model(np.round(1000 * rate(GRID, 300.0)), np.full(8, 1000.0))
    once, again, other = (bootstrap_collapse_points([found], draws=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_outcomes_of_other_runs_and_models_without_a_curve_are_refused() -> None:
    found = model(np.round(1000 * rate(GRID, 300.0)), np.full(8, 1000.0))
    with pytest.raises(InputError, match="outcomes have 3 columns; the models have 8 runs"):
        bootstrap_collapse_points([found], np.ones((5, 3)))
    bare = Runs(fit_collapse_curve([1, 2], [1, 1], [2, 2]), GRID[:2], np.ones(2), np.full(2, 2.0))
    with pytest.raises(InputError, match="without a fitted curve"):
        bootstrap_collapse_points([bare])
