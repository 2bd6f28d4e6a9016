from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, with_metrics, write, write_sweep

from kisl_plugin.fit import fit_results, write_report
from kisl_plugin.fit.report.assemble import CurveReport
from kisl_plugin.fit.report.table import render


def curve_with_baselines(folder: Path, injected: dict[str, Any], *baselines: dict[str, Any]) -> CurveReport:
    """The curve of runs with `injected` in their card, and one F = 0 run per card in `baselines`."""
    for frequency in (10, 50):
        write(folder / f"f{frequency}" / "results_1.json", results(run_card(**{**injected, "frequency": frequency})))
    for i, changes in enumerate(baselines):
        card = run_card(**{"frequency": 0, "seed": 50 + i, **changes})
        count = {"n-samples": {TASK: {"effective": card["triples"]["count"]}}}
        write(folder / f"baseline{i}" / "results_1.json", results(card, 0.25, **count))
    (found,) = fit_results([folder]).curves
    return found


PARENT = {"parent": run_card(tokens=1000)}


@pytest.mark.parametrize(
    ("injected", "baseline", "why"),
    [
        ({}, {"triples": {"count": 400, "sha256": "other"}}, "other triples (sha256)"),
        ({}, {"triples": {"count": 40}}, "40 items where the injected runs answered 400"),
        ({}, {"form": "question", "template": [1, 0]}, "items worded with another template"),
        ({"template": 2}, {"template": 1}, "items worded with another template"),
        ({}, {"engine": "local"}, "trained by another engine (local)"),
        ({}, PARENT, "continued from another checkpoint"),
        (PARENT, {}, "continued from another checkpoint"),
    ],
)
def test_an_f0_run_that_differs_in_more_than_the_frequency_is_not_the_floor(
    tmp_path: Path, injected: dict[str, Any], baseline: dict[str, Any], why: str
) -> None:
    found = curve_with_baselines(tmp_path, injected, baseline, baseline)
    assert found.floor.value == 0
    assert "no F=0 run matches" in found.floor.source
    assert found.notes[0] == f"2 F=0 runs not used for the floor: {why}"
    assert why in " ".join(render(fit_results([tmp_path])).split())


@pytest.mark.parametrize(
    ("injected", "baseline"),
    [
        ({"train_seed": 3}, {"train_seed": 4}),
        ({}, {"triples": {"source": "elsewhere", "count": 400}}),
        ({"triples": {"source": "elsewhere", "count": 400}}, {}),
        ({}, {"form": "question", "template": [0, 1]}),
        ({"template": [2, 0]}, {"template": 2}),
        ({"spacing": "even", "window": [0.0, 0.5]}, {"spacing": "shuffled", "window": [0.0, 1.0]}),
        ({}, {"engine": None}),
        (PARENT, PARENT),
    ],
)
def test_what_changes_nothing_without_an_injection_may_differ(
    tmp_path: Path, injected: dict[str, Any], baseline: dict[str, Any]
) -> None:
    found = curve_with_baselines(tmp_path, injected, baseline)
    assert found.floor.value == 0.25
    assert not found.notes


def test_f0_runs_that_match_are_used_and_only_the_others_named(tmp_path: Path) -> None:
    groups = {"frequency": None, "groups": {"a": {"frequency": 0, "count": 300}, "b": {"frequency": 0, "count": 100}}}
    grouped = with_metrics(results(run_card(**groups)), acc_a=0.5, acc_b=0.75)
    write(tmp_path / "grouped" / "results_1.json", grouped)
    other = {"triples": {"count": 400, "sha256": "other"}}
    found = curve_with_baselines(tmp_path, {}, {}, other, {**other, "engine": "local"})
    assert found.floor.value == (100 + 150 + 75) / 800
    assert found.floor.source == "325 of 800 items of 2 F=0 runs"
    assert set(found.notes) == {
        "1 F=0 run not used for the floor: other triples (sha256)",
        "1 F=0 run not used for the floor: other triples (sha256), trained by another engine (local)",
    }


def test_a_floor_that_is_given_needs_no_f0_runs_and_says_nothing_of_them(tmp_path: Path) -> None:
    curve_with_baselines(tmp_path, {}, {"engine": "local"})
    (found,) = fit_results([tmp_path], chance="0.25").curves
    assert (found.floor.value, found.notes) == (0.25, ())


def test_a_floor_of_1_leaves_its_own_curve_unfitted_and_no_other(tmp_path: Path) -> None:
    write_sweep(tmp_path / "good", 200.0)
    write_sweep(tmp_path / "known", 200.0, floor=1.0, model={"params": 300_000_000})
    report = fit_results([tmp_path])
    good, known = report.curves
    assert good.curve.ok
    assert (known.curve.status, known.floor.value) == ("not identified", 1.0)
    assert "the guessing floor is 1" in known.curve.message
    assert "the guessing floor is 1" in " ".join(render(report).split())
    assert len(write_report(report, tmp_path / "report")) == 4
