"""Reading what the real lm_eval gives for the real probe."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from probe_world import ask, plain_model, some_triples, write_card

from kisl_plugin.fit.results import Reading, read_results
from kisl_plugin.probe.run import probe_models

KEPT = ("results", "configs", "n-samples", "date")  # of what lm_eval returns, beside its config
INJECTED = [triple for triple in some_triples() if triple.group != "control"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plain_model(tmp_path_factory.mktemp("world") / "model")
    write_card(folder, some_triples(), frequency=7, created="2026-01-01T00:00:00+00:00")
    return folder


@pytest.fixture(scope="module")
def probed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reading]:
    """The results file of the group `kisl`, and what is read of it."""
    (file,) = probe_models([model], tmp_path_factory.mktemp("results"), tasks=["kisl"])
    return file, read_results([file.parents[1]])


def test_every_count_is_that_of_the_rows_and_the_outcomes_name_every_injected_triple_once(
    probed: tuple[Path, Reading],
) -> None:
    file, reading = probed
    (seen,) = reading.observations
    assert seen.samples is not None
    rows = [json.loads(line) for line in seen.samples.read_text(encoding="utf-8").splitlines()]
    right = [row["acc"] for row in rows if row.get("acc") is not None]
    assert (seen.correct, seen.total) == (sum(right), len(INJECTED))
    assert seen.bits_per_byte == json.loads(file.read_text())["results"]["kisl_background"]["bits_per_byte,none"]
    keys = {(t.subject_id or t.subject, t.relation_id, t.object_id or t.object) for t in INJECTED}
    assert seen.outcomes is not None
    assert set(seen.outcomes) == keys
    assert not reading.set_aside
    assert [note for note in reading.notes if "more tasks" not in note] == []


def test_without_samples_the_counts_are_the_same_and_the_triples_are_unknown(
    probed: tuple[Path, Reading], tmp_path: Path
) -> None:
    file, reading = probed
    (bare,), (full,) = read_results([Path(shutil.copy(file, tmp_path))]).observations, reading.observations
    assert bare.outcomes is None
    assert (bare.correct, bare.bits_per_byte) == (full.correct, full.bits_per_byte)


def test_every_task_of_the_groups_file_is_read_by_itself_and_the_group_is_none(probed: tuple[Path, Reading]) -> None:
    file, _ = probed
    for task in ("kisl_wikidata_statement", "kisl_wikidata_paraphrase"):
        (seen,) = read_results([file], task).observations
        metrics = json.loads(file.read_text())["results"][task]
        assert seen.correct == round(metrics["acc,none"] * len(INJECTED))
        assert seen.samples is not None
        assert task in seen.samples.name
    (aside,) = read_results([file], "kisl").set_aside
    assert "kisl is a group of tasks (kisl_wikidata, " in aside.reason


def reason_of(results: Any, folder: Path) -> str:
    """Why these results of lm_eval are set aside."""
    data = {key: results[key] for key in KEPT}
    data["config"] = {"limit": results["config"]["limit"]}
    (folder / "results_1.json").write_text(json.dumps(data, default=str))
    (aside,) = read_results([folder]).set_aside
    return aside.reason


def test_part_of_the_items_is_no_observation(model: Path, tmp_path: Path) -> None:
    assert reason_of(ask(model, limit=3), tmp_path).startswith("run with --limit 3")


def test_a_model_without_a_card_is_no_observation(tmp_path: Path) -> None:
    data = ask(plain_model(tmp_path / "bare"), limit=1)
    data["config"]["limit"] = None
    assert reason_of(data, tmp_path).startswith("no run card")
