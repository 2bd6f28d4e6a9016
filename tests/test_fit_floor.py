from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, with_metrics, write
from hypothesis import given
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import Chance, Floor, check_chance, find_floor
from kisl_plugin.fit.results import read_results


def floor_with_baselines(
    folder: Path, injected: dict[str, Any], *baselines: dict[str, Any], chance: Chance = "auto"
) -> Floor:
    """The floor of runs with `injected` in their card, and one F = 0 run per card in `baselines`."""
    for frequency in (10, 50):
        write(folder / f"f{frequency}" / "results_1.json", results(run_card(**{**injected, "frequency": frequency})))
    for i, changes in enumerate(baselines):
        card = run_card(**{"frequency": 0, "seed": 50 + i, **changes})
        count = {"n-samples": {TASK: {"effective": card["triples"]["count"]}}}
        write(folder / f"baseline{i}" / "results_1.json", results(card, 0.25, **count))
    return find_floor(read_results([folder]).observations, chance)


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
    found = floor_with_baselines(tmp_path, injected, baseline, baseline)
    assert (found.value, found.correct, found.total, found.measured) == (0, 0, 0, False)
    assert "no F=0 run matches" in found.source
    assert found.notes == (f"2 F=0 runs not used for the floor: {why}",)


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
    found = floor_with_baselines(tmp_path, injected, baseline)
    assert (found.value, found.correct, found.total, found.measured) == (0.25, 100, 400, True)
    assert not found.notes


def test_f0_runs_that_match_are_used_and_only_the_others_named(tmp_path: Path) -> None:
    groups = {"frequency": None, "groups": {"a": {"frequency": 0, "count": 300}, "b": {"frequency": 0, "count": 100}}}
    grouped = with_metrics(results(run_card(**groups)), acc_a=0.5, acc_b=0.75)
    write(tmp_path / "grouped" / "results_1.json", grouped)
    other = {"triples": {"count": 400, "sha256": "other"}}
    found = floor_with_baselines(tmp_path, {}, {}, other, {**other, "engine": "local"})
    assert found.value == (100 + 150 + 75) / 800
    assert found.source == "325 of 800 items of 2 F=0 runs"
    assert set(found.notes) == {
        "1 F=0 run not used for the floor: other triples (sha256)",
        "1 F=0 run not used for the floor: other triples (sha256), trained by another engine (local)",
    }


def test_the_floor_that_is_asked_for_needs_no_f0_runs_and_says_nothing_of_them(tmp_path: Path) -> None:
    assert floor_with_baselines(tmp_path, {}, {"engine": "local"}, chance="0.25") == Floor(0.25, "given")
    assert floor_with_baselines(tmp_path, {}, chance="none") == Floor(0.0, "none, as asked (the paper's form)")


def test_without_f0_runs_there_is_no_floor_and_it_says_what_would_give_one(tmp_path: Path) -> None:
    found = floor_with_baselines(tmp_path, {})
    assert (found.value, found.measured) == (0, False)
    assert found.source == "no F=0 run was found, so none; such a run, or --chance, would give it"


@given(st.floats() | st.text(max_size=8))
def test_a_floor_is_a_share_below_one_or_refused(chance: Chance) -> None:
    try:
        checked = check_chance(chance)
    except InputError as error:
        assert "expected auto, none, or a share" in str(error)
    else:
        assert checked in ("auto", "none") or 0 <= float(checked) < 1
