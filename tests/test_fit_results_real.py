"""Reading what the real lm_eval gives for the real probe."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from probe_world import ask, plain_model, some_triples, write_card

from kisl_plugin.errors import InputError
from kisl_plugin.fit.results import Reading, observations_of, read_results
from kisl_plugin.probe.run import probe_models

INJECTED = [triple for triple in some_triples() if triple.group != "control"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plain_model(tmp_path_factory.mktemp("world") / "model")
    write_card(folder, some_triples(), frequency=7, created="2026-01-01T00:00:00+00:00")
    return folder


@pytest.fixture(scope="module")
def returned(model: Path) -> dict[str, Any]:
    """What simple_evaluate returns for the question and the background."""
    return ask(model, "kisl_wikidata", "kisl_background")


@pytest.fixture(scope="module")
def probed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reading]:
    """The results file of the group `kisl`, and what is read of it."""
    (file,) = probe_models([model], tmp_path_factory.mktemp("results"), tasks=["kisl"])
    return file, read_results([file.parents[1]])


def test_the_python_api_gives_the_observation_that_the_file_gives(
    returned: dict[str, Any], probed: tuple[Path, Reading]
) -> None:
    (api,), (file,) = observations_of(returned), probed[1].observations
    same = ("card", "frequency", "group", "correct", "total", "control_correct", "control_total", "task")
    for name in (*same, "bits_per_byte", "outcomes"):
        assert getattr(api, name) == getattr(file, name), name
    assert not probed[1].set_aside
    assert not probed[1].notes


def test_every_count_is_that_of_the_rows(returned: dict[str, Any]) -> None:
    (seen,) = observations_of(returned)
    rows = [row for row in returned["samples"]["kisl_wikidata"] if "acc" in row]
    assert (seen.correct, seen.total) == (sum(row["acc"] for row in rows), len(INJECTED))
    assert seen.bits_per_byte == returned["results"]["kisl_background"]["bits_per_byte,none"]


def test_without_samples_the_counts_are_the_same_and_the_triples_are_unknown(returned: dict[str, Any]) -> None:
    bare = {key: value for key, value in returned.items() if key != "samples"}
    (seen,), (full,) = observations_of(bare), observations_of(returned)
    assert seen.outcomes is None
    assert (seen.correct, seen.bits_per_byte) == (full.correct, full.bits_per_byte)


def test_the_outcomes_name_every_injected_triple_once(returned: dict[str, Any]) -> None:
    (seen,) = observations_of(returned)
    keys = {(t.subject_id or t.subject, t.relation_id, t.object_id or t.object) for t in INJECTED}
    assert seen.outcomes is not None
    assert set(seen.outcomes) == keys
    assert len(seen.outcomes) == len(INJECTED)


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


def test_part_of_the_items_is_no_observation(model: Path) -> None:
    with pytest.raises(InputError, match="run with --limit 3"):
        observations_of(ask(model, limit=3))


def test_a_model_without_a_card_is_no_observation(tmp_path: Path) -> None:
    folder = plain_model(tmp_path / "bare")
    data = ask(folder, limit=1)
    data["config"]["limit"] = None
    with pytest.raises(InputError, match="no run card"):
        observations_of(data)
