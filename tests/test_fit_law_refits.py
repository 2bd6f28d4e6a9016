import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_infusion_law
from kisl_plugin.fit.law_estimate import Range, bend, bend_and_slopes, fit_shapes, refit_laws

SIZES = np.array([137e6, 300e6, 562e6, 1.05e9, 3e9])
COMPUTE = 6 * SIZES * 100e9
SPAN = Range.of(COMPUTE)
SHAPES = st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 1.0))


def by_scipy(y: np.ndarray, error: float) -> float:
    """The least deviance over many starts, in rho and the level instead of the slope."""

    def residual(theta: np.ndarray) -> np.ndarray:
        alpha, rho, level = theta
        return (y - level - np.log((1 - rho) * np.exp(alpha * SPAN.depth) + rho)) / error

    bounds = ([1e-3, 0.0, -50.0], [3.0, 1.0, 50.0])
    starts = [(alpha, rho, y[-1]) for alpha in (0.02, 0.3, 1.0, 2.7) for rho in (0.01, 0.5, 0.99)]
    return min(2 * least_squares(residual, start, bounds=bounds, xtol=1e-12).cost for start in starts)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.0, 4.0), min_size=5, max_size=5), st.booleans())
def test_no_start_of_scipy_finds_a_better_law(logs: list[float], falling: bool) -> None:
    y = np.array(sorted(logs, reverse=True) if falling else logs)
    found = fit_shapes(SPAN, y[None], np.full((1, 5), 100.0))
    assert found.deviance[0] <= by_scipy(y, 0.1) + 1e-5


@settings(deadline=None, max_examples=50)
@given(SHAPES)
def test_the_shape_is_the_law_in_its_own_letters(shape: tuple[float, float]) -> None:
    alpha, slope = shape[0], shape[0] * shape[1]
    k = np.expm1(slope * SPAN.width) / np.expm1(alpha * SPAN.width)
    law = k * (COMPUTE / COMPUTE[-1]) ** -alpha + (1 - k)
    assert np.exp(bend(SPAN, np.array([alpha]), np.array([slope]))[0]) == pytest.approx(law)


@settings(deadline=None, max_examples=50)
@given(SHAPES)
def test_the_derivatives_are_those_of_small_steps(shape: tuple[float, float]) -> None:
    alpha, slope, step = np.array([shape[0]]), np.array([shape[0] * shape[1]]), 1e-6
    _, by_alpha, by_slope = bend_and_slopes(SPAN, alpha, slope)
    for found, more, less in (
        (by_alpha, bend(SPAN, alpha + step, slope), bend(SPAN, alpha - step, slope)),
        (by_slope, bend(SPAN, alpha, slope + step), bend(SPAN, alpha, slope - step)),
    ):
        assert found == pytest.approx((more - less) / (2 * step), rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 2.5), st.floats(0.0, 0.9))
def test_noise_free_collapse_points_give_alpha_and_the_predictions_back(alpha: float, rho: float) -> None:
    f_star = 100 * ((1 - rho) * (COMPUTE / COMPUTE[-1]) ** -alpha + rho)
    found = refit_laws(COMPUTE, f_star, np.full(5, 0.1), [10 * COMPUTE[-1]])
    assert found.alpha[0] == pytest.approx(alpha, rel=1e-3)
    assert found.E[0] == pytest.approx(100 * rho, abs=0.05)
    assert found.predictions[0, 0] == pytest.approx(100 * ((1 - rho) * 10**-alpha + rho), rel=1e-3)


def test_many_rows_at_once_are_the_rows_one_by_one() -> None:
    rng = np.random.default_rng(0)
    f_star = 400 * (COMPUTE / COMPUTE[0]) ** -0.5 * np.exp(rng.normal(0, 0.2, (20, 5)))
    errors = rng.uniform(0.05, 0.3, (20, 5))
    together = refit_laws(COMPUTE, f_star, errors, [1e22])
    for at in range(20):
        alone = refit_laws(COMPUTE, f_star[at], errors[at], [1e22])
        assert together.predictions[at] == pytest.approx(alone.predictions[0], rel=1e-6)


def test_the_law_is_one_row_of_the_refits() -> None:
    f_star = np.array([405.0, 290, 215, 165, 110])  # no scatter beyond 10 %
    law = fit_infusion_law(COMPUTE, f_star, [(value / 1.2, value * 1.2) for value in f_star])
    row = refit_laws(COMPUTE, f_star, np.full(5, 0.1), [1e22])
    assert law.scatter == 0
    assert (row.A[0], row.alpha[0], row.predictions[0, 0]) == pytest.approx((law.A, law.alpha, law.predict(1e22)))


def test_a_resample_without_a_collapse_gives_nan_and_leaves_the_others_alone() -> None:
    f_star = np.array([[400.0, 300, 200, 150, 100], [400, np.nan, 200, 150, 100], [400, 300, 0, 150, 100]])
    found = refit_laws(COMPUTE, f_star, np.full(5, 0.1), [1e22])
    assert np.isfinite(found.predictions[0]).all()
    assert np.isnan([found.A[1:], found.alpha[1:], found.E[1:], found.predictions[1:, 0]]).all()


def test_two_thousand_refits_take_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    f_star = 400 * (COMPUTE / COMPUTE[0]) ** -0.5 * np.exp(rng.normal(0, 0.15, (2000, 5)))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        refit_laws(COMPUTE, f_star, np.full(5, 0.1), [1e22])
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.4


@pytest.mark.parametrize(
    ("compute", "f_star", "errors", "message"),
    [
        ([1e18, 1e18, 2e18], [[3.0, 2, 1]], [0.1] * 3, "2 distinct C"),
        ([1e18, 2e18, 3e18], [[3.0, 2]], [0.1] * 3, r"f_star has shape \(1, 2\); expected \[B, 3\]"),
        ([1e18, 2e18, 3e18], [[3.0, 2, 1]], [0.1, 0.0, 0.1], "errors hold a value that is not above 0"),
    ],
)
def test_what_cannot_be_refitted_is_refused(
    compute: list[float], f_star: list[list[float]], errors: list[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        refit_laws(compute, f_star, errors)
