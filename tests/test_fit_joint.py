from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.collapse_points import CollapsePoint
from kisl_plugin.fit.joint import JointLaw, fit_data_law, fit_joint_law

SIZES = (137_000_000, 300_000_000, 562_000_000, 1_050_000_000, 3_000_000_000)
BUDGETS = (58_000_000_000, 75_000_000_000, 100_000_000_000)
Truth = Callable[[float, float], float]


def power(params: float, tokens: float) -> float:
    return 400 * (params / SIZES[0]) ** -0.5 * (tokens / BUDGETS[2]) ** 1.3


def scaled(params: float, tokens: float) -> float:
    return (400 * (params / SIZES[0]) ** -0.8 + 60) * (tokens / BUDGETS[2]) ** 1.3


def offset(params: float, tokens: float) -> float:
    return 400 * (params / SIZES[0]) ** -0.8 * (tokens / BUDGETS[2]) ** 1.3 + 60


def nested(params: float, tokens: float) -> float:
    return 4 * (tokens / params) ** 0.6


def point(params: int, tokens: int, f_star: float, error: float) -> CollapsePoint:
    ends = (f_star * float(np.exp(-1.96 * error)), f_star * float(np.exp(1.96 * error)))
    return CollapsePoint(params=params, tokens=tokens, f_star=f_star, interval=ends)


def grid(
    truth: Truth, error: float, rng: np.random.Generator | None = None, sizes: tuple[int, ...] = SIZES
) -> list[CollapsePoint]:
    """A point of each size and budget, with noise where there is an `rng`."""
    noise = rng.normal(0, error, (len(sizes), len(BUDGETS))) if rng else np.zeros((len(sizes), len(BUDGETS)))
    return [
        point(params, tokens, truth(params, tokens) * float(np.exp(noise[i, j])), error)
        for i, params in enumerate(sizes)
        for j, tokens in enumerate(BUDGETS)
    ]


@pytest.mark.parametrize(
    ("truth", "name", "parameters"),
    [
        (power, "power law", {"alpha": 0.5, "gamma": 1.3}),
        (scaled, "scaled law", {"alpha": 0.8, "gamma": 1.3}),
        (offset, "offset law", {"alpha": 0.8, "gamma": 1.3, "E": 60}),
        (nested, "tokens per parameter", {"gamma": 0.6, "A": 4}),
    ],
)
def test_exact_points_choose_their_form_give_it_back_and_predict(
    truth: Truth, name: str, parameters: dict[str, float]
) -> None:
    law = fit_joint_law(grid(truth, 0.01))
    assert law.best.name == name
    assert {key: law.best.parameters[key] for key in parameters} == pytest.approx(parameters, rel=1e-3)
    found = law.predict(7e9, 200e9)
    assert found.f_star == pytest.approx(truth(7e9, 200e9), rel=5e-3)
    assert found.interval[0] < truth(7e9, 200e9) < found.interval[1]
    assert found.spread[0] <= found.f_star * (1 + 1e-9) <= found.spread[1] * (1 + 2e-9)


def test_weights_are_akaikes_and_the_best_form_stands_first() -> None:
    law = fit_joint_law(grid(power, 0.1, np.random.default_rng(0)))
    aic = np.array([form.aic for form in law.forms])
    fitted = {"power law": 3, "scaled law": 4, "offset law": 4, "tokens per parameter": 2}
    assert [form.aic - form.deviance for form in law.forms] == pytest.approx(
        [2 * fitted[form.name] for form in law.forms]
    )
    assert (np.diff(aic) >= 0).all()
    expected = np.exp((aic[0] - aic) / 2)
    assert [form.weight for form in law.forms] == pytest.approx(expected / expected.sum())


def test_the_power_law_is_linear_regression_in_logs() -> None:
    points = grid(power, 0.1, np.random.default_rng(1))
    law = fit_joint_law(points)
    form = next(form for form in law.forms if form.name == "power law")
    logs = np.log([[found.params, found.tokens, found.f_star] for found in points])
    design = np.column_stack([np.ones(len(logs)), -logs[:, 0], logs[:, 1]])
    expected = np.linalg.lstsq(design, logs[:, 2], rcond=None)[0]
    assert (form.parameters["alpha"], form.parameters["gamma"]) == pytest.approx(expected[1:])
    error = np.sqrt(np.linalg.inv(design.T @ design)[2, 2] * (0.1**2 + law.scatter**2))
    low, high = form.intervals["gamma"]
    assert low is not None and high is not None
    assert (high - low) / (2 * law.noise.quantile) == pytest.approx(error, rel=1e-4)


def test_the_error_left_out_is_that_of_regressions_without_each_point() -> None:
    points = grid(power, 0.1, np.random.default_rng(2))
    form = next(form for form in fit_joint_law(points).forms if form.name == "power law")
    logs = np.log([[found.params, found.tokens, found.f_star] for found in points])
    design = np.column_stack([np.ones(len(logs)), logs[:, :2]])
    missed = []
    for at in range(len(points)):
        rest = np.arange(len(points)) != at
        theta = np.linalg.lstsq(design[rest], logs[rest, 2], rcond=None)[0]
        missed.append(design[at] @ theta - logs[at, 2])
    assert form.leave_one_out_error == pytest.approx(np.sqrt(np.mean(np.square(missed))), rel=1e-6)


