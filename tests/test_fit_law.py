import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

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


FREQUENCIES = st.lists(st.floats(10.0, 1e4), min_size=5, max_size=5)


def within(f_star: np.ndarray, error: float) -> list[tuple[float, float]]:
    return [(value * np.exp(-1.96 * error), value * np.exp(1.96 * error)) for value in f_star.tolist()]


@settings(deadline=None, max_examples=8)
@given(FREQUENCIES, st.floats(1e-3, 1e3), st.floats(1e-6, 1e6))
def test_the_law_scales_with_the_units_of_f_star_and_of_compute(values: list[float], scale: float, unit: float) -> None:
    f_star = np.array(values)
    law = fit_infusion_law(COMPUTE, f_star, within(f_star, 0.1))
    scaled = fit_infusion_law(COMPUTE * unit, f_star * scale, within(f_star * scale, 0.1))
    assert 0 < law.alpha <= 3
    assert 0 <= law.E <= law.predict(COMPUTE[-1]) * (1 + 1e-9)
    larger = 5 * COMPUTE[-1]
    assert scaled.predict(larger * unit) == pytest.approx(law.predict(larger) * scale, rel=1e-3)
    assert scaled.interval(larger * unit) == pytest.approx([end * scale for end in law.interval(larger)], rel=1e-2)
    assert (scaled.scatter, scaled.r2) == pytest.approx((law.scatter, law.r2), abs=1e-3, nan_ok=True)
    assert scaled.r2_by_chance == pytest.approx(law.r2_by_chance, abs=1e-2, nan_ok=True)
    assert scaled.e_distinguishable == law.e_distinguishable


@settings(deadline=None, max_examples=8)
@given(FREQUENCIES, st.permutations(range(5)))
def test_the_order_of_the_models_does_not_matter(values: list[float], order: list[int]) -> None:
    f_star, errors = np.array(values), np.linspace(0.05, 0.3, 5)
    ends = [
        (value * np.exp(-1.96 * error), value * np.exp(1.96 * error))
        for value, error in zip(f_star, errors, strict=True)
    ]
    law = fit_infusion_law(COMPUTE, f_star, ends)
    other = fit_infusion_law(COMPUTE[order], f_star[order], [ends[at] for at in order])
    assert other.predict(1e23) == pytest.approx(law.predict(1e23), rel=1e-4)
    assert other.scatter == pytest.approx(law.scatter, abs=1e-6)
    assert sorted(left.compute for left in other.leave_one_out) == sorted(COMPUTE.tolist())


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


def test_r2_stands_beside_the_share_of_random_falling_sequences_that_reach_it() -> None:
    law = fit_infusion_law(COMPUTE, [400.0, 300, 240, 150, 120])
    assert 0.2 < law.r2_by_chance < 0.9
    assert any(
        f"{100 * law.r2_by_chance:.0f} % of random falling sequences of 5 points" in text for text in law.caveats
    )


def test_three_models_with_intervals_predict_a_range_and_without_them_none() -> None:
    f_star = np.array([400.0, 300, 240])
    told, untold = fit_infusion_law(COMPUTE[:3], f_star, within(f_star, 0.1)), fit_infusion_law(COMPUTE[:3], f_star)
    low, high = told.interval(COMPUTE[-1])
    assert low is not None and high is not None and low < told.predict(COMPUTE[-1]) < high
    assert told.alpha_interval == told.E_interval == untold.interval(COMPUTE[-1]) == (None, None)
    assert told.e_distinguishable is None
    assert told.leave_one_out == ()


def test_each_model_is_left_out_once_and_predicted_by_the_law_of_the_others() -> None:
    f_star = np.array([410.0, 300, 240, 150, 120])
    law = fit_infusion_law(COMPUTE, f_star, within(f_star, 0.1))
    for at, left in enumerate(law.leave_one_out):
        rest = np.arange(5) != at
        alone = fit_infusion_law(COMPUTE[rest], f_star[rest], within(f_star[rest], 0.1))
        assert left.predicted == pytest.approx(alone.predict(COMPUTE[at]))
        assert left.interval == pytest.approx(alone.interval(COMPUTE[at]))
        assert left.log_error == pytest.approx(np.log(left.predicted / f_star[at]))
    errors = [left.log_error for left in law.leave_one_out]
    assert law.leave_one_out_error == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_e_is_told_from_zero_only_where_the_data_show_it() -> None:
    bent = 300 * (COMPUTE / COMPUTE[0]) ** -1.5 + 100
    straight = 400 * (COMPUTE / COMPUTE[0]) ** -0.4
    for f_star, error, told in ((bent, 0.02, True), (bent, 0.5, False), (straight, 0.02, False)):
        law = fit_infusion_law(COMPUTE, f_star, within(f_star, error))
        assert law.e_distinguishable is told
        assert law.without_E is not None and law.without_E.E == 0
        assert (law.E_interval[0] == 0) is not told
        assert any("E is not distinguishable from 0" in caveat for caveat in law.caveats) is not told


@pytest.mark.parametrize("loss", ["huber-log", "least-squares"])
def test_the_ways_of_the_paper_recover_an_exact_law_and_have_no_intervals(loss: str) -> None:
    f_star = 300 * (COMPUTE / COMPUTE[0]) ** -0.7 + 60
    law = fit_infusion_law(COMPUTE, f_star, loss=loss)
    assert (law.alpha, law.E) == pytest.approx((0.7, 60), rel=1e-3)
    assert law.interval(1e23) == law.alpha_interval == (None, None)
    assert law.loss == loss


def test_least_squares_is_what_curve_fit_finds() -> None:
    relative, f_star = COMPUTE / COMPUTE[0], np.array([410.0, 280, 240, 160, 125])
    (A, alpha, E), _ = curve_fit(lambda x, A, alpha, E: A / x**alpha + E, relative, f_star, p0=(300, 0.5, 50))
    law = fit_infusion_law(COMPUTE, f_star, loss="least-squares")
    assert (law.A / COMPUTE[0] ** law.alpha, law.alpha, law.E) == pytest.approx((A, alpha, E), rel=1e-4)


def test_the_huber_law_shrugs_off_one_wild_model() -> None:
    truth = 300 * (COMPUTE / COMPUTE[0]) ** -0.7 + 60
    wild = truth * [1, 1, 3, 1, 1]
    huber, squares = (fit_infusion_law(COMPUTE, wild, loss=loss) for loss in ("huber-log", "least-squares"))
    assert huber.predict(COMPUTE[-1]) == pytest.approx(truth[-1], rel=1e-2)
    assert squares.predict(COMPUTE[-1]) != pytest.approx(truth[-1], rel=1e-1)


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
        ([], [], "compute has shape"),
    ],
)
def test_what_cannot_make_a_law_is_refused(compute: list[float], f_star: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_infusion_law(compute, f_star)


def test_an_interval_that_does_not_hold_its_f_star_is_refused() -> None:
    with pytest.raises(InputError, match=r"intervals\[1\] is \(95.0, 99.0\) around F\* = 90"):
        fit_infusion_law(COMPUTE[:3], [100.0, 90.0, 80.0], [(90.0, 110.0), (95.0, 99.0), (None, 90.0)])


def test_an_unknown_loss_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="expected one of weighted-log, huber-log, least-squares"):
        fit_infusion_law(COMPUTE, COMPUTE, loss="huber")  # type: ignore[arg-type]
