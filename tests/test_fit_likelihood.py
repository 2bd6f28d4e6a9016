"""The likelihood of collapse curves, its maximum and its profile, against independent computations."""

import numpy as np
import pytest
from fit_files import rate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.stats import binom

from kisl_plugin.fit.likelihood import (
    LOG_F_STAR,
    LOG_HEIGHT,
    BinomialLikelihood,
    FloatArray,
    collapse_rate,
    multistart,
)

GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000], dtype=float)
LARGEST_B, REACH = 12.0, np.log(30)


def drawn(floor: float, items: int, seed: int, sets: int = 1) -> BinomialLikelihood:
    """Counts of a curve of the form with F* = 300."""
    total = np.full((sets, len(GRID)), float(items))
    correct = np.random.default_rng(seed).binomial(items, rate(GRID, 300.0, floor=floor), total.shape)
    return BinomialLikelihood(GRID, correct.astype(float), total, floor)


def minus_log_likelihood(theta: FloatArray, data: BinomialLikelihood) -> float:
    """By the formula in a, b and c with the densities of scipy.stats, for one data set."""
    log_height, b, log_f_star = theta
    p = rate(data.frequency, np.exp(log_f_star), b, np.exp(log_height), data.floor)
    return -float(binom.logpmf(data.correct[0], data.total[0], np.clip(p, 1e-12, 1 - 1e-12)).sum())


def best_by_scipy(data: BinomialLikelihood, fixed: dict[int, float] | None = None) -> float:
    """The largest log-likelihood found by L-BFGS-B from many starts, some parameters fixed."""
    ends = np.log(data.frequency.min()) - REACH, np.log(data.frequency.max()) + REACH
    bounds: list[tuple[float, float]] = [(-15, 0), (1e-6, LARGEST_B), ends]
    for index, value in (fixed or {}).items():
        bounds[index] = (value, value)
    starts = [(-0.5, b, at) for b in (0.1, 1.0) for at in np.linspace(*ends, 8)]
    starts = [np.clip(start, *np.transpose(bounds)) for start in starts]
    return -min(
        float(minimize(minus_log_likelihood, start, (data,), method="L-BFGS-B", bounds=bounds).fun) for start in starts
    )


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_no_curve_found_by_scipys_optimiser_has_a_higher_likelihood(floor: float) -> None:
    rng = np.random.default_rng(8)
    for _ in range(4):
        F = np.sort(rng.choice(GRID, 6, replace=False))
        n = rng.integers(20, 500, (1, 6)).astype(float)
        data = BinomialLikelihood(F, rng.binomial(n.astype(int), rng.uniform(0.1, 0.9, 6)).astype(float), n, floor)
        best = multistart(data)
        assert -minus_log_likelihood(best.best[0], data) >= best_by_scipy(data) - 1e-3


def best_of_dense_grid(data: BinomialLikelihood) -> float:
    """The largest log-likelihood over 240 F* and 71 b, the height by bisection, polished by Nelder and Mead's method.

    For fixed F* and b, P is linear in the height, so the log-likelihood is concave in it.
    """
    F, k, n, g = data.frequency, data.correct[0], data.total[0], data.floor

    def best_over_height(log_f_star: FloatArray, b: FloatArray) -> FloatArray:
        x = F / np.exp(log_f_star)[..., None]
        relative = np.exp(np.maximum(b[..., None] * (np.log(x) - x + 1), -600))
        low, high = np.full(relative.shape[:-1], 1e-9), np.ones(relative.shape[:-1])
        for _ in range(50):
            middle = (low + high) / 2
            p = np.minimum(g + (1 - g) * middle[..., None] * relative, 1 - 1e-12)
            rising = (relative * (k / p - (n - k) / (1 - p))).sum(axis=-1) > 0
            low, high = np.where(rising, middle, low), np.where(rising, high, middle)
        p = np.minimum(g + (1 - g) * high[..., None] * relative, 1 - 1e-12)
        return np.asarray((k * np.log(p) + (n - k) * np.log1p(-p)).sum(axis=-1))

    ends = float(np.log(F[0]) - REACH), float(np.log(F[-1]) + REACH)
    places, steepness = np.linspace(*ends, 240), np.append(0.0, np.geomspace(1e-3, LARGEST_B, 70))
    grid = best_over_height(*np.meshgrid(places, steepness, indexing="ij"))
    best = -np.inf
    for at in np.argsort(-grid, axis=None)[:40:10]:
        polished = minimize(
            lambda point: -float(best_over_height(point[0], point[1])),
            (places[at // 71], steepness[at % 71]),
            method="Nelder-Mead",
            bounds=(ends, (0.0, LARGEST_B)),
            options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 1000},
        )
        best = max(best, -float(polished.fun))
    return best


@pytest.mark.parametrize(("floor", "items"), [(0.0, 500), (0.0, 50), (0.25, 500), (0.25, 50)])
def test_no_curve_of_a_dense_grid_has_a_higher_likelihood(floor: float, items: int) -> None:
    data = drawn(floor, items, seed=3, sets=2)
    for at, maximum in enumerate(multistart(data).maximum):
        assert maximum == pytest.approx(best_of_dense_grid(data.take(np.array([at]))), abs=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.25])