def test_below_nine_points_only_the_forms_without_a_bend_are_tried() -> None:
    points = [found for found in grid(offset, 0.1) if found.tokens == BUDGETS[2] or found.params == SIZES[1]]
    law = fit_joint_law(points)
    assert {form.name for form in law.forms} == {"power law", "tokens per parameter"}
    assert any("below 9 points" in caveat for caveat in law.caveats)
    assert len(fit_joint_law(grid(offset, 0.1, sizes=SIZES[:3])).forms) == 4


def test_gamma_of_an_offset_law_falls_where_e_takes_over() -> None:
    law = fit_joint_law(grid(offset, 0.01))
    for params in (SIZES[0], SIZES[4]):
        share = 1 - 60 / offset(params, BUDGETS[2])
        assert law.gamma_of(params, BUDGETS[2])[0] == pytest.approx(1.3 * share, rel=1e-2)
    assert law.gamma_at == (SIZES[4], BUDGETS[2])
    assert law.gamma_interval[0] < law.gamma < law.gamma_interval[1]


@settings(deadline=None, max_examples=5)
@given(st.floats(0.01, 100.0), st.permutations(range(9)))
def test_neither_units_nor_order_matter(scale: float, order: list[int]) -> None:
    points = grid(scaled, 0.1, np.random.default_rng(3), SIZES[1:4])
    moved = [point(found.params, found.tokens, found.f_star * scale, 0.1) for found in points]
    law, other = fit_joint_law(points), fit_joint_law([moved[at] for at in order])
    assert other.predict(7e9, 1e11).f_star == pytest.approx(law.predict(7e9, 1e11).f_star * scale, rel=1e-3)
    assert other.gamma == pytest.approx(law.gamma, abs=1e-3)
    assert other.scatter == pytest.approx(law.scatter, abs=1e-5)


def test_points_far_from_every_form_have_scatter_and_wide_intervals() -> None:
    rng = np.random.default_rng(4)
    wild = [
        point(found.params, found.tokens, found.f_star * float(np.exp(rng.normal(0, 0.5))), 0.05)
        for found in grid(power, 0.05)
    ]

    def width(law: JointLaw) -> float:
        low, high = law.predict(7e9, 1e11).interval
        return float(np.log(high / low))

    calm, scattered = fit_joint_law(grid(power, 0.05)), fit_joint_law(wild)
    assert calm.scatter == 0
    assert 0.25 < scattered.scatter < 1
    assert width(scattered) > 3 * width(calm)


@pytest.mark.parametrize("kept", [SIZES[:1], SIZES[:0]])
def test_too_few_points_for_a_joint_law_are_refused_with_what_it_takes(kept: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="needs 4 points or more, of at least two N and two D"):
        fit_joint_law(grid(power, 0.1, sizes=kept))


@pytest.mark.parametrize("power_of_n", [1.0, 0.5])
def test_n_and_d_that_vary_together_are_refused_until_one_point_parts_them(power_of_n: float) -> None:
    points = [point(10**8 * k, int(10**9 * k**power_of_n), 500.0 / k, 0.1) for k in (1, 4, 16, 64)]
    with pytest.raises(InputError, match="N and D vary together in all 4"):
        fit_joint_law(points)
    parted = fit_joint_law([*points, point(10**8, 10**10, 500.0, 0.1)])
    assert parted.forms


@pytest.mark.parametrize("gamma", [-0.4, 0.7, 1.8])
def test_the_data_law_gives_an_exact_exponent_back(gamma: float) -> None:
    points = [point(SIZES[1], tokens, 200 * (tokens / 1e11) ** gamma, 0.1) for tokens in BUDGETS]
    law = fit_data_law(points)
    assert law.gamma == pytest.approx(gamma)
    assert law.predict(SIZES[1], 1e12).f_star == pytest.approx(200 * 10**gamma)
    f_star, (low, high), _ = law.predict(SIZES[1], 1e12)
    assert low is not None and high is not None and low < f_star < high
    spread = np.std(np.log(BUDGETS)) * np.sqrt(3)
    assert law.gamma_interval == pytest.approx((gamma - 0.196 / spread, gamma + 0.196 / spread), rel=1e-3)


def test_two_budgets_without_intervals_have_an_exponent_but_no_interval() -> None:
    points = [CollapsePoint(params=1, tokens=tokens, f_star=float(tokens)) for tokens in (10, 100)]
    law = fit_data_law(points)
    assert law.gamma == pytest.approx(1)
    assert law.gamma_interval == law.predict(1, 1000).interval == (None, None)
    assert "no measure of error" in law.caveats[0]


def test_a_data_law_of_several_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="5 N and 3 D; the law of D needs one N"):
        fit_data_law(grid(power, 0.1))
