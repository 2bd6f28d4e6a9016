"""Reading lm-eval's results and samples: what becomes an observation, and what is set aside with its reason."""

import copy
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_files import TASK, results, run_card, sample, with_metrics, write, write_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import find_floor, outcome_matrix
from kisl_plugin.fit.results import Reading, read_results, read_samples
from kisl_plugin.fit.writing import write_observations


def read(*paths: Path, task: str = TASK) -> Reading:
    return read_results(paths, task)


def reasons(reading: Reading) -> dict[str, str]:
    return {Path(aside.path).name: aside.reason for aside in reading.set_aside}


def test_a_result_becomes_one_observation(tmp_path: Path) -> None:
    file = write(tmp_path / "m" / "results_1.json", with_metrics(results(run_card(), 0.5), acc_control=0.25))
    (seen,) = read(tmp_path).observations
    assert (seen.params, seen.tokens, seen.frequency, seen.card.seed) == (137_000_000, 2_600_000_000, 200, 1)
    assert (seen.correct, seen.total, seen.control_correct, seen.control_total) == (200, 400, 25, 100)
    assert (seen.path, seen.model, seen.group) == (str(file), "models/x", None)


def test_results_are_found_in_hidden_folders_under_other_names_and_as_single_files(tmp_path: Path) -> None:
    write(tmp_path / ".__x" / "results_1.json", results(run_card(seed=1)))
    write(tmp_path / "deep" / "er" / "x_2026-01-01T00-00-00.1.json", results(run_card(seed=2)))
    single = write(tmp_path / "elsewhere" / "any.json", results(run_card(seed=3)))
    assert {seen.card.seed for seen in read(tmp_path).observations} == {1, 2, 3}
    assert [seen.card.seed for seen in read(single).observations] == [3]
    assert len(read(tmp_path, single, tmp_path / ".__x").observations) == 3


def test_loops_of_links_end_and_linked_results_count_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "results_1.json", results(run_card()))
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "results_2.json").symlink_to(tmp_path / "a" / "results_1.json")
    reading = read(tmp_path)
    assert len(reading.observations) == 1
    assert not reading.set_aside


def test_other_json_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    write(tmp_path / "tokenizer.json", {"model": {}})
    write(tmp_path / "half.json", "{")
    assert not read(tmp_path).set_aside


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([1], "not lm-eval results"),
        ({"results": {}}, "not lm-eval results"),
        (results(run_card(), task="hellaswag"), "no results of task kisl_wikidata; it holds hellaswag"),
        (results(None), "no run card (metadata.kisl): probe a model trained with kisl"),
        (results({"schema": 9}), "run card: schema is 9"),
        (results(run_card(model={})), "run card: model.params is None"),
        (results(run_card(tokens=0)), "run card: tokens is 0"),
        (results(run_card(iteration=500)), "unfinished run: iteration 500 of 1000"),
        (results(run_card(), config={"limit": 100.0}), "run with --limit 100.0"),
        (results(run_card(), **{"n-samples": {TASK: {"original": 500, "effective": 50}}}), "50 items answered"),
        (results(run_card(), 0.5001), "acc,none is 0.5001, which is no whole number of the 400 triples"),
        (results(run_card(), float("nan")), "acc,none is nan; expected a share"),
        (results(run_card(), 40.0), "acc,none is 40.0; expected a share"),
        (with_metrics(results(run_card()), acc_control=0.333), "acc_control,none is 0.333"),
        (results(run_card(frequency=None, groups={"a": {"frequency": 5, "count": 400}})), "no metric acc_a,none"),
        (results(run_card(frequency=None, groups={})), "groups is empty"),
        (results(run_card(frequency=None, groups={"a": {"frequency": 5, "count": 0}})), "counts 0 triples"),
        (results(run_card(triples={"count": 0}), **{"n-samples": {}}), "counts 0 triples"),
    ],
)
def test_what_cannot_be_used_is_set_aside_with_its_reason(tmp_path: Path, data: Any, reason: str) -> None:
    write(tmp_path / "results_good.json", results(run_card(seed=99)))
    write(tmp_path / "results_bad.json", data)
    reading = read(tmp_path)
    assert [seen.card.seed for seen in reading.observations] == [99]
    assert reason in reasons(reading)["results_bad.json"]
    assert "\n" not in reasons(reading)["results_bad.json"]


