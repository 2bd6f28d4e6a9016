"""Which of several results of one run count, and what the guessing floor is."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, sample, with_metrics, write, write_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import Chance, Floor, check_chance, find_floor
from kisl_plugin.fit.results import Reading, read_results

BACKGROUND = "kisl_background"


def read(*paths: Path) -> Reading:
    return read_results(paths)


def reasons(reading: Reading) -> dict[str, str]:
    return {Path(aside.path).name: aside.reason for aside in reading.set_aside}


def background(card: dict[str, Any] | None, value: Any = 1.5, text: str = "t", **changes: Any) -> dict[str, Any]:
    """Results of kisl_background."""
    data = results(card, task=BACKGROUND, **changes)
    data["results"] = {BACKGROUND: {"bits_per_byte,none": value}}
    data["configs"][BACKGROUND]["metadata"][BACKGROUND] = {"sha256": text}
    return data


def both(question: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """One file of both tasks."""
    return {**question, **{key: {**question[key], **text[key]} for key in ("results", "configs")}}


def test_a_copied_file_counts_once_and_the_copy_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "results_1.json", results(run_card()))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    reading = read(tmp_path)
    assert [seen.path for seen in reading.observations] == [str(first)]
    (copy,) = reading.set_aside
    assert (copy.path, copy.reason) == (
        str(tmp_path / "b" / "results_1.json"),
        f"a copy of {first}",
    )


def test_of_copies_the_one_with_samples_is_used(tmp_path: Path) -> None:
    card = run_card(triples={"count": 2, "sha256": "x"})
    for name in ("a", "b"):
        file = write(tmp_path / name / "results_2026-01-01T00-00-00.json", results(card, **{"n-samples": {}}))
    write_samples(file, [sample("P1", 0, True), sample("P1", 1, False)])
    (seen,) = read(tmp_path).observations
    assert seen.path == str(file)
    assert seen.outcomes is not None


def test_equally_old_results_that_contradict_each_other_are_all_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "results_a.json", results(run_card(), 0.5))
    write(tmp_path / "results_b.json", results(run_card(), 0.75))
    write(tmp_path / "results_older.json", results(run_card(), 0.25, date=1.0))
    write(tmp_path / "results_other.json", results(run_card(seed=2)))
    reading = read(tmp_path)
    assert [seen.card.seed for seen in reading.observations] == [2]
    said = reasons(reading)
    assert set(said) == {"results_a.json", "results_b.json", "results_older.json"}
    for reason in said.values():
        assert reason.startswith("contradictory: ")
        assert "results_a.json" in reason
        assert "results_b.json" in reason


def test_a_later_probe_ends_a_contradiction(tmp_path: Path) -> None:
    write(tmp_path / "results_a.json", results(run_card(), 0.5))
    write(tmp_path / "results_b.json", results(run_card(), 0.75))
    write(tmp_path / "results_c.json", results(run_card(), 0.25, date=2e9))
    assert [seen.correct for seen in read(tmp_path).observations] == [100]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.sampled_from([None, 5])),
        min_size=1,
        max_size=7,
    )
)
def test_every_file_is_used_or_set_aside_and_no_run_counts_twice(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, int, int, int | None]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for k, (seed, date, quarter, limit) in enumerate(files):
        data = results(run_card(seed=seed), quarter / 4, date=float(date), config={"limit": limit})
        write(folder / f"results_{k}.json", data)
    reading = read(folder)
    used, aside = [seen.path for seen in reading.observations], [one.path for one in reading.set_aside]
    assert sorted([*used, *aside]) == sorted(map(str, folder.iterdir()))
    assert len({seen.card.seed for seen in reading.observations}) == len(used)
    for seen in reading.observations:
        rivals = {(date, quarter) for seed, date, quarter, limit in files if seed == seen.card.seed and limit is None}
        newest = max(date for date, _ in rivals)
        assert {(newest, seen.correct / 100)} == {rival for rival in rivals if rival[0] == newest}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "an empty file"), ('{"results":', "cannot be read as JSON"), ("\x00", "cannot be read as JSON")],
)
def test_a_file_that_was_not_written_to_its_end_is_named(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path / "results_1.json", text)
    reading = read(tmp_path)
    assert reason in reasons(reading)["results_1.json"]
    assert not reading.observations


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path / "results_good.json", results(run_card()))
    (tmp_path / "results_gone.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "results_pipe.json")
    os.mkfifo(tmp_path / "other.json")
    (tmp_path / "other_gone.json").symlink_to(tmp_path / "nowhere_else")
    assert reasons(read(tmp_path)) == {
        "results_gone.json": "cannot be read (No such file or directory)",
        "results_pipe.json": "cannot be read (not a file)",
    }


@pytest.mark.parametrize("value", [None, "N/A", float("nan"), True])
def test_metrics_that_are_no_numbers_are_named(tmp_path: Path, value: Any) -> None:
    write(tmp_path / "results_1.json", results(run_card(), value))
    assert reasons(read(tmp_path))["results_1.json"] == f"acc,none is {value!r}; expected a share between 0 and 1"


def test_the_averaged_row_of_a_group_is_never_the_task(tmp_path: Path) -> None:
    data = results(run_card(), 0.5)
    data["results"]["kisl"] = {"acc,none": 0.75}
    data |= {"groups": {"kisl": {"acc,none": 0.75}}, "group_subtasks": {"kisl": [TASK, BACKGROUND], TASK: []}}
    write(tmp_path / "results_1.json", data)
    assert [seen.correct for seen in read(tmp_path).observations] == [200]
    (aside,) = read_results([tmp_path], "kisl").set_aside
    assert aside.reason == f"kisl is a group of tasks ({TASK}, {BACKGROUND}): choose one of them with --task"


@pytest.mark.parametrize("value", [None, "N/A", float("nan"), -1.0])
def test_a_background_that_is_no_number_is_none(tmp_path: Path, value: Any) -> None:
    write(tmp_path / "results_1.json", both(results(run_card()), background(run_card(), value)))
    (seen,) = read(tmp_path).observations
    assert seen.bits_per_byte is None


def test_background_measured_on_different_texts_is_said(tmp_path: Path) -> None:
    for k, text in enumerate("aab"):
        data = both(results(run_card(seed=k)), background(run_card(seed=k), 1.5, text))
        write(tmp_path / f"results_{k}.json", data)
    assert read(tmp_path).notes == ("background was measured on 2 different texts (sha256): not comparable",)
    (tmp_path / "results_2.json").unlink()
    assert not read(tmp_path).notes


# The guessing floor


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
        ({}, {"triples": {"count": 40}}, "40 items where the injected runs have 400"),
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
    assert (found.value, found.measured) == (0.25, False)
    assert "no run at F = 0 matches" in found.source
    assert found.notes == (f"2 runs at F = 0 not used for the floor: {why}",)


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
    assert (found.value, found.measured) == (0.25, True)
    assert found.error == pytest.approx((0.25 * 0.75 / 400) ** 0.5)
    assert not found.notes


def test_f0_runs_that_match_are_used_and_only_the_others_named(tmp_path: Path) -> None:
    groups = {"frequency": None, "groups": {"a": {"frequency": 0, "count": 300}, "b": {"frequency": 0, "count": 100}}}
    grouped = with_metrics(results(run_card(**groups)), acc_a=0.5, acc_b=0.75)
    write(tmp_path / "grouped" / "results_1.json", grouped)
    other = {"triples": {"count": 400, "sha256": "other"}}
    found = floor_with_baselines(tmp_path, {}, {}, other, {**other, "engine": "local"})
    assert found.value == (100 + 150 + 75) / 800
    assert found.source == "325 of 800 items right in 2 runs at F = 0"
    assert set(found.notes) == {
        "1 run at F = 0 not used for the floor: other triples (sha256)",
        "1 run at F = 0 not used for the floor: other triples (sha256), trained by another engine (local)",
    }


def test_the_floor_that_is_asked_for_needs_no_f0_runs_and_says_nothing_of_them(tmp_path: Path) -> None:
    assert floor_with_baselines(tmp_path, {}, {"engine": "local"}, chance="0.25") == Floor(0.25, "given with --chance")
    assert floor_with_baselines(tmp_path, {}, chance="none") == Floor(0.0, "none, as requested (the paper's form)")


def test_without_f0_runs_the_floor_is_that_of_the_options_with_a_wide_error(tmp_path: Path) -> None:
    floor = floor_with_baselines(tmp_path, {})
    assert (floor.value, floor.error, floor.measured) == (0.25, 0.05, False)
    assert floor.source == "one in 4 options, ± 0.05, as there is no run at F = 0 and no control triple"


@given(st.floats() | st.text(max_size=8))
def test_a_floor_is_a_share_below_one_or_refused(chance: Chance) -> None:
    try:
        checked = check_chance(chance)
    except InputError as error:
        assert "expected auto, none, or a share" in str(error)
    else:
        assert checked in ("auto", "none") or 0 <= float(checked) < 1
