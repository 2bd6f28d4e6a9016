"""The recovery study: it meets its targets, it fails where they are missed, and its own arithmetic is right."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not (BENCHMARKS / "fit_recovery.py").is_file():
    pytest.skip("the benchmarks are in a checkout only", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

import fit_recovery as study  # noqa: E402
import fit_single_runs as single_runs  # noqa: E402

TRUTHS = study.truths(quick=False)
curves = st.sampled_from([truth for truth in TRUTHS if truth.group == study.FORM])


def test_the_quick_study_meets_every_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_recovery.py", "--quick"])
    status = study.main()
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "missed" not in printed


def test_intervals_that_miss_the_truth_and_wrong_verdicts_miss_their_targets() -> None:
    measured = [study.measure(truth, 50) for truth in study.truths(quick=True)[:4]]
    assert not any(misses for *_, misses in study.rows([*measured, replace(measured[0], truth=NOISY)]))
    poor = [replace(one, covered=35, wrong=20, squares=one.squares * 2) for one in measured]
    missed = [what for what, *_, misses in study.rows([*poor, replace(poor[0], truth=NOISY)]) if misses]
    assert len(missed) == 5


NOISY = next(truth for truth in TRUTHS if truth.group == study.NOISE)


@given(curves)
def test_the_bound_of_the_variance_is_that_of_a_b_and_c(truth: Any) -> None:
    """By another parametrisation, with numeric derivatives, and the delta method for log(b / c)."""
    log_height, b, log_f_star = truth.theta
    c = b / np.exp(log_f_star)

    def rates(point: Any) -> Any:
        shape = np.exp(point[0]) * study.GRID ** point[1] * np.exp(-point[2] * study.GRID)
        return truth.floor + (1 - truth.floor) * shape

    point, steps = np.array([log_height - b * log_f_star + b, b, c]), np.diag([1e-5, 1e-6, 1e-4 * c])
    slope = np.stack([(rates(point + step) - rates(point - step)) / (2 * step.sum()) for step in steps])
    scale = np.array([1, 1, c])  # or the matrix is hardly invertible
    slope *= scale[:, None]
    covariance = np.linalg.inv((slope * truth.items / (truth.rates * (1 - truth.rates))) @ slope.T)
    by_b_and_c = np.array([0, 1 / b, -1 / c]) * scale
    assert rates(point) == pytest.approx(truth.rates)
    assert truth.variance_bound() == pytest.approx(by_b_and_c @ covariance @ by_b_and_c, rel=1e-4)


@settings(max_examples=10, deadline=None)
@given(curves, st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.6]))
def test_counts_are_those_of_the_truth_in_the_mean(truth: Any, tau: float, difficulty: float) -> None:
    noisy = replace(truth, items=200, seeds=2, tau=tau, difficulty=difficulty)
    shares = study.draw(noisy, 60, np.random.default_rng(1)).likelihood.share
    error = shares.std(axis=0) / np.sqrt(60) + 1 / (200 * 2 * 60)
    assert (np.abs(shares.mean(axis=0) - truth.rates) <= 5 * error).all()


def test_shapes_are_what_they_are_called() -> None:
    for truth in TRUTHS:
        turn = np.sign(np.diff(truth.rates))
        changes = np.flatnonzero(np.diff(turn[turn != 0]))
        if truth.group == study.NEVER:
            assert (turn >= 0).all() and truth.largest_fall == 0
        elif truth.group == study.TWO:
            assert len(changes) >= 2
        elif truth.group == study.OTHER:
            assert len(changes) == 1 and turn[0] > 0


def test_the_study_of_single_runs_measures_its_goals_and_names_those_missed() -> None:
    measured = single_runs.measure((single_runs.FORM, 0.1, 3000), 10)
    assert measured.ok + measured.conditional >= 0.8
    assert not single_runs.missed_goals(single_runs.FORM, measured, 10)
    poor = measured._replace(ok=0.1, conditional=0.0, covered=0.5)
    assert len(single_runs.missed_goals(single_runs.FORM, poor, 400)) == 2
    assert single_runs.missed_goals("flat", measured, 400)
    assert single_runs.missed_goals(single_runs.TWO, measured._replace(ok=0.5), 400)