@pytest.mark.parametrize("effective", [500, 400, 100])
def test_every_way_in_which_lm_eval_counts_the_items_is_taken(tmp_path: Path, effective: int) -> None:
    counts = {"n-samples": {TASK: {"original": 500, "effective": effective}}}
    write(tmp_path / "results_1.json", results(run_card(), **counts))
    assert len(read(tmp_path).observations) == 1


def test_groups_are_observations_of_their_own(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 300}, "often": {"frequency": 500, "count": 100}}
    data = results(run_card(frequency=None, groups=groups), 0.1234567)
    write(tmp_path / "results_1.json", with_metrics(data, acc_rare=0.5, acc_often=0.9))
    cells = {(s.group, s.frequency, s.correct, s.total) for s in read(tmp_path).observations}
    assert cells == {("rare", 10, 150, 300), ("often", 500, 90, 100)}


def test_a_group_without_triples_is_skipped_and_the_others_are_used(tmp_path: Path) -> None:
    groups = {"none": {"frequency": 10, "count": 0}, "all": {"frequency": 500, "count": 400}}
    write(tmp_path / "results_1.json", with_metrics(results(run_card(frequency=None, groups=groups)), acc_all=0.5))
    reading = read(tmp_path)
    assert [(seen.group, seen.correct, seen.total) for seen in reading.observations] == [("all", 200, 400)]
    assert not reading.set_aside


def test_the_latest_probe_of_a_run_counts_and_the_others_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "results_a.json", results(run_card(), 0.5, date=3.0))
    write(tmp_path / "results_b.json", results(run_card(), 0.25, date=2.0))
    write(tmp_path / "results_c.json", results(run_card(), 0.75, date=4.0, config={"limit": 5}))
    write(tmp_path / "results_d.json", results(run_card(seed=2), 0.75, date=1.0))
    reading = read(tmp_path)
    assert [(seen.card.seed, seen.correct) for seen in reading.observations] == [(1, 200), (2, 300)]
    assert set(reasons(reading)) == {"results_b.json", "results_c.json"}
    assert "an earlier probe of the same run" in reasons(reading)["results_b.json"]
    assert "results_a.json" in reasons(reading)["results_b.json"]


def test_a_card_without_a_date_is_still_recognised_when_probed_again(tmp_path: Path) -> None:
    for day in (1.0, 2.0):
        write(tmp_path / f"results_{day}.json", results(run_card(created=None), date=day))
    assert len(read(tmp_path).observations) == 1


def test_a_run_that_was_trained_twice_is_one_observation(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        card = run_card(train_seed=5, created=f"2026-01-0{day}T00:00:00+00:00")
        write(tmp_path / f"results_{day}.json", results(card, day / 4, date=float(day % 3)))
    reading = read(tmp_path)
    assert [seen.correct for seen in reading.observations] == [200]
    assert set(reasons(reading)) == {"results_1.json", "results_3.json"}
    for reason in reasons(reading).values():
        assert "of a run with the same seeds" in reason
        assert "results_2.json is used" in reason


def test_of_results_without_a_date_the_run_that_was_made_last_counts(tmp_path: Path) -> None:
    for name, day in (("a", 3), ("b", 1)):
        card = run_card(created=f"2026-01-0{day}T00:00:00+00:00")
        write(tmp_path / f"results_{name}.json", results(card, day / 4, date=None))
    reading = read(tmp_path)
    assert [seen.correct for seen in reading.observations] == [300]
    assert "of a run with the same seeds" in reasons(reading)["results_b.json"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"train_seed": 1}, {"train_seed": 2}),
        ({"form": "statement"}, {"form": "question"}),
        ({"template": [0]}, {"template": [0, 1]}),
        ({"spacing": "even"}, {"spacing": "shuffled"}),
        ({"window": [0.0, 0.5]}, {"window": [0.5, 1.0]}),
        ({"seq_length": 128}, {"seq_length": 256}),
        ({"engine": "neox"}, {"engine": "local"}),
        ({"triples": {"source": "a", "count": 400}}, {"triples": {"source": "b", "count": 400}}),
        ({"parent": {"tokens": 1, "created": "x"}}, {"parent": {"tokens": 2, "created": "x"}}),
        ({"parent": {"parent": {"seed": 1}}}, {"parent": {"parent": {"seed": 2}}}),
    ],
)
def test_runs_of_other_settings_made_in_the_same_second_both_count(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    write(tmp_path / "results_1.json", results(run_card(**one)))
    write(tmp_path / "results_2.json", results(run_card(**other)))
    reading = read(tmp_path)
    assert len(reading.observations) == 2
    assert not reading.set_aside


def test_a_parent_that_was_trained_again_makes_no_other_run(tmp_path: Path) -> None:
    for day in ("1", "2"):
        parent = {**run_card(frequency=0), "created": day, "versions": {"torch": day}}
        write(tmp_path / f"results_{day}.json", results(run_card(parent=parent)))
    assert len(read(tmp_path).observations) == 1


def test_another_task_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card(), task="kisl_wikidata_statement"))
    assert len(read(tmp_path, task="kisl_wikidata_statement").observations) == 1
    assert not read(tmp_path).observations


