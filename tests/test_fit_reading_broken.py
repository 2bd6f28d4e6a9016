"""Whatever JSON a tree holds, every results file is used or set aside in one line; nothing ends in a traceback."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, sample, with_metrics, write, write_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import find_floor
from kisl_plugin.fit.results import observations_of, read_outcomes, read_results
from kisl_plugin.fit.tables import read_table, write_table

MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
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
    write_table(reading.observations, tmp_path / "t.csv")
    assert tuple(read_table(tmp_path / "t.csv")) == reading.observations
    for seen in reading.observations:
        assert 0 <= seen.correct <= seen.total
        if seen.samples is not None:
            assert read_outcomes([seen]) is not None


@MANY
@given(broken())
def test_broken_results_of_the_python_api_are_refused_or_used(data: dict[str, Any]) -> None:
    try:
        observations = observations_of(data)
    except InputError as error:
        assert str(error)
    else:
        assert all(0 <= seen.correct <= seen.total for seen in observations)


@pytest.mark.parametrize("groups", [False, True])
def test_what_is_whole_is_used_with_all_it_holds(tmp_path: Path, groups: bool) -> None:
    data = full(groups)
    seen = observations_of(data)
    assert [(one.group, one.correct, one.total) for one in seen] == (
        [("a", 1, 1), ("b", 0, 1)] if groups else [(None, 1, 2)]
    )
    assert all(one.bits_per_byte == 1.5 and one.outcomes for one in seen)
    assert (seen[0].control_correct, seen[0].control_total) == (1, 1)


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", "\ufeff" + json.dumps(results(run_card())))
    assert len(read_results([tmp_path]).observations) == 1


def test_a_task_without_metrics_is_not_said_to_be_missing(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", {**results(run_card()), "results": {TASK: "x"}})
    (aside,) = read_results([tmp_path]).set_aside
    assert aside.reason == f"results.{TASK} holds no metrics; probe again"
