import numpy as np
import pytest

from kisl_plugin.errors import InputError
from kisl_plugin.fit.collapse_points import CollapsePoint
from kisl_plugin.fit.hold_out import Verdict, hold_out, law_verdicts
from kisl_plugin.fit.law import fit_infusion_law

SIZES = (137_000_000, 300_000_000, 562_000_000, 1_050_000_000, 3_000_000_000)
TOKENS = 100_000_000_000
LAW = [400 * (size / SIZES[0]) ** -0.5 for size in SIZES]


def points(f_star: list[float], error: float | None = 0.1, tokens: int = TOKENS) -> list[CollapsePoint]:
    ends = (None, None) if error is None else (np.exp(-1.96 * error), np.exp(1.96 * error))
    return [
        CollapsePoint(
            params=size,
            tokens=tokens,
            f_star=value,
            interval=(None, None) if error is None else (value * float(ends[0]), value * float(ends[1])),
        )
        for size, value in zip(SIZES, f_star, strict=False)
    ]


def falls_with_size(models: list[CollapsePoint]) -> bool | None:
    return law_verdicts([], models)[1].passed


def extrapolates(models: list[CollapsePoint]) -> Verdict:
    return law_verdicts([], models)[2]


def test_what_is_held_out_is_predicted_by_the_others_alone() -> None:
    models = points(LAW)
    (result,) = hold_out(models, SIZES[-1])
    law = fit_infusion_law(
        [point.compute for point in models[:-1]], LAW[:-1], [point.interval for point in models[:-1]]
    )
    assert result.predicted == law.predict(models[-1].compute)
    assert result.interval == law.interval(models[-1].compute)
    assert result.ratio == pytest.approx(1)
    assert result.inside is True
    moved = [*models[:-1], *points([*LAW[:-1], 10 * LAW[-1]])[-1:]]
    (missed,) = hold_out(moved, SIZES[-1])
    assert missed.predicted == result.predicted
    assert missed.ratio == pytest.approx(result.ratio / 10)
    assert missed.inside is False
    assert "90.0 % too low, outside the intervals" in missed.words


def test_a_size_is_held_out_at_each_budget_that_has_three_others() -> None:
    models = [*points(LAW), *points(LAW, tokens=2 * TOKENS)]
    assert [result.tokens for result in hold_out(models, SIZES[0])] == [2 * TOKENS, TOKENS]


def test_holding_out_a_size_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InputError, match="hold_out 7: no collapse point has this N; expected one of 137000000, "):
        hold_out(points(LAW), 7)
    with pytest.raises(InputError, match="the other sizes make no law; it needs collapse points of 3"):
        hold_out(points(LAW[:3]), SIZES[0])


def test_where_no_budget_has_three_other_sizes_the_law_of_n_and_d_predicts() -> None:
    models = [*points(LAW[:3]), *points([2 * value for value in LAW[:3]], tokens=2 * TOKENS)]
    result = hold_out(models, SIZES[2])
    assert [point.tokens for point in result] == [2 * TOKENS, TOKENS]
    assert [point.ratio for point in result] == pytest.approx([1, 1], rel=0.05)
    assert all("law of N and D of 4 models" in point.source for point in result)
    assert "F*(C) of 4 other models" in hold_out(points(LAW), SIZES[0])[0].source


def on_a_ray(ratio: float = 20.0) -> list[CollapsePoint]:
    return [
        CollapsePoint(params=size, tokens=int(ratio * size), f_star=value, interval=(value * 0.82, value * 1.22))
        for size, value in zip(SIZES, LAW, strict=True)
    ]


@pytest.mark.parametrize("at", range(5))
def test_models_of_one_d_per_n_are_predicted_by_the_law_along_their_ray(at: int) -> None:
    (result,) = hold_out(on_a_ray(), SIZES[at])
    assert result.source == "the infusion law F*(C) of 4 other models along D = 20·N"
    assert result.ratio == pytest.approx(1, abs=0.05)
    assert result.inside is True
    assert extrapolates(on_a_ray()).passed is True


def test_a_model_off_the_ray_is_not_predicted_by_the_law_along_it() -> None:
    models = [*on_a_ray()[:4], *on_a_ray(60.0)[4:]]
    with pytest.raises(InputError, match="the other sizes make no law"):
        hold_out(models, SIZES[4])


def test_three_other_models_without_intervals_predict_without_one() -> None:
    (result,) = hold_out(points(LAW[:4], None), SIZES[3])
    assert result.inside is None
    assert result.interval == (None, None)
    assert "without an interval" in result.words


@pytest.mark.parametrize(
    ("statuses", "passed"),
    [
        (["ok", "ok"], True),
        (["ok", "no collapse up to F=1000"], True),
        (["ok", "not unimodal"], False),
        (["no collapse up to F=1000"], None),
        ([], None),
    ],
)
def test_one_curve_that_is_not_unimodal_fails_the_law(statuses: list[str], passed: bool | None) -> None:
    assert law_verdicts(statuses, [])[0].passed is passed


def test_monotony_is_judged_by_the_errors_not_by_signs() -> None:
    slightly_up = [*LAW[:3], LAW[2] * 1.05, LAW[4]]
    much_up = [*LAW[:3], LAW[2] * 3, LAW[4]]
    flat = [100.0, 101, 99, 102, 98]
    assert falls_with_size(points(LAW)) is True
    assert falls_with_size(points(slightly_up)) is True
    assert falls_with_size(points(much_up)) is False
    assert falls_with_size(points(flat)) is None
    assert falls_with_size(points(much_up, 2.0)) is None
    assert falls_with_size(points(much_up, None)) is None
    assert falls_with_size([*points(much_up), *points(LAW, None, 2 * TOKENS)]) is False


def test_sizes_are_compared_at_one_budget_only() -> None:
    rising_over_budgets = [
        CollapsePoint(
            params=size, tokens=TOKENS * (at + 1), f_star=100.0 * 2**at, interval=(99.0 * 2**at, 101.0 * 2**at)
        )
        for at, size in enumerate(SIZES)
    ]
    assert falls_with_size(rising_over_budgets) is None


def test_equal_models_are_seldom_said_to_rise_or_fall() -> None:
    rng = np.random.default_rng(0)
    verdicts = [falls_with_size(points((100 * np.exp(rng.normal(0, 0.1, 3))).tolist())) for _ in range(60)]
    assert verdicts.count(False) <= 8
    assert verdicts.count(True) <= 8


def test_the_largest_model_must_be_predicted_within_a_fifth() -> None:
    assert extrapolates(points(LAW)).passed is True
    assert extrapolates(points([*LAW[:4], LAW[4] * 1.1])).passed is True
    off = extrapolates(points([*LAW[:4], LAW[4] * 2]))
    assert off.passed is False
    assert "N = 3B at D = 100B, left out: predicted 50.0 % too low" in off.sentence
    vague = [extrapolates(points([*LAW[:4], LAW[4] * 1.4], error)) for error in (0.02, 0.3)]
    assert [verdict.passed for verdict in vague] == [False, False]
    assert ["the errors alone may miss by as much" in verdict.sentence for verdict in vague] == [False, True]
    assert extrapolates(points(LAW[:3])).passed is None


def test_all_three_verdicts_are_given_even_of_nothing() -> None:
    assert [verdict.passed for verdict in law_verdicts(["ok"] * 5, points(LAW))] == [True, True, True]
    assert [verdict.passed for verdict in law_verdicts([], [])] == [None, None, None]