def test_where_the_facts_were_asked_in_another_form_alone_that_form_is_read(tmp_path: Path) -> None:
    for form in ("direct", "statement"):
        write(tmp_path / f"results_{form}.json", results(run_card(), task=f"kisl_wikidata_{form}"))
    write(tmp_path / "results_arc.json", results(None, task="arc_easy"))
    reading = read_results([tmp_path])
    assert reading.task == "kisl_wikidata_direct"
    assert len(reading.observations) == 1
    assert reading.notes[0].startswith("no results of task kisl_wikidata, so those of kisl_wikidata_direct are fitted")
    write(tmp_path / "results_1.json", results(run_card()))
    assert read_results([tmp_path]).task == TASK


def test_no_results_at_all_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no lm-eval results found; looked for results_\*\.json"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        read(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o000)
    assert "cannot be read" in reasons(read(tmp_path))["locked"]


# Whatever JSON there is, every results file is used or set aside in one line

MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-3, 500)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["group", 10**400, -(10**9)])
)
ANY_JSON = LEAF | st.lists(LEAF, max_size=2) | st.dictionaries(st.text(max_size=3), LEAF, max_size=2)


def full(groups: bool, with_card: bool = True) -> dict[str, Any]:
    """Results that hold everything that is read."""
    counted = {"a": {"frequency": 5, "count": 1}, "b": {"frequency": 0, "count": 1}}
    triples = {"source": "x", "count": 2, "control": 1, "sha256": "s"}
    frequency = {"frequency": None, "groups": counted} if groups else {}
    card = run_card(triples=triples, template=[0], parent=run_card(frequency=0), **frequency)
    data = with_metrics(
        results(card, 0.5, **{"n-samples": {TASK: {"original": 3, "effective": 2}}}),
        items=2.0,
        items_control=1.0,
        acc_control=1.0,
        sum_acc=0.5,
        acc_a=1.0,
        acc_b=0.0,
        relation_acc_P1=1.0,
        relation_acc_P2=0.0,
        relation_acc_P1_stderr=0.0,
    )
    if not with_card:
        del data["configs"][TASK]["metadata"]["kisl"]
    data["results"]["kisl_background"] = {"bits_per_byte,none": 1.5}
    data["configs"]["kisl_background"] = {"metadata": {"kisl": card, "kisl_background": {"sha256": "t"}}}
    data["group_subtasks"], data["groups"] = {"kisl": [TASK]}, {}
    rows = [sample("P1", 0, True, "a"), sample("P2", 1, False, "b"), sample("P1", 2, True, "control")]
    return {**data, "samples": {TASK: rows}}


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value inside."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [found for key, value in items for found in ((*path, key), *places(value, (*path, key)))]


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """Full results with one or two values replaced or removed."""
    data = copy.deepcopy(full(draw(st.booleans()), draw(st.booleans())))
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from(places(data)))
        inner = data
        for key in above:
            inner = inner[key]
        if isinstance(inner, dict) and draw(st.booleans()) and draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = draw(ANY_JSON)
    return data


