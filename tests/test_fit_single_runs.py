"""One run a frequency: what is reported where only the fit itself could tell run-to-run noise from a wrong form."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fit_files import rate, results, run_card, write
from scipy.special import expit, logit

from kisl_plugin.cli.fit import main
from kisl_plugin.fit import CollapseCurve, FitOptions, fit_collapse_curve, fit_results
from kisl_plugin.fit.likelihood import FloatArray
from kisl_plugin.fit.noise import RunNoise
from kisl_plugin.fit.text import NO_COLLAPSE, NOT_UNIMODAL, OK, OK_IF_RUNS_VARY, render_report

GRID = np.array([10, 20, 50, 100, 200, 500, 1000, 2000, 5000], dtype=float)
TRUE = rate(GRID, 300.0, 0.6, 0.8, 0.25)
TWO_PEAKS = np.array([0.35, 0.5, 0.75, 0.55, 0.55, 0.75, 0.6, 0.4, 0.3])


def noisy(rates: FloatArray, tau: float, rng: np.random.Generator, items: int = 3000) -> FloatArray:
    """Right answers of one run a rate, with noise of the run."""
    share = expit(logit(rates) + tau * rng.standard_normal(len(rates)))
    return np.asarray(rng.binomial(items, share), dtype=float)


def curves_of(rates: FloatArray, tau: float, draws: int = 12, noise: RunNoise | None = None) -> list[CollapseCurve]:
    rng, total = np.random.default_rng(5), np.full(len(GRID), 3000)
    return [fit_collapse_curve(GRID, noisy(rates, tau, rng), total, 0.25, noise=noise) for _ in range(draws)]


@pytest.mark.parametrize("tau", [0.1, 0.2])
def test_a_true_curve_is_reported_on_the_condition_that_runs_vary(tau: float) -> None:
    curves = curves_of(TRUE, tau)
    assert sum(curve.ok for curve in curves) >= 10
    conditional = [curve for curve in curves if curve.status == OK_IF_RUNS_VARY]
    assert len(conditional) >= 8
    assert all(
        0 < curve.needed_tau <= curve.tau and f"{curve.needed_tau:.2f}" in curve.message for curve in conditional
    )
    ends = [curve.f_star_interval for curve in curves if curve.ok]
    assert sum(low < 300 < high for low, high in ends if low and high) >= len(ends) - 2


def test_two_peaks_are_not_plainly_ok_and_rejected_where_noise_would_have_to_be_large() -> None:
    curves = [curve for tau in (0.0, 0.1) for curve in curves_of(TWO_PEAKS, tau)]
    assert not any(curve.status == OK for curve in curves)
    assert sum(curve.status == NOT_UNIMODAL for curve in curves) >= 18


@pytest.mark.parametrize("rates", [0.25 + 0.6 * GRID / (GRID + 80), np.minimum(0.7, 0.2 + GRID / 300)])
def test_noise_between_single_runs_on_a_flat_tail_is_no_fall(rates: FloatArray) -> None:
    curves = curves_of(rates, 0.2)
    assert sum(curve.ok for curve in curves) <= 1
    assert sum(curve.status.startswith(NO_COLLAPSE) for curve in curves) >= 9


def test_a_given_noise_makes_a_curve_plainly_ok_and_none_takes_it_back() -> None:
    given = curves_of(TRUE, 0.2, noise=RunNoise(0.2, np.inf, "--noise"))
    assert sum(curve.status == OK for curve in given) >= 10
    assert {(curve.tau, curve.tau_source) for curve in given} == {(0.2, "--noise")}
    without = curves_of(TRUE, 0.2, noise=RunNoise(0.0, np.inf, "--noise"))
    assert sum(curve.ok for curve in without) <= 2


def write_size(folder: Path, params: int, f_star: float, seeds: dict[int, int], tau: float = 0.2) -> None:
    """A size with one run a frequency, or as many as `seeds` says."""
    rng = np.random.default_rng(params)
    rates = rate(GRID, f_star, 0.6, 0.8, 0.25)
    triples = {"source": "x", "count": 3000, "control": 100, "sha256": "ab"}
    for at, F in enumerate(GRID.astype(int).tolist()):
        for seed in range(seeds.get(F, 1)):
            right = noisy(rates[at : at + 1], tau, rng)[0]
            card = run_card(frequency=F, seed=seed, model={"params": params}, triples=triples)
            data = results(card, right / 3000)
            data["n-samples"] = {}
            write(folder / f"{params}_{F}_{seed}" / "results_1.json", data)
    baseline = results(run_card(frequency=0, model={"params": params}, triples=triples), 0.25)
    write(folder / f"{params}_0" / "results_1.json", {**baseline, "n-samples": {}})


def test_the_advice_names_the_fewest_runs_that_settle_it_and_they_do(tmp_path: Path) -> None:
    write_size(tmp_path, 138_000_000, 300.0, {})
    (before,) = fit_results([tmp_path]).curves
    assert before.curve.status == OK_IF_RUNS_VARY
    assert before.curve.message.endswith("train 3 more runs at F = 200 of this size with other seeds")
    write_size(tmp_path, 138_000_000, 300.0, {200: 4})
    (after,) = fit_results([tmp_path]).curves
    assert (after.curve.status, after.curve.tau_source) == (OK, "seeds")


SIZES = {137_000_000: 500.0, 300_000_000: 400.0, 1_050_000_000: 250.0, 3_000_000_000: 200.0}


def test_a_sweep_of_single_runs_has_a_law_that_says_what_it_rests_on(tmp_path: Path) -> None:
    for params, f_star in SIZES.items():
        write_size(tmp_path / "in", params, f_star, {})
    outcome = CliRunner().invoke(main, [str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert outcome.exit_code == 0, outcome.output
    flat = " ".join(outcome.output.split())
    fitted = json.loads((tmp_path / "out" / "fit.json").read_text())
    conditional = sum(curve["status"] == OK_IF_RUNS_VARY for curve in fitted["curves"])
    assert conditional >= 3
    assert fitted["law"]["conditional"] == conditional
    assert f"{conditional} of its 4 collapse points are ok if runs vary" in flat
    assert len(re.findall(r"\)\*$", outcome.output, re.MULTILINE)) == conditional
    assert "4 of 4 curves rise, then fall" in flat


def test_sizes_without_seeds_borrow_the_noise_of_those_with_seeds_unless_it_is_given(tmp_path: Path) -> None:
    for params, f_star in SIZES.items():
        seeds = dict.fromkeys(map(int, GRID), 3) if params == 300_000_000 else {}
        write_size(tmp_path, params, f_star, seeds)
    report = fit_results([tmp_path])
    by_size = {one.params: one.curve for one in report.curves}
    donor = by_size.pop(300_000_000)
    assert donor.tau == pytest.approx(0.2, abs=0.07)
    assert {curve.tau_source for curve in by_size.values()} == {"the seeds of 300M on 2.6B tokens"}
    assert {(curve.tau, curve.df) for curve in by_size.values()} == {(donor.tau, donor.df)}
    assert [curve.status for curve in by_size.values()] == [OK] * 3
    assert "from the seeds of 300M on 2.6B tokens, df = " in " ".join(render_report(report).split())
    given = {one.params: one.curve for one in fit_results([tmp_path], options=FitOptions(noise=0.3)).curves}
    assert given.pop(300_000_000) == donor
    assert {curve.tau for curve in given.values()} == {0.3}


@pytest.mark.parametrize(
    ("tau", "says"), [("-1", "--noise -1: expected"), ("nan", "--noise nan: expected"), ("x", "x")]
)
def test_a_noise_that_is_no_standard_deviation_is_one_line(tmp_path: Path, tau: str, says: str) -> None:
    outcome = CliRunner().invoke(main, [str(tmp_path), "--noise", tau])
    assert outcome.exit_code == 2
    assert says in outcome.output.splitlines()[-1]
