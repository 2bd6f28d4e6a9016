import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from kisl_plugin.fit import fit_infusion_law
from kisl_plugin.fit.law import largest_r2, share_by_chance
from kisl_plugin.fit.law_estimate import Estimate, estimate, log_errors

SIZES = np.array([137e6, 300e6, 562e6, 1.05e9, 3e9])
COMPUTE = 6 * SIZES * 100e9
DEPTH = np.log(COMPUTE[-1] / COMPUTE)
TARGET = float(6 * 7e9 * 100e9)


def profile(y: np.ndarray, weight: np.ndarray, **held: float) -> float:
    """The least deviance of laws with alpha, E or F*(7B) held, by scipy from several starts."""
    far = np.log(COMPUTE[-1] / TARGET)

    def residual(theta: np.ndarray) -> np.ndarray:
        alpha, rho = held.get("alpha", theta[0]), theta[1]
        z, beyond = (np.log((1 - rho) * np.exp(alpha * depth) + rho) for depth in (DEPTH, far))
        level = np.average(y - z, weights=weight)
        if "target" in held:
            level = np.log(held["target"]) - beyond
        if "E" in held:
            level = np.log(held["E"] / rho)
        return np.sqrt(weight) * (y - level - z)

    starts = [(alpha, rho) for alpha in (0.1, 0.4, 1.2, 2.5) for rho in (0.02, 0.4, 0.8, 0.98)]
    bounds = ([1e-3, 1e-12], [3.0, 1.0])
    return min(2 * least_squares(residual, start, bounds=bounds, xtol=1e-12).cost for start in starts)


def noisy(seed: int, error: float) -> tuple[np.ndarray, Estimate]:
    f_star = (400 * (COMPUTE / COMPUTE[0]) ** -0.8 + 60) * np.exp(np.random.default_rng(seed).normal(0, error, 5))
    return np.log(f_star), estimate(COMPUTE, f_star, np.full(5, error), True)


@pytest.mark.parametrize(("seed", "error"), [(0, 0.1), (1, 0.1), (2, 0.02), (3, 0.2), (4, 0.005)])
def test_at_the_ends_of_an_interval_the_best_other_law_is_just_at_the_threshold(seed: int, error: float) -> None:
    y, found = noisy(seed, error)
    region, weight, rise = found.region, found.noise.weight, found.noise.quantile**2
    assert region is not None
    low, high = np.exp(region.log_f_star(TARGET))
    held = [{"target": low}, {"target": high}, {"alpha": region.alpha_interval[0]}, {"E": region.constant_interval[1]}]
    if region.alpha_interval[1] is not None:
        held.append({"alpha": region.alpha_interval[1]})
    if region.constant_interval[0]:
        held.append({"E": region.constant_interval[0]})
    for fixed in held:
        assert profile(y, weight, **fixed) - found.shapes.deviance[0] == pytest.approx(rise, rel=0.03)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(20.0, 2000.0), min_size=4, max_size=6), st.floats(0.02, 0.4), st.floats(1e18, 1e24))
def test_an_interval_holds_its_estimate(values: list[float], error: float, at: float) -> None:
    compute = np.geomspace(1e20, 1e22, len(values))
    law = fit_infusion_law(compute, values, [(v * np.exp(-1.96 * error), v * np.exp(1.96 * error)) for v in values])
    low, high = law.interval(at)
    assert low is not None and high is not None and low <= law.predict(at) <= high
    assert law.E_interval[0] is not None and law.E_interval[1] is not None
    assert law.E_interval[0] <= law.E * (1 + 1e-6) <= law.E_interval[1] * (1 + 2e-6)
    assert (law.alpha_interval[0] or 0) <= law.alpha <= (law.alpha_interval[1] or 3)


def test_intervals_narrow_with_the_errors_and_widen_away_from_the_models() -> None:
    f_star = 400 * (COMPUTE / COMPUTE[0]) ** -0.5

    def width(error: float, at: float) -> float:
        law = fit_infusion_law(COMPUTE, f_star, [(v * np.exp(-1.96 * error), v * np.exp(1.96 * error)) for v in f_star])
        low, high = law.interval(at)
        assert low is not None and high is not None
        return float(np.log(high / low))

    assert width(0.05, TARGET) < width(0.1, TARGET) < width(0.1, 10 * TARGET)
    assert width(0.1, COMPUTE[2]) < width(0.1, TARGET)


def test_scatter_beyond_the_curves_errors_is_found_and_widens_the_intervals() -> None:
    truth, wobble = 400 * (COMPUTE / COMPUTE[0]) ** -0.5, np.exp([0.3, -0.35, 0.3, -0.3, 0.1])
    calm, wild = (
        fit_infusion_law(COMPUTE, f_star, [(v * np.exp(-0.1), v * np.exp(0.1)) for v in f_star])
        for f_star in (truth, truth * wobble)
    )
    assert calm.scatter == 0 and np.isinf(calm.df)
    assert wild.scatter > 0.15 and np.isfinite(wild.df)
    widths = [float(np.log(high / low)) for low, high in (law.interval(COMPUTE[2]) for law in (calm, wild))]
    assert widths[1] > 3 * widths[0]


def test_an_end_of_alpha_that_reaches_its_bound_is_open() -> None:
    f_star = np.array([150.0, 130, 140, 120, 125])
    law = fit_infusion_law(COMPUTE, f_star, [(v / 1.5, v * 1.5) for v in f_star])
    assert law.alpha_interval == (0.0, None)


def test_errors_come_from_both_ends_and_an_open_one_counts_as_at_least_the_others() -> None:
    ends = [(90.0, 110.0), (80.0, 125.0), (None, 120.0), (50.0, None), (None, None)]
    errors = log_errors([100.0] * 5, ends)
    assert errors is not None
    halves = [np.log(110 / 90) / 2, np.log(125 / 80) / 2]
    usual = np.median(halves)
    assert errors * 1.96 == pytest.approx([*halves, max(np.log(1.2), usual), np.log(2), usual], rel=1e-4)
    assert log_errors([100.0, 90], [(None, None), (None, None)]) is None


def test_about_two_in_five_random_falling_sequences_reach_the_papers_r2() -> None:
    assert share_by_chance(np.log(SIZES), 0.9685) == pytest.approx(0.39, abs=0.03)
    assert share_by_chance(np.log(SIZES[:4]), 0.9685) == pytest.approx(0.47, abs=0.03)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_r2_is_reached_less_often(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert share_by_chance(np.log(SIZES), low) >= share_by_chance(np.log(SIZES), high)


def test_the_largest_r2_is_that_of_least_squares() -> None:
    f_star = np.array([410.0, 280, 240, 160, 125])
    law = fit_infusion_law(COMPUTE, f_star, loss="least-squares")
    assert largest_r2(DEPTH, f_star[None])[0] == pytest.approx(law.r2, abs=1e-4)