@MANY
@given(broken(), st.booleans())
def test_a_broken_file_is_used_or_set_aside_in_one_line(tmp_path: Path, data: dict[str, Any], by_csv: bool) -> None:
    file = write(tmp_path / "results_2026-01-01T00-00-00.json", {k: v for k, v in data.items() if k != "samples"})
    samples = data.get("samples")
    rows = samples.get(TASK) if isinstance(samples, dict) else None
    write_samples(file, rows if isinstance(rows, list) else [])
    runs = write(tmp_path / "runs.csv", "path,params,tokens,frequency,seed\n.,1,2,3,4\n") if by_csv else None
    reading = read_results([tmp_path], TASK, runs)
    assert bool(reading.observations) != bool(reading.set_aside)
    assert all("\n" not in said for said in (*reading.notes, *(one.reason for one in reading.set_aside)))
    find_floor(reading.observations, "auto")
    write_observations(reading.observations, tmp_path / "t.csv")
    for seen in reading.observations:
        assert 0 <= seen.correct <= seen.total
        if seen.samples is not None:
            assert seen.outcomes is not None


@pytest.mark.parametrize("groups", [False, True])
def test_what_is_whole_is_used_with_all_it_holds(tmp_path: Path, groups: bool) -> None:
    data = full(groups)
    file = write(tmp_path / "results_2026-01-01T00-00-00.json", {k: v for k, v in data.items() if k != "samples"})
    write_samples(file, data["samples"][TASK])
    seen = read_results([tmp_path]).observations
    assert [(one.group, one.correct, one.total) for one in seen] == (
        [("a", 1, 1), ("b", 0, 1)] if groups else [(None, 1, 2)]
    )
    assert all(one.bits_per_byte == 1.5 and one.outcomes for one in seen)
    assert (seen[0].control_correct, seen[0].control_total) == (1, 1)


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", "\ufeff" + json.dumps(results(run_card())))
    assert len(read_results([tmp_path]).observations) == 1


# Samples

STAMPED = "results_2026-01-01T00-00-0{}.25.json"
UNDISTURBED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write_run(folder: Path, right: dict[str, list[bool]], rows: list[Any] | None = None, **card: Any) -> Path:
    """Results and samples of one run that got `right` of each relation's triples."""
    flat = [is_right for relation in right.values() for is_right in relation]
    triples = {"source": "bundled", "count": len(flat), "control": 0, "sha256": "ab12"}
    data = results(run_card(triples=triples, **card), sum(flat) / len(flat), **{"n-samples": {}})
    file = write(folder / STAMPED.format(1), data)
    asked = [sample(name, k, bit) for name, relation in right.items() for k, bit in enumerate(relation)]
    write_samples(file, asked if rows is None else rows)
    return file


def test_samples_give_each_triple(tmp_path: Path) -> None:
    write_run(tmp_path, {"P1": [True, False, True], "P2": [False]})
    (seen,) = read(tmp_path).observations
    assert seen.outcomes == {
        ("Q0", "P1", "Ω\u2028"): True,
        ("Q1", "P1", "Ω\u2028"): False,
        ("Q2", "P1", "Ω\u2028"): True,
        ("Q0", "P2", "Ω\u2028"): False,
    }


@UNDISTURBED
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_outcomes_sum_to_the_accuracies(tmp_path: Path, runs: list[list[bool]]) -> None:
    files = [write_run(tmp_path / str(k), {"P1": right}, seed=k) for k, right in enumerate(runs)]
    reading = read(*files)
    right = outcome_matrix(reading.observations)
    assert right is not None
    assert not reading.notes
    assert (
        np.nansum(right, axis=0).tolist()
        == [seen.correct for seen in reading.observations]
        == [sum(right) for right in runs]
    )
    assert (~np.isnan(right)).sum(axis=0).tolist() == [len(right) for right in runs]
    assert len(right) == max(map(len, runs))


def test_the_columns_follow_the_observations(tmp_path: Path) -> None:
    for k in range(3):
        write_run(tmp_path / str(k), {"P1": [i == k for i in range(3)]}, seed=k)
    observations = list(read(tmp_path).observations)
    for order in ([0, 1, 2], [2, 0, 1]):
        right = outcome_matrix([observations[k] for k in order])
        assert right is not None
        assert right.argmax(axis=0).tolist() == order


