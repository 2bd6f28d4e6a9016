"""Which runs are one experiment: by their run cards, and by their counts where the cards do not tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_files import rate, results, run_card, write

from kisl_plugin.fit import FitOptions, FitReport, fit_results
from kisl_plugin.fit.figures import draw_curves
from kisl_plugin.fit.text import OK, RUNS_DISAGREE, curve_cells, curve_remarks, render_report
from kisl_plugin.fit.writing import report_entries

GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000])
TRIPLES = {"source": "x", "count": 3000, "control": 100, "sha256": "ab"}


def write_curve(
    folder: Path, f_star: float, date: float = 1.0, config: dict[str, Any] | None = None, **card: Any
) -> None:
    """One run a frequency, and one at F = 0."""
    rng = np.random.default_rng(int(f_star))
    rates = rate(GRID.astype(float), f_star, 0.6, 0.8, 0.25)
    for F, share in zip([0, *GRID.tolist()], [0.25, *rates.tolist()], strict=True):
        data = results(run_card(frequency=F, triples=TRIPLES, **card), int(rng.binomial(3000, share)) / 3000, date=date)
        data["n-samples"] = {}
        write(folder / f"f{F}" / "results_1.json", {**data, "config": {"limit": None, **(config or {})}})


DIFFERENT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"optimizer": {"name": "adam", "lr": 0.001}},
        {"optimizer": {"name": "adam", "lr": 0.0001}},
        "optimizer.lr = 0.001",
    ),
    (
        {"data": {"corpus": "aaaa", "tokenizer": "t"}},
        {"data": {"corpus": "bbbb", "tokenizer": "t"}},
        "data.corpus = aaaa",
    ),
    (
        {"model": {"params": 137_000_000, "num_layers": 12}},
        {"model": {"params": 137_000_000, "num_layers": 24}},
        "model.num_layers = 12",
    ),
]


@pytest.mark.parametrize(("one", "other", "described"), DIFFERENT)
@pytest.mark.parametrize("seed", [1, 2])
def test_runs_whose_cards_differ_are_curves_of_their_own_with_the_same_seeds_or_others(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], described: str, seed: int
) -> None:
    write_curve(tmp_path / "A", 300.0, **one)
    write_curve(tmp_path / "B", 900.0, seed=seed, **other)
    report = fit_results([tmp_path])
    assert not report.set_aside
    found = {round(curve.curve.f_star / 300): curve for curve in report.curves}
    assert set(found) == {1, 3}
    assert all(curve.curve.status == OK and curve.floor.measured for curve in report.curves)
    assert {curve_cells(curve)[0] for curve in report.curves} == {"137M·A", "137M·B"}
    letter = found[1].letter.lstrip("·")
    assert f"experiment {letter}: {described}" in report.notes
    assert not any("different data" in note for note in report.notes)  # no law mixes them
    assert sorted((law.letter, len(law.points)) for law in report.laws) == [("·A", 1), ("·B", 1)]


def test_a_card_that_does_not_say_belongs_with_those_that_do(tmp_path: Path) -> None:
    write_curve(tmp_path / "old", 300.0)
    write_curve(tmp_path / "new", 301.0, seed=2, optimizer={"lr": 0.001}, data={"corpus": "a"}, run_id="x")
    (curve,) = fit_results([tmp_path]).curves
    assert curve.letter == ""
    assert len(curve.runs) == 16


SIZES = (137_000_000, 300_000_000, 562_000_000, 1_050_000_000)


def write_size(folder: Path, params: int, f_star: float, lr: float | None, **card: Any) -> None:
    optimizer = None if lr is None else {"lr": lr}
    write_curve(folder / f"{params}_{lr}", f_star, model={"params": params}, optimizer=optimizer, **card)


@pytest.fixture(scope="module")
def two_rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sizes at two learning rates, F* twice as large at the second; a fifth size at the second alone."""
    folder = tmp_path_factory.mktemp("rates")
    for at, params in enumerate(SIZES):
        write_size(folder, params, 400 * 0.8**at, 0.001)
        write_size(folder, params, 801 * 0.8**at, 0.002)
    write_size(folder, 3_000_000_000, 802 * 0.8**4, 0.002)
    return folder


