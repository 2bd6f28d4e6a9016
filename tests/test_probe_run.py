import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from probe_world import plain_model, some_triples, write_card

from kisl_plugin.cli.probe import probe
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.huggingface import write_model_card
from kisl_plugin.probe.run import Scores, probe_models
from kisl_plugin.triples import triples_to_jsonl

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


def test_lm_eval_describes_the_environment_once_for_all_models(
    twins: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils import collect_env

    calls: list[str] = []
    monkeypatch.setattr(collect_env, "get_pretty_env_info", lambda: calls.append("pip list") or "torch and pip")
    files = probe_models(twins, tmp_path, batch_size=8)
    assert [read(file)["pretty_env_info"] for file in files] == ["torch and pip"] * 2
    assert len(calls) == 1


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
    # Each model's line comes when it is done, and every error names its model.
    lines = done.output.splitlines()
    beginnings = [f"{twins[0]} ", f"Error: {corrupt}: lm_eval could not ask", f"Error: {wrong}: ", f"{twins[1]} "]
    assert [line.startswith(beginning) for line, beginning in zip(lines, beginnings, strict=True)] == [True] * 4
    assert len(list(tmp_path.rglob("results_*.json"))) == 2


def test_a_model_that_gives_no_probability_is_named(tmp_path: Path) -> None:
    model = plain_model(tmp_path / "model", weight=float("nan"))
    write_card(model, some_triples())
    done = command(model, "--output_path", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {model}: kisl_wikidata: the model gives no probability to ")


def test_a_model_that_has_results_is_skipped_unless_other_questions_or_a_newer_model_are_meant(
    twins: list[Path], tmp_path: Path
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(twins[0], model)

    def is_asked(*options: object) -> bool:
        before = len(list(out.rglob("results_*.json")))
        done = command(model, "--output_path", out, *options)
        assert done.exit_code == 0, done.output
        asked = len(list(out.rglob("results_*.json"))) - before
        assert (f"{model}: has results, " in done.output) == (not asked)
        return bool(asked)

    assert is_asked()
    assert not is_asked()
    for options in (("--limit", "3"), ("--tasks", "kisl_background"), ("--dtype", "float64")):
        assert is_asked(*options)
        assert not is_asked(*options)
    assert not is_asked()
    assert is_asked("--force")
    (model / "README.md").write_text("about the model")
    assert not is_asked()
    write_card(model, some_triples(), frequency=11)  # another run
    assert is_asked()


def test_lm_evals_limit_and_model_arguments_and_own_triples_are_used(twins: list[Path], tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(triples_to_jsonl([replace(triple, group="injected") for triple in some_triples()]))
    words = ("--limit", 5, "--model_args", "dtype=float64,max_length=100", "--triples", facts)
    done = command(twins[0], "--output_path", tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.rglob("results_*.json")
    results = read(file)
    assert results["config"]["limit"] == 5
    assert results["config"]["model_args"] == {"pretrained": str(twins[0]), "dtype": "float64", "max_length": 100}
    metadata = results["configs"]["kisl_wikidata"]["metadata"]
    assert metadata["triples"] == str(facts)
    assert "kisl" not in metadata
    assert results["results"]["kisl_wikidata"]["items,none"] == 5
    done = command(twins[0], "--output_path", tmp_path / "out", "--model_args", "pretrained=other")
    assert "pretrained is each MODEL" in done.stderr


def test_the_scores_of_a_run_are_written_into_its_model_card(twins: list[Path], tmp_path: Path) -> None:
    model = shutil.copytree(twins[0], tmp_path / "model")
    write_model_card(model)
    before = (model / "README.md").read_text(encoding="utf-8")
    assert "| not probed" in before
    assert command(model, "--output", tmp_path / "out", "--limit", 2).exit_code == 0
    assert (model / "README.md").read_text(encoding="utf-8") == before  # of part of the items
    assert command(model, "--output", tmp_path / "out").exit_code == 0
    (file,) = (path for path in tmp_path.rglob("results_*.json") if read(path)["config"]["limit"] is None)
    acc = read(file)["results"]["kisl_wikidata"]["acc,none"]
    assert f"| kisl_wikidata acc | {acc:.4g} | 12 |" in (model / "README.md").read_text(encoding="utf-8").splitlines()


def test_a_name_on_the_hub_is_a_model(twins: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--own--model"
    shutil.copytree(twins[0], cache / "snapshots" / ("a" * 40), ignore=shutil.ignore_patterns("kisl*"))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    facts = tmp_path / "facts.jsonl"
    facts.write_text(triples_to_jsonl(some_triples()))
    words = [sys.executable, "-m", "kisl_plugin", "probe", "own/model", "--output_path", "out", "--triples", str(facts)]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("own/model  kisl_wikidata  acc ")
    assert len(list((tmp_path / "out" / "own__model").glob("results_*.json"))) == 1


def test_failures_that_the_user_can_correct_are_status_2(tmp_path: Path) -> None:
    done = command(model_with_others_triples(tmp_path / "wrong"), "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing", "--output_path", "out"], "missing: no config.json"),
        (
            ["own/missing", "--out", "out"],
            "own/missing: no config.json; expected the folder of a Hugging Face model (not",
        ),
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