def test_a_group_has_the_rows_of_its_own(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 2}, "often": {"frequency": 50, "count": 1}}
    triples = {"source": "bundled", "count": 3, "control": 1, "sha256": "x"}
    data = results(run_card(frequency=None, groups=groups, triples=triples), 1 / 3, **{"n-samples": {}})
    file = write(tmp_path / STAMPED.format(1), with_metrics(data, acc_rare=0.5, acc_often=0.0, acc_control=1.0))
    rows = [sample("P1", 0, True, "rare", sum_acc=0.0), sample("P2", 1, False, "rare", sum_acc=1.0)]
    write_samples(file, [*rows, sample("P1", 2, False, "often"), sample("P1", 3, True, "control")])
    reading = read(tmp_path)
    rare, often = reading.observations
    assert (rare.correct, often.correct) == (1, 0)
    right = outcome_matrix(reading.observations)
    assert right is not None
    assert np.array_equal(right, [[1, math.nan], [0, math.nan], [math.nan, 0]], equal_nan=True)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([sample("P1", 0, True), sample("P1", 1, True)], "2 of 2 rows are right where the results have 1 of 2"),
        ([sample("P1", 0, True)], "1 of 1 rows are right where the results have 1 of 2"),
        ([sample("P1", 0, True), sample("P1", 0, False)], "the triple Q0 – P1 – Ω is asked twice"),
        ([sample("P1", 0, True), sample("P1", 1, False, acc=0.5)], "row 2: acc is 0.5; expected 0 or 1"),
        ([sample("P1", 0, True), [1]], "row 2: not a sample"),
        ([sample("P1", 0, True), {"doc": {"passage": 1}, "acc": 0.0}], "row 2: its doc names no triple"),
    ],
)
def test_samples_that_contradict_the_results_are_not_used_and_it_is_said(
    tmp_path: Path, rows: list[Any], why: str
) -> None:
    write_run(tmp_path / "bad", {"P1": [True, False]}, rows)
    write_run(tmp_path / "good", {"P1": [True, False]}, seed=2)
    reading = read(tmp_path)
    bad, good = reading.observations
    assert (bad.correct, bad.total, bad.samples, bad.outcomes) == (1, 2, None, None)
    assert good.samples is not None
    (note,) = reading.notes
    assert note.startswith("samples not used: ")
    assert why in note
    assert str(tmp_path / "bad") in note
    assert outcome_matrix(reading.observations) is None
    assert outcome_matrix([good]) is not None


def test_a_cut_file_is_said_with_its_row(tmp_path: Path) -> None:
    file = write_run(tmp_path, {"P1": [True, False]})
    (samples,) = tmp_path.glob("samples_*")
    text = samples.read_text(encoding="utf-8")
    samples.write_text(text[: len(text) - 20], encoding="utf-8")
    (note,) = read(file).notes
    assert f"{samples}: row 2: " in note


def test_samples_of_another_time_or_task_are_not_taken(tmp_path: Path) -> None:
    file = write(tmp_path / STAMPED.format(1), results(run_card()))
    write_samples(file.with_name(STAMPED.format(2)), [sample("P1", 0, True)])
    write_samples(file, [sample("P1", 0, True)], "kisl_wikidata_statement")
    reading = read(tmp_path)
    assert reading.observations[0].samples is None
    assert not reading.notes


def test_samples_are_found_beside_results_of_any_name(tmp_path: Path) -> None:
    file = write_run(tmp_path, {"P1": [True]})
    named = file.rename(tmp_path / file.name.replace("results_", "mine_"))
    assert read(named).observations[0].samples == next(tmp_path.glob("samples_*")).resolve()


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jsonl: cannot be read \(No such file or directory\)"):
        read_samples(tmp_path / "gone.jsonl")


def test_what_cannot_be_read_as_it_is_is_listed_with_what_to_do(tmp_path: Path) -> None:
    old = {"results": {"arc_easy": {"acc": 0.5}}, "versions": {"arc_easy": 0}, "config": {"model": "gpt2"}}
    write(tmp_path / "gpt2.json", old)
    (tmp_path / "results_1.json.gz").write_bytes(gzip.compress(json.dumps(results(run_card())).encode()))
    many = {f"task{at:02}": {"acc,none": 0.5} for at in range(61)}
    write(tmp_path / "results_2.json", {**results(run_card()), "results": many})
    reading = read_results([tmp_path])
    assert not reading.observations
    reasons = {Path(aside.path).name: aside.reason for aside in reading.set_aside}
    assert reasons == {
        "gpt2.json": "written by lm-eval 0.3 or older, which keeps no run card: probe with lm-eval 0.4.4 or newer",
        "results_1.json.gz": "compressed: unpack it with gunzip",
        "results_2.json": "no results of task kisl_wikidata; it holds task00, task01, task02, task03, task04 "
        "and 56 more (choose with --task)",
    }
