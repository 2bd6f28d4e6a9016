import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_infusion_law

SIZES = np.array([137e6, 300e6, 562e6, 1.05e9, 3e9])
COMPUTE = 6 * SIZES * 100e9


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.5])
def test_exact_collapse_points_give_the_law_back_and_predict_a_larger_model(alpha: float) -> None:
    A, E = 400.0 * COMPUTE[0] ** alpha, 40.0
    law = fit_infusion_law(COMPUTE, A / COMPUTE**alpha + E)
    assert (law.alpha, law.E) == pytest.approx((alpha, E), rel=1e-3)
    larger = 6 * 7e9 * 100e9
    assert law.predict(larger) == pytest.approx(A / larger**alpha + E, rel=1e-3)
    assert law.r2 == pytest.approx(1.0)


@settings(deadline=None, max_examples=6)
@given(st.lists(st.floats(1.0, 1e4), min_size=5, max_size=5), st.floats(1e-3, 1e3))
def test_the_law_scales_with_the_frequencies_and_stays_within_its_bounds(f_star: list[float], scale: float) -> None:
    law, scaled = (fit_infusion_law(COMPUTE, np.array(f_star) * by) for by in (1.0, scale))
    assert 0 < law.alpha <= 3
    assert 0 <= law.E <= law.predict(COMPUTE[-1]) * (1 + 1e-9)
    assert scaled.scatter == pytest.approx(law.scatter, rel=1e-2, abs=1e-4)


def test_a_sharp_interval_weighs_more_than_a_wide_one() -> None:
    truth = 400 * (COMPUTE / COMPUTE[0]) ** -0.5
    f_star = truth * [1, 1, 2, 1, 1]
    sharp, wide = (0.99, 1.01), (0.3, 3.0)
    intervals = [
        (value * ends[0], value * ends[1])
        for value, ends in zip(f_star, (sharp, sharp, wide, sharp, sharp), strict=True)
    ]
    even, weighed = fit_infusion_law(COMPUTE, f_star), fit_infusion_law(COMPUTE, f_star, intervals)
    misses = [abs(np.log(law.predict(COMPUTE[2]) / truth[2])) for law in (weighed, even)]
    assert misses[0] < 0.01
    assert misses[1] > 0.1


def test_an_open_interval_counts_as_the_others_do() -> None:
    f_star = np.array([400.0, 300, 210, 160, 120])
    intervals = [(value * 0.9, value * 1.1) for value in f_star]
    closed, opened = (fit_infusion_law(COMPUTE, f_star, ends) for ends in (intervals, [(None, 440.0), *intervals[1:]]))
    assert opened.alpha == pytest.approx(closed.alpha)


def test_three_models_have_no_r2_and_are_said_to_fit_by_construction() -> None:
    law = fit_infusion_law(COMPUTE[:3], [400.0, 300, 240])
    assert np.isnan(law.r2)
    assert np.isnan(law.r2_by_chance)
    assert any("by construction" in caveat for caveat in law.caveats)


def test_collapse_points_that_rise_with_compute_do_not_support_the_law() -> None:
    law = fit_infusion_law(COMPUTE, [100.0, 150, 200, 250, 300])
    assert any("does not fall" in caveat for caveat in law.caveats)


@pytest.mark.parametrize(
    ("compute", "f_star", "message"),
    [
        ([1e18, 2e18], [100.0, 90.0], "2 distinct C"),
        ([1e18, 1e18, 2e18], [100.0, 95.0, 90.0], "2 distinct C"),
        ([1e18, 2e18, 0.0], [100.0, 95.0, 90.0], r"compute\[2\] is 0"),
        ([1e18, 2e18, 3e18], [100.0, float("nan"), 90.0], r"f_star\[1\] is nan"),
        ([1e18, 2e18, 3e18], [100.0, 90.0], "shapes"),
    ],
)
def test_what_cannot_make_a_law_is_refused(compute: list[float], f_star: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_infusion_law(compute, f_star)