@pytest.mark.parametrize("index", [LOG_F_STAR, LOG_HEIGHT])
def test_at_the_ends_of_an_interval_the_profile_has_fallen_by_the_drop(floor: float, index: int) -> None:
    data = drawn(floor, 1000, seed=5)
    profile = multistart(data)
    top = -minus_log_likelihood(profile.best[0], data)
    for end in profile.interval(index, np.array([1.92])):
        assert top - best_by_scipy(data, {index: float(end[0])}) == pytest.approx(1.92, abs=1e-3)


def test_an_interval_that_the_frequencies_do_not_close_is_open() -> None:
    F, total = np.array([10.0, 50, 200, 1000]), np.full((1, 4), 300.0)
    profile = multistart(BinomialLikelihood(F, np.round(0.02 * F**0.3 * total), total, 0.0))
    low, high = profile.interval(LOG_F_STAR, np.array([1.92]))
    assert np.exp(low[0]) > 500
    assert np.isnan(high[0])


@given(
    st.tuples(st.floats(-2, -0.05), st.floats(0.05, 3), st.floats(3, 8)),
    st.sampled_from([0.0, 0.25]),
    st.integers(0, 99),
)
def test_derivatives_are_those_of_finite_differences(
    point: tuple[float, float, float], floor: float, seed: int
) -> None:
    data, theta = drawn(floor, 1000, seed), np.array(point)
    gradient, expected, observed = data.derivatives(theta[None])
    scale = np.sqrt(np.abs(np.diag(expected[0]))) + 1e-3
    step = 1e-6

    def value(at: FloatArray) -> float:
        return float(data.value(at[None])[0])

    def slope(at: FloatArray) -> FloatArray:
        return data.derivatives(at[None])[0][0]

    size = abs(value(theta)) * 1e-9 / step + 1e-4
    assert np.abs(approx_fprime(theta, value, step) - gradient[0]).max() <= size + 1e-4 * (scale**2).max()
    hessian = np.array([(slope(theta + d) - slope(theta - d)) / (2 * step) for d in step * np.eye(3)])
    assert np.abs(hessian + observed[0]).max() <= 1e-5 * np.abs(observed).max() + 1e-3
    p = data.rate(theta[None])
    at_expectation = BinomialLikelihood(GRID, p * data.total, data.total, floor).derivatives(theta[None])
    assert expected[0] == pytest.approx(at_expectation[2][0], rel=1e-6, abs=1e-6 * np.abs(expected).max())


def test_many_data_sets_at_once_are_each_as_alone() -> None:
    data = drawn(0.25, 300, seed=1, sets=5)
    together = multistart(data)
    ends = np.array(together.interval(LOG_F_STAR, np.full(5, 1.92)))
    for at in range(5):
        alone = multistart(data.take(np.array([at])))
        assert together.maximum[at] == pytest.approx(alone.maximum[0], abs=1e-9)
        assert together.best[at] == pytest.approx(alone.best[0], rel=1e-5)
        assert ends[:, at] == pytest.approx(np.array(alone.interval(LOG_F_STAR, np.array([1.92])))[:, 0], abs=1e-5)


@settings(max_examples=30)
@given(st.floats(1, 1e4), st.floats(0.01, 5), st.floats(0.01, 1), st.sampled_from([0.0, 0.25]))
def test_the_curve_is_that_of_a_b_and_c(f_star: float, b: float, height: float, floor: float) -> None:
    theta = np.array([[np.log(height), b, np.log(f_star)]])
    assert collapse_rate(GRID, theta, floor)[0] == pytest.approx(rate(GRID, f_star, b, height, floor), rel=1e-6)
