"""The quick recovery study meets its targets, and the study's own arithmetic is right, or its targets prove nothing."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from kisl_plugin.fit.curve_estimate import fit_sweeps
from kisl_plugin.fit.text import FORM_REJECTED, NO_COLLAPSE, OK

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks" / "fit_recovery.py").is_file():
    pytest.skip("the benchmarks are in a checkout only", allow_module_level=True)
sys.path.append(str(ROOT / "benchmarks"))

import fit_recovery  # noqa: E402
from recovery import optimum, study  # noqa: E402
from recovery.draws import counts, log_odds, same_triples  # noqa: E402
from recovery.optimum import Counted, maximum  # noqa: E402
from recovery.plan import QUICK, shared  # noqa: E402
from recovery.seen import Seen, look  # noqa: E402
from recovery.truths import SHAPES, FloatArray, Truth, all_truths, largest_fall  # noqa: E402

PAGE = ROOT / "docs" / "fit_recovery.md"
truths = st.sampled_from(all_truths())


def targets_of(page: str) -> list[str]:
    """The names of the targets in the page's first table."""
    table = page.split("## Targets\n\n", 1)[1].split("\n\n", 1)[0]
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]


def run(monkeypatch: pytest.MonkeyPatch, out: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["fit_recovery.py", "--quick", "--out", str(out)])
    return fit_recovery.main()


def test_the_quick_study_meets_every_target_of_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "quick.md"
    assert run(monkeypatch, out) == 0, out.read_text()
    assert targets_of(out.read_text()) == targets_of(PAGE.read_text(encoding="utf-8"))


def test_intervals_that_miss_the_truth_fail_the_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def shifted(frequency: FloatArray, correct: FloatArray, items: int, floor: float) -> Seen:
        seen = look(frequency, correct, items, floor)
        return replace(seen, low=seen.low + 0.1, high=seen.high + 0.1)

    monkeypatch.setattr(study, "look", shifted)
    monkeypatch.setattr(study, "QUICKLY", study.QUICKLY[:1])
    monkeypatch.setattr(fit_recovery, "STUDIES", (study,))
    out = tmp_path / "shifted.md"
    assert run(monkeypatch, out) == 1
    assert "missed (1)" in out.read_text()


def test_the_page_tells_of_every_truth() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    told = {tuple(row[:6]) for row in rows}
    for truth in all_truths():
        values = (truth.f_star, truth.b, truth.peak, truth.items, truth.points, truth.floor)
        assert (f"| {values[0]:g}", *(f"{value:g}" for value in values[1:])) in told


def test_draws_do_not_depend_on_the_number_of_processes() -> None:
    plan = replace(QUICK, fewest=20, usual=30, most=40, compared=5)
    work, some = partial(study.recover, plan), [Truth(300, 0.3, 0.7, 500, 8), Truth(30, 0.6, 0.7, 500, 6)]
    one, two = (shared("test", work, some, processes) for processes in (1, 2))
    assert repr(one) == repr(two)  # NaN is not equal to itself, its text is


@given(truths)
def test_the_bound_of_the_variance_is_that_of_a_b_and_c(truth: Truth) -> None:
    """By another parametrisation, with numeric derivatives, and the delta method for log(b / c)."""
    height = (truth.peak - truth.floor) / (1 - truth.floor)
    b, c = truth.b, truth.b / truth.f_star
    log_a = np.log(height) - b * np.log(truth.f_star) + b

    def rates(point: FloatArray) -> FloatArray:
        shape = np.exp(point[0]) * truth.frequency ** point[1] * np.exp(-point[2] * truth.frequency)
        return np.asarray(truth.floor + (1 - truth.floor) * shape)

    point, steps = np.array([log_a, b, c]), np.diag([1e-5, 1e-6, 1e-4 * c])
    slope = np.stack([(rates(point + step) - rates(point - step)) / (2 * step.sum()) for step in steps])
    scale = np.array([1, 1, c])  # or the matrix is hardly invertible
    slope *= scale[:, None]
    covariance = np.linalg.inv((slope * truth.items / (truth.rates * (1 - truth.rates))) @ slope.T)
    by_b_and_c = np.array([0, 1 / b, -1 / c]) * scale
    assert rates(point) == pytest.approx(truth.rates)
    assert truth.least_variance() == pytest.approx(by_b_and_c @ covariance @ by_b_and_c, rel=1e-4)


