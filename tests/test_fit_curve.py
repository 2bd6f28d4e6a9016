import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fit_files import rate
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_collapse_curve
from kisl_plugin.fit.likelihood import FloatArray
from kisl_plugin.fit.text import (
    FORM_REJECTED,
    NO_COLLAPSE,
    NOT_IDENTIFIED,
    NOT_UNIMODAL,
    OK,
    OK_IF_RUNS_VARY,
    RUNS_DISAGREE,
    TOO_FEW_POINTS,
)

PAPERS_GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000], dtype=float)


@st.composite
def counts(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], float]:
    frequency = draw(st.lists(st.integers(1, 20_000), min_size=1, max_size=9))
    total = draw(st.lists(st.integers(1, 5000), min_size=len(frequency), max_size=len(frequency)))
    correct = [draw(st.integers(0, asked)) for asked in total]
    return frequency, correct, total, draw(st.sampled_from([0.0, 0.25, 0.9]))


STATUSES = (OK, NO_COLLAPSE, NOT_UNIMODAL, FORM_REJECTED, NOT_IDENTIFIED, TOO_FEW_POINTS)
GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden_curves.jsonl").read_text().splitlines()]


def staggered(correct: list[int], items: int) -> FloatArray:
    """Answers [items, runs]: of triples ranked by difficulty, the ranks moving on a little from run to run."""
    ranks = [(np.arange(items) + run * items // 40) % items for run in range(len(correct))]
    return np.array([rank < right for rank, right in zip(ranks, correct, strict=True)], dtype=float).T


@pytest.mark.parametrize("expected", GOLDEN)
def test_results_are_those_of_the_first_release(expected: dict[str, Any]) -> None:
    """Computed by the engine of commit 3b737a3, which was another implementation of the same estimator.

    Four statuses of single runs are newer: there the fall test now includes the lack of fit, as the intervals do, and
    what run-to-run noise would explain is not rejected. Two more are of seeds with tau above 0.6, which disagree.
    """
    data = {key: expected[key] for key in ("frequency", "correct", "total", "floor", "floor_error")}
    paired = staggered(data["correct"], data["total"][0]) if expected["paired"] else None
    curve = fit_collapse_curve(**data, outcomes=paired)
    assert (curve.status, curve.df) == (expected["status"], expected["df"] or np.inf)
    names = ("f_star", "f_star_interval", "peak_interval", "tau")
    before = np.hstack([expected[name] for name in names]).astype(float)  # None becomes NaN
    after = np.hstack([getattr(curve, name) for name in names]).astype(float)
    assert after == pytest.approx(before, rel=2e-5, abs=1e-6, nan_ok=True)


def test_the_golden_results_hold_every_status() -> None:
    assert {status for status in STATUSES if any(line["status"].startswith(status) for line in GOLDEN)} == set(STATUSES)


@pytest.mark.parametrize(("f_star", "floor"), [(100.0, 0.0), (400.0, 0.25)])
def test_simulated_runs_recover_the_collapse_point_and_the_intervals_cover_it(f_star: float, floor: float) -> None:
    rng = np.random.default_rng(2)
    truth = rate(PAPERS_GRID, f_star, floor=floor)
    peak = floor + (1 - floor) * 0.7
    total = np.full(8, 1000)
    curves = [fit_collapse_curve(PAPERS_GRID, rng.binomial(total, truth), total, floor) for _ in range(15)]
    assert np.median([curve.f_star for curve in curves]) == pytest.approx(f_star, rel=0.03)
    assert sum(curve.ok for curve in curves) >= 13
    covered = [low < f_star < high for curve in curves for low, high in [curve.f_star_interval] if low and high]
    assert sum(covered) >= 12
    assert sum(curve.peak_interval[0] < peak < curve.peak_interval[1] for curve in curves) >= 12


def test_exact_counts_give_the_parameters_back() -> None:
    total = np.full(8, 10**9)
    curve = fit_collapse_curve(PAPERS_GRID, np.round(rate(PAPERS_GRID, 300.0, 0.4, 0.8, 0.25) * total), total, 0.25)
    assert curve.ok
    assert (curve.f_star, curve.b, curve.peak) == pytest.approx((300.0, 0.4, 0.25 + 0.75 * 0.8), rel=1e-4)
    shape = curve.a * PAPERS_GRID**curve.b * np.exp(-curve.c * PAPERS_GRID)
    assert curve.rate(PAPERS_GRID) == pytest.approx(0.25 + 0.75 * shape, rel=1e-9)


def test_a_floor_that_is_ignored_moves_the_collapse_point() -> None:
    total = np.full(8, 3000)
    correct = np.random.default_rng(0).binomial(total, rate(PAPERS_GRID, 500.0, floor=0.25))
    right, wrong = (fit_collapse_curve(PAPERS_GRID, correct, total, floor) for floor in (0.25, 0.0))
    low, high = right.f_star_interval
    assert low is not None
    assert high is not None
    assert low < 500 < high
    assert wrong.status == OK_IF_RUNS_VARY
    assert 0 < wrong.needed_tau < wrong.tau
    assert not low < wrong.f_star < high


@pytest.mark.parametrize(
    "shares",
    [
        PAPERS_GRID / (PAPERS_GRID + 80),
        np.full(8, 0.5),
        np.minimum(0.7, PAPERS_GRID / 300),
        rate(PAPERS_GRID, 20_000.0),
    ],
    ids=["saturates", "is flat", "rises, then is flat", "collapses beyond the frequencies"],
)
def test_a_curve_that_does_not_fall_has_no_collapse_point(shares: FloatArray) -> None:
    rng = np.random.default_rng(5)
    total = np.full(8, 3000)
    curves = [fit_collapse_curve(PAPERS_GRID, rng.binomial(total, shares), total) for _ in range(5)]
    assert sum(curve.status == f"{NO_COLLAPSE}5000" for curve in curves) >= 4


def test_a_curve_that_only_falls_does_not_show_where_it_peaked() -> None:
    total = np.full(8, 3000)
    correct = np.random.default_rng(5).binomial(total, rate(PAPERS_GRID, 0.5, b=0.001))
    curve = fit_collapse_curve(PAPERS_GRID, correct, total)
    assert curve.status == NOT_IDENTIFIED
    assert "smaller frequencies" in curve.message


def test_two_peaks_are_not_called_a_collapse_curve() -> None:
    correct = np.array([100, 900, 100, 100, 900, 100, 100, 100])
    assert fit_collapse_curve(PAPERS_GRID, correct, np.full(8, 1000)).status == NOT_UNIMODAL


def test_three_frequencies_are_too_few() -> None:
    curve = fit_collapse_curve([10, 10, 20, 40], [5, 5, 8, 3], [10, 10, 10, 10])
    assert curve.status == TOO_FEW_POINTS
    assert np.isnan(curve.f_star)


@settings(max_examples=20, deadline=None)
@given(counts())
def test_any_counts_give_a_curve_that_is_consistent(data: tuple[list[int], list[int], list[int], float]) -> None:
    curve = fit_collapse_curve(*data)
    assert curve.status.startswith((*STATUSES, RUNS_DISAGREE))
    if curve.status == TOO_FEW_POINTS:
        return
    assert data[3] <= curve.peak_interval[0] <= curve.peak + 1e-6 <= curve.peak_interval[1] + 2e-6 <= 1 + 2e-6
    assert curve.deviance >= 0
    if not np.isnan(curve.f_star):
        assert curve.f_star == pytest.approx(curve.b / curve.c)
        low, high = curve.f_star_interval
        assert (low or 0) <= curve.f_star * (1 + 1e-6)
        assert high is None or high >= curve.f_star * (1 - 1e-6)
    if curve.ok:
        assert curve.frequency_range[0] < curve.f_star < curve.frequency_range[1]


@settings(max_examples=6, deadline=None)
@given(counts(), st.randoms(use_true_random=False))
def test_the_order_of_the_runs_changes_nothing(
    data: tuple[list[int], list[int], list[int], float], random: Random
) -> None:
    frequency, correct, total, floor = data
    rows = list(zip(frequency, correct, total, strict=True))
    random.shuffle(rows)
    assert repr(fit_collapse_curve(*zip(*rows, strict=True), floor=floor)) == repr(  # type: ignore[arg-type]
        fit_collapse_curve(frequency, correct, total, floor)
    )


def test_a_floor_that_is_itself_uncertain_widens_the_interval() -> None:
    total = np.full(8, 3000)
    correct = np.random.default_rng(0).binomial(total, rate(PAPERS_GRID, 500.0, floor=0.25))
    exact, uncertain = (
        fit_collapse_curve(PAPERS_GRID, correct, total, 0.25, floor_error=error) for error in (0.0, 0.03)
    )
    assert exact.f_star == uncertain.f_star
    assert uncertain.f_star_interval[0] < exact.f_star_interval[0]  # type: ignore[operator]
    assert uncertain.f_star_interval[1] > exact.f_star_interval[1]  # type: ignore[operator]


def test_a_fall_that_only_rises_would_fit_tells_the_largest_that_the_data_allow() -> None:
    curve = fit_collapse_curve(PAPERS_GRID, [100, 300, 400, 450, 480, 500, 500, 499], np.full(8, 600))
    assert curve.status == f"{NO_COLLAPSE}5000"
    assert f"at most {curve.largest_fall:.2g}" in curve.message
    assert 1 / 600 < curve.largest_fall < 0.08


def test_the_band_holds_the_true_curve() -> None:
    rng, total, truth = np.random.default_rng(3), np.full(8, 2000), rate(PAPERS_GRID, 300.0, floor=0.25)
    inside = []
    for _ in range(25):
        low, high = fit_collapse_curve(PAPERS_GRID, rng.binomial(total, truth), total, 0.25).band(PAPERS_GRID)
        inside.append((low <= truth) & (truth <= high))
    assert 0.88 <= np.mean(inside) <= 1.0


@pytest.mark.parametrize(
    ("frequency", "correct", "total", "floor", "message"),
    [
        ([0, 1], [1, 1], [2, 2], 0.0, r"frequency\[0\] is 0; .* measure the floor"),
        ([1, 2], [1, 3], [2, 2], 0.0, r"correct\[1\] is 3; expected a whole number from 0 to total"),
        ([1, 2], [0.5, 1], [2, 2], 0.0, r"correct\[0\] is 0.5"),
        ([1, 2], [0, 0], [2, 0], 0.0, r"total\[1\] is 0; expected a whole number above 0"),
        ([1, 2], [0, 0], [2], 0.0, "shapes"),
        ([], [], [], 0.0, "shapes"),
        ([1, 2], [0, 0], [2, 2], 1.0, "floor is 1.0; expected"),
        ([1, float("nan")], [0, 0], [2, 2], 0.0, r"frequency\[1\] is nan"),
    ],
)
def test_wrong_counts_are_refused(
    frequency: list[float], correct: list[int], total: list[int], floor: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit_collapse_curve(frequency, correct, total, floor)


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([[1.0], [0.0]], "expected a row per triple and 2 columns"),
        ([[1.0, 0.5], [0.0, 1.0]], "other values than 1"),
        ([[1.0, 1.0], [0.0, 1.0]], "outcomes of run 1 have 2 right; its counts have 1"),
        ([[1.0, 1.0], [0.0, float("nan")]], "outcomes of run 1 have 1 items; its counts have 2"),
    ],
)
def test_outcomes_that_are_not_those_of_the_counts_are_refused(outcomes: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_collapse_curve([1, 2], [1, 1], [2, 2], outcomes=outcomes)


def test_a_second_peak_above_the_first_is_no_rise_that_never_falls() -> None:
    curve = fit_collapse_curve(PAPERS_GRID, [200, 400, 600, 700, 400, 400, 600, 800], np.full(8, 1000))
    assert curve.status == NOT_UNIMODAL
    assert "does not rise once and then fall" in curve.message


def test_no_fall_seen_in_counts_of_nothing_is_bounded_as_exactly_as_counts_can() -> None:
    curve = fit_collapse_curve(PAPERS_GRID, np.zeros(8), np.full(8, 400))
    assert curve.status == f"{NO_COLLAPSE}5000"
    assert 1 - (1 - curve.largest_fall) ** 400 >= 0.95  # a share so small would have shown an item


def test_a_higher_floor_moves_f_star_and_the_curve_as_far_as_the_band_says() -> None:
    total, error = np.full(8, 10**9), 0.02
    correct = np.round(rate(PAPERS_GRID, 500.0, floor=0.25) * total)
    curve = fit_collapse_curve(PAPERS_GRID, correct, total, 0.25, floor_error=error)
    higher = fit_collapse_curve(PAPERS_GRID, correct, total, 0.25 + error / 10)
    moved = 10 * np.abs(higher.rate([10.0]) - curve.rate([10.0]))
    low, high = curve.band([10.0])
    assert (high - low) / 2 / curve.quantile == pytest.approx(moved, rel=0.2)
    ends = np.log(curve.f_star_interval)  # type: ignore[arg-type]
    step = 10 * abs(np.log(higher.f_star / curve.f_star))
    assert np.diff(ends)[0] / 2 / curve.quantile == pytest.approx(step, rel=0.2)
    peak = 10 * abs(higher.peak - curve.peak)
    assert np.diff(curve.peak_interval)[0] / 2 / curve.quantile == pytest.approx(peak, rel=0.2)


@pytest.mark.parametrize("tau", [0.0, 0.2])
def test_residuals_of_the_form_with_its_noise_have_a_variance_of_one(tau: float) -> None:
    rng = np.random.default_rng(5)
    F = np.repeat([10.0, 30, 100, 200, 300, 600, 1200, 3000], 30)
    odds = np.log(rate(F, 300.0, 0.6, 0.8, 0.25) ** -1 - 1) + rng.normal(0, tau, len(F))
    n = np.full(len(F), 2000)
    k = rng.binomial(n, 1 / (1 + np.exp(odds)))
    residuals = fit_collapse_curve(F, k, n, 0.25).residuals(F, k, n)
    assert np.mean(residuals**2) == pytest.approx(1, abs=0.2)
    assert abs(np.mean(residuals)) < 0.2
    assert 0.9 < np.mean(np.abs(residuals) < 2) < 0.99


def test_a_residual_is_zero_on_the_curve_and_unknown_without_one() -> None:
    F, n = np.array([10.0, 30, 100, 300, 1000, 3000]), np.full(6, 10**6)
    curve = fit_collapse_curve(F, np.round(n * rate(F, 300.0)), n)
    assert np.abs(curve.residuals(F, n * rate(F, 300.0), n)).max() < 0.05
    v = curve.rate(300.0) * (1 - curve.rate(300.0))
    (two,) = curve.residuals([300.0], [100 * curve.rate(300.0) + 2 * np.sqrt(100 * v)], [100])
    assert two == pytest.approx(2)
    assert np.isnan(fit_collapse_curve(F[:3], n[:3] // 2, n[:3]).residuals(F, n, n)).all()
