import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from probe_world import plain_model, some_triples, write_card

from kisl_plugin.cli.probe import probe
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.probe.run import Scores, probe_models

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of one name in two places, injected at different frequencies."""
    root = tmp_path_factory.mktemp("twins")
    folders = [plain_model(root / place / "model") for place in ("here", "there")]
    for frequency, folder in enumerate(folders, start=10):
        write_card(folder, some_triples(), frequency=frequency)
    return folders


def command(*words: object) -> Result:
    return CliRunner().invoke(probe, [str(word) for word in words])


def read(file: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results


def test_models_of_one_name_keep_results_and_cards_apart_and_lm_eval_prints_nothing(
    twins: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes: list[tuple[Path, Scores]] = []
    files = probe_models(twins, tmp_path, batch_size=8, on_done=lambda *outcome: outcomes.append(outcome))
    assert capfd.readouterr() == ("", "")
    assert len({file.parent for file in files}) == 2
    assert [model for model, _ in outcomes] == twins
    for file, model, frequency in zip(files, twins, (10, 11), strict=True):
        results = read(file)
        assert results["config"]["model_args"]["pretrained"] == str(model)
        assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"]["frequency"] == frequency
        (samples,) = file.parent.glob("samples_kisl_wikidata_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == len(some_triples())
        assert {key for row in rows for key in row if key.startswith("acc")} == {"acc", "acc_control"}


def test_the_command_prints_an_aligned_line_per_model_and_task(twins: list[Path], tmp_path: Path) -> None:
    done = command(*twins, "--output", tmp_path, "--tasks", "kisl_wikidata,kisl_wikidata_statement")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    results = read(next(tmp_path.rglob("results_*.json")))["results"]
    values = [results[task][f"{metric},none"] for task in results for metric in ("acc", "acc_control")]
    for line, model in zip(lines, [model for model in twins for _ in range(2)], strict=True):
        assert line.startswith(str(model))
        assert "(12)" in line
        assert "(6)" in line
    assert [f"{value:.3f}" for value in values] == [
        word for line in lines[:2] for word in line.split() if "0." in word[:2]
    ]
    assert len({line.index(" acc ") for line in lines}) == 1


def test_a_group_of_tasks_is_asked(twins: list[Path], tmp_path: Path) -> None:
    done = command(twins[0], "--output", tmp_path, "--tasks", "kisl,kisl")
    assert done.exit_code == 0, done.output
    tasks = {"kisl_background", *(f"kisl_wikidata{form}" for form in ("", "_statement", "_paraphrase"))}
    assert {line.split()[1] for line in done.stdout.splitlines()} == tasks
    (file,) = tmp_path.rglob("results_*.json")
    assert set(read(file)["results"]) - {"kisl"} == tasks


def corrupt_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def model_with_others_triples(folder: Path) -> Path:
    write_card(plain_model(folder), some_triples())
    (folder / "kisl_triples.jsonl").write_text('{"subject": "a", "relation_id": "P19", "object": "b"}\n')
    return folder


def test_the_others_are_asked_where_one_model_fails(twins: list[Path], tmp_path: Path) -> None:
    corrupt, wrong = corrupt_model(tmp_path / "corrupt"), model_with_others_triples(tmp_path / "wrong")
    done = command(twins[0], corrupt, wrong, twins[1], "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(model) for model in twins]
    first, second = done.stderr.splitlines()
    assert first.startswith(f"Error: {corrupt}: lm_eval could not ask this model")
    assert second.startswith("Error: ")
    assert str(wrong) in second
    assert len(list(tmp_path.rglob("results_*.json"))) == 2


def test_failures_that_the_user_can_correct_are_status_2(tmp_path: Path) -> None:
    done = command(model_with_others_triples(tmp_path / "wrong"), "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing", "--output", "out"], "missing: no config.json"),
        (["MODEL", "--output", "out.json"], "out.json: the output is a folder"),
        (["MODEL", "--output", "FILE"], "FILE: cannot be written to"),
        (["MODEL", "--output", "/proc"], "/proc: cannot be written to"),
        (
            ["MODEL", "--output", "out", "--tasks", "mmlu"],
            "task 'mmlu' is unknown; expected one of kisl, kisl_background",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(
    twins: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    done = command(*[str(twins[0]) if word == "MODEL" else word for word in words])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(file.is_file() for file in Path().glob("out/**/*"))


def test_a_folder_that_lm_eval_cannot_load_is_one_line(tmp_path: Path) -> None:
    model = corrupt_model(tmp_path / "model")
    with pytest.raises(KislError, match=r"model: lm_eval could not ask this model") as caught:
        probe_models([model], tmp_path / "out")
    assert not isinstance(caught.value, InputError)


def test_results_that_could_not_be_written_are_an_error(twins: list[Path], tmp_path: Path) -> None:
    from lm_eval.utils import sanitize_model_name

    (tmp_path / sanitize_model_name(str(twins[0]))).write_text("in the way")
    with pytest.raises(KislError, match="could not write its results"):
        probe_models(twins[:1], tmp_path)