@given(st.floats(0.01, 0.99), st.floats(0.05, 2))
def test_log_odds_give_the_rate_in_the_mean_over_runs_and_triples(rate: float, spread: float) -> None:
    middle = log_odds(np.array([rate]), spread)[0]
    mean, _ = quad(lambda z: expit(middle + spread * z) * norm.pdf(z), -9, 9)
    assert mean == pytest.approx(rate, abs=1e-6)


@given(truths, st.integers(1, 3))
def test_counts_are_those_of_the_truth_also_where_it_vanishes(truth: Truth, seeds: int) -> None:
    drawn = counts(np.random.default_rng(1), truth.rates, truth.items, 400, seeds)
    expected = np.repeat(truth.rates * truth.items, seeds)
    error = np.sqrt(expected / 400)
    assert (np.abs(drawn.mean(axis=0) - expected) <= 5 * error + 1e-2).all()


@pytest.mark.parametrize("seeds", [1, 3])
def test_many_paired_sweeps_are_fitted_as_each_alone(seeds: int) -> None:
    truth = Truth(200, 0.5, 0.5, 200, 6)
    drawn = (truth.frequency, truth.rates, 0.0, truth.items)
    _, together = same_triples(np.random.default_rng(1), *drawn, 3, seeds, 0.1, 0.6)
    _, alone = same_triples(np.random.default_rng(1), *drawn, 1, seeds, 0.1, 0.6)
    every, first = fit_sweeps(together), fit_sweeps(alone)
    assert every.theta[0] == pytest.approx(first.theta[0], rel=1e-6)
    assert every.uncertainty.covariance[0] == pytest.approx(first.uncertainty.covariance[0], rel=1e-4)


def test_a_verdict_is_wrong_only_where_it_denies_the_truth() -> None:
    status, none = np.array([OK, NO_COLLAPSE, NO_COLLAPSE, FORM_REJECTED]), np.full(4, np.nan)
    seen = Seen(status, none, none, none, allowed=np.array([0.0, 0.05, 0.2, 0.0]))
    assert seen.wrong(ok_is_wrong=False, fall=0.1).tolist() == [False, True, False, False]
    assert seen.wrong(ok_is_wrong=True, fall=0.0).tolist() == [True, False, False, False]
    assert seen.covers(3.0).all()


@given(truths)
def test_a_truth_falls_by_the_most_that_two_frequencies_show(truth: Truth) -> None:
    rates = truth.rates
    pairs = [rates[i] - rates[j] for j in range(len(rates)) for i in range(j + 1)]
    assert largest_fall(rates) == max(pairs)
    assert rates.max() <= truth.peak <= 1
    assert largest_fall(rates) == 0 or not truth.never_falls


def test_shapes_are_what_they_are_called() -> None:
    never, two, other = SHAPES.values()
    assert (len(never), len(two), len(other)) >= (8, 4, 4)
    turns = {name: np.sign(np.diff(rates)) for group in SHAPES.values() for name, rates in group.items()}
    changes = {name: np.flatnonzero(np.diff(turn[turn != 0]) != 0) for name, turn in turns.items()}
    assert all((turns[name] >= 0).all() for name in never)
    assert all(len(changes[name]) >= 2 for name in two)
    assert all(len(changes[name]) == 1 and turns[name][0] > 0 for name in other)


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_the_dense_grid_finds_the_truth_of_counts_without_chance(floor: float) -> None:
    truth = Truth(700, 0.37, 0.63, 1000, 8, floor)
    rates, total = truth.rates, np.full(8, 1000.0)
    found = maximum(Counted(truth.frequency, total * rates, total, floor))
    assert found == pytest.approx(float(total @ (rates * np.log(rates) + (1 - rates) * np.log1p(-rates))), abs=1e-8)


@pytest.mark.parametrize("wrong", [-1e-4, 1e-4])
def test_an_optimum_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    found = optimum.survey

    def off(cells: object) -> object:
        best = found(cells)
        return replace(best, log_likelihood=best.log_likelihood + wrong)

    monkeypatch.setattr(optimum, "survey", off)
    monkeypatch.setattr(optimum, "CASES", dict(list(optimum.CASES.items())[:1]))
    (target,) = optimum.run(QUICK, 1).targets
    assert not target.met