def test_each_experiment_has_a_law_of_its_own_and_the_one_with_most_sizes_is_the_first(two_rates: Path) -> None:
    report = fit_results([two_rates], options=FitOptions(hold_out=562e6))
    assert [(law.letter, law.where) for law in report.laws] == [
        ("·B", "D = 2.6B, experiment B"),
        ("·A", "D = 2.6B, experiment A"),
    ]
    assert [set(law.params) for law in report.laws] == [{*SIZES, 3_000_000_000}, set(SIZES)]
    for law, lr in zip(report.laws, ("0.002", "0.001"), strict=True):
        alone = fit_results([two_rates], select={"optimizer.lr": [lr]})
        assert alone.laws[0].law == law.law
    first, second = sorted(report.held_out, key=lambda held: held.source)
    assert first.source == "the infusion law F*(C) of 3 other models at its D, experiment A"
    assert second.source.endswith("of 4 other models at its D, experiment B")
    assert second.measured == pytest.approx(2 * first.measured, rel=0.2)
    (note,) = [note for note in report.notes if "has its laws" in note]
    assert "those of experiment B (--select chooses another)" in note
    assert [verdict.passed for verdict in report.verdicts] == [True, True, True]
    assert [law["experiment"] for law in report_entries(report)["laws"]] == ["B", "A"]
    assert render_report(report).count("Infusion law F*(C)") == 2
    (ax,) = draw_curves(report).axes
    handles, labels = ax.get_legend_handles_labels()
    assert {label.split(":")[0] for label in labels} >= {"137M·A", "137M·B", "3B"}
    assert len({str(handle[0].get_color()) for handle in handles if isinstance(handle, tuple)}) == 9


@pytest.mark.parametrize("lr", [None, 0.005])
def test_a_size_that_contradicts_no_experiment_or_all_belongs_to_each(tmp_path: Path, lr: float | None) -> None:
    write_size(tmp_path, SIZES[0], 400, 0.001)
    write_size(tmp_path, SIZES[0], 800, 0.002)
    write_size(tmp_path, SIZES[1], 300, lr)
    laws = fit_results([tmp_path]).laws
    assert [(law.letter, set(law.params)) for law in laws] == [("·A", set(SIZES[:2])), ("·B", set(SIZES[:2]))]


def test_where_sizes_differ_in_their_data_the_law_that_mixes_them_is_pointed_out(tmp_path: Path) -> None:
    for at, params in enumerate(SIZES[:2]):
        write_size(tmp_path, params, 400 - at, None, data={"corpus": str(at)})
    report = fit_results([tmp_path])
    assert [law.letter for law in report.laws] == [""]
    assert any("a law across them mixes them" in note for note in report.notes)


def two_experiments(folder: Path, **second: Any) -> FitReport:
    """Two sweeps that their cards do not tell apart, F* = 300 and 900."""
    write_curve(folder / "A", 300.0)
    write_curve(folder / "B", 900.0, **second)
    return fit_results([folder])


def test_seeds_that_contradict_each_other_are_not_pooled_in_silence(tmp_path: Path) -> None:
    (curve,) = two_experiments(tmp_path, seed=2).curves
    assert curve.curve.status == RUNS_DISAGREE
    assert not curve.curve.ok
    assert "are they of different data, tokenizers or settings?" in curve_remarks(curve)[0]
    (trusted,) = fit_results([tmp_path], options=FitOptions(noise=0.7)).curves
    assert trusted.curve.status != RUNS_DISAGREE


def test_seeds_whose_cards_say_that_they_are_of_one_experiment_may_vary_as_they_do(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"data": {"corpus": "a", "tokenizer": "b"}, "optimizer": {"lr": 0.001}}
    write_curve(tmp_path / "A", 300.0, **facts)
    write_curve(tmp_path / "B", 900.0, seed=2, **facts)
    (curve,) = fit_results([tmp_path]).curves
    assert curve.curve.tau > 0.4
    assert curve.curve.status != RUNS_DISAGREE


def test_an_earlier_result_that_contradicts_a_newer_one_is_pointed_out(tmp_path: Path) -> None:
    report = two_experiments(tmp_path, date=2.0)
    reasons = [aside.reason for aside in report.set_aside]
    contradicted = sum("is used, which contradicts it (P = 0." in reason for reason in reasons)
    assert 5 <= contradicted < len(reasons)  # not at F = 0, for one
    (note,) = [note for note in report.notes if "contradict a newer one with an equal run card" in note]
    assert note.startswith(f"{contradicted} earlier results")


@pytest.mark.parametrize(
    ("one", "other", "noted"),
    [
        ("pretrained=x,add_bos_token=True", {"pretrained": "y", "add_bos_token": False}, "add_bos_token False, True"),
        ("pretrained=x,dtype=float32", {"pretrained": "y", "dtype": "bfloat16"}, "dtype bfloat16, float32"),
        ("pretrained=x", {"pretrained": "y", "add_bos_token": True}, "add_bos_token True, default"),
        ("pretrained=x,dtype=float32", {"pretrained": "y", "dtype": "float32"}, ""),
    ],
)
def test_a_mix_of_lm_evals_settings_is_noted(tmp_path: Path, one: str, other: dict[str, Any], noted: str) -> None:
    write_curve(tmp_path / "A", 300.0, config={"model": "hf", "model_args": one})
    write_curve(tmp_path / "B", 301.0, config={"model": "hf", "model_args": other}, seed=2)
    (curve,) = fit_results([tmp_path]).curves
    mixed = [note for note in curve.notes if "different lm-eval settings" in note]
    assert mixed == ([f"its runs were probed with different lm-eval settings: {noted}"] if noted else [])
