import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_files import results, run_card, sample, with_metrics, write, write_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.results import Reading, count_relations, read_outcomes, read_results, read_samples

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


def read(*paths: Path) -> Reading:
    return read_results(paths)


def test_samples_give_each_relation_and_each_triple(tmp_path: Path) -> None:
    write_run(tmp_path, {"P1": [True, False, True], "P2": [False]})
    (seen,) = read(tmp_path).observations
    assert seen.relations == {"P1": (2, 3), "P2": (0, 1)}
    found = read_outcomes([seen])
    assert found is not None
    assert found.keys == (
        ("Q0", "P1", "Ω\u2028"),
        ("Q1", "P1", "Ω\u2028"),
        ("Q2", "P1", "Ω\u2028"),
        ("Q0", "P2", "Ω\u2028"),
    )
    assert found.right.tolist() == [[1.0], [0.0], [1.0], [0.0]]


@UNDISTURBED
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_outcomes_sum_to_the_accuracies(tmp_path: Path, runs: list[list[bool]]) -> None:
    files = [write_run(tmp_path / str(k), {"P1": right}, seed=k) for k, right in enumerate(runs)]
    reading = read(*files)
    found = read_outcomes(reading.observations)
    assert found is not None
    assert not reading.notes
    assert (
        np.nansum(found.right, axis=0).tolist()
        == [seen.correct for seen in reading.observations]
        == [sum(right) for right in runs]
    )
    assert (~np.isnan(found.right)).sum(axis=0).tolist() == [len(right) for right in runs]
    assert found.right.shape[0] == len(found.keys) == max(map(len, runs))


def test_the_columns_follow_the_observations(tmp_path: Path) -> None:
    for k in range(3):
        write_run(tmp_path / str(k), {"P1": [i == k for i in range(3)]}, seed=k)
    observations = list(read(tmp_path).observations)
    for order in ([0, 1, 2], [2, 0, 1]):
        found = read_outcomes([observations[k] for k in order])
        assert found is not None
        assert found.right.argmax(axis=0).tolist() == order
        assert found.keys[0][0] == "Q0"


def test_a_group_has_the_rows_of_its_own(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 2}, "often": {"frequency": 50, "count": 1}}
    triples = {"source": "bundled", "count": 3, "control": 1, "sha256": "x"}
    data = results(run_card(frequency=None, groups=groups, triples=triples), 1 / 3, **{"n-samples": {}})
    file = write(tmp_path / STAMPED.format(1), with_metrics(data, acc_rare=0.5, acc_often=0.0, acc_control=1.0))
    rows = [sample("P1", 0, True, "rare", sum_acc=0.0), sample("P2", 1, False, "rare", sum_acc=1.0)]
    write_samples(file, [*rows, sample("P1", 2, False, "often"), sample("P1", 3, True, "control")])
    reading = read(tmp_path)
    rare, often = reading.observations
    assert (rare.relations, rare.by_sum) == ({"P1": (1, 1), "P2": (0, 1)}, 1)
    assert (often.relations, often.by_sum) == ({"P1": (0, 1)}, None)
    found = read_outcomes(reading.observations)
    assert found is not None
    assert np.array_equal(found.right, [[1, math.nan], [0, math.nan], [math.nan, 0]], equal_nan=True)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([sample("P1", 0, True), sample("P1", 1, True)], "2 of 2 rows are right where the results say 1 of 2"),
        ([sample("P1", 0, True)], "1 of 1 rows are right where the results say 1 of 2"),
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
    assert read_outcomes(reading.observations) is None
    assert read_outcomes([good]) is not None


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


@UNDISTURBED
@given(
    st.dictionaries(
        st.sampled_from(["extra", "target_hash", "frequency", "context", "group"]),
        st.text() | st.none() | st.dictionaries(st.text(), st.text(), max_size=2),
        max_size=4,
    ),
    st.booleans(),
    st.text(min_size=1),
    st.randoms(use_true_random=False),
)
def test_reading_only_the_ends_of_a_row_gives_what_reading_all_of_it_gives(
    tmp_path: Path, more: dict[str, Any], right: bool, name: str, random: Any
) -> None:
    row = sample("P1", 1, right)
    doc = {**row["doc"], "subject": name, "subject_id": "", "object": name, **more}
    first, second, *others = {**row, **more, "doc": doc}.items()
    random.shuffle(others)
    items = [first, second, *others]
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps(dict(items), ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    (found,) = read_samples(file)
    assert found == ((name, "P1", name), str(doc["group"] or ""), right, None)


def test_outcomes_are_read_from_the_samples_that_a_table_names(tmp_path: Path) -> None:
    write_run(tmp_path, {"P1": [True, False]})
    (seen,) = read(tmp_path).observations
    found, again = read_outcomes([seen]), read_outcomes([replace(seen, outcomes=None)])
    assert found is not None
    assert again is not None
    assert (found.keys, found.right.tolist()) == (again.keys, again.right.tolist())
    assert read_outcomes([replace(seen, outcomes=None, samples=tmp_path / "gone.jsonl")]) is None
    assert read_outcomes([]) is None


@given(st.dictionaries(st.sampled_from("PQRS"), st.lists(st.booleans(), min_size=1, max_size=40), min_size=1))
def test_standard_errors_tell_the_counts_of_each_relation_or_nothing(right: dict[str, list[bool]]) -> None:
    metrics: dict[str, float] = {}
    for name, bits in right.items():
        metrics[f"relation_acc_{name},none"] = float(np.mean(bits))
        error = float(np.std(bits, ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else 0.0
        metrics[f"relation_acc_{name}_stderr,none"] = error
    flat = [bit for bits in right.values() for bit in bits]
    found = count_relations(metrics, sum(flat), len(flat))
    truth = {name: (sum(bits), len(bits)) for name, bits in right.items()}
    untold = sum(sum(bits) in (0, len(bits)) for bits in right.values())
    assert found == (truth if untold < 2 else {})
    assert not count_relations(metrics, sum(flat), len(flat) + 1) or untold == 1


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jsonl: cannot be read \(No such file or directory\)"):
        read_samples(tmp_path / "gone.jsonl")
