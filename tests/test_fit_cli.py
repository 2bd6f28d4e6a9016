"""kisl-fit as a command: what it prints, what it writes, and how it fails."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fit_files import results, run_card, write, write_sweep

from kisl_plugin.cli.fit import main
from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_results, write_report
from kisl_plugin.fit.curves.status import STATUS_HELP

FILES = ["cost.pdf", "cost.png", "curves.csv", "curves.pdf", "curves.png", "fit.json"]
FILES += ["index.html", "law.pdf", "law.png", "observations.csv"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_prints_the_table_and_writes_the_report(tmp_path: Path) -> None:
    write_sweep(tmp_path / "results", 200.0)
    outcome = run(tmp_path / "results", "--out", tmp_path / "report")
    assert outcome.exit_code == 0, outcome.output
    assert "137M" in outcome.output
    assert "No infusion law: it takes 3 models" in outcome.output
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES
    assert json.loads((tmp_path / "report" / "fit.json").read_text())["law"] is None


def test_a_folder_of_which_nothing_can_be_used_is_listed_and_a_failure(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(None))
    outcome = run(tmp_path, "--out", tmp_path / "report")
    assert outcome.exit_code == 1
    assert "Set aside: 1" in outcome.output
    assert "no run card" in outcome.output
    assert "nothing could be used" in outcome.output.strip().splitlines()[-1]
    assert "Traceback" not in outcome.output
    assert len(json.loads((tmp_path / "report" / "fit.json").read_text())["set_aside"]) == 1


def test_one_file_that_can_be_used_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(None))
    write(tmp_path / "results_2.json", results(run_card()))
    outcome = run(tmp_path, "--out", tmp_path / "report")
    assert outcome.exit_code == 0, outcome.output
    assert "Set aside: 1" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], "missing: no such file or folder"),
        (["."], "no lm-eval results found"),
        ([".", "--chance", "1.5"], "--chance is '1.5'; expected auto, none, or a share"),
        ([".", "--chance", "low"], "--chance is 'low'"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert says in outcome.output
    assert "Traceback" not in outcome.output


def test_a_report_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(fit_results([tmp_path]), tmp_path / "file")


def test_a_file_that_stands_where_the_page_should_go_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    (tmp_path / "report" / "index.html").mkdir(parents=True)
    outcome = run(tmp_path / "results_1.json", "--out", tmp_path / "report")
    assert outcome.exit_code == 2
    assert outcome.output.strip().splitlines()[-1].endswith("choose another place with --out")
    assert "Traceback" not in outcome.output
    assert not list((tmp_path / "report").glob("*.part"))


def test_help_shows_examples_the_statuses_and_version_the_version() -> None:
    text = run("--help").output
    assert "kisl-fit results --out report" in text
    assert "--predict params=7e9,tokens=2e12" in text
    flat = " ".join(text.split())
    for status, meaning in STATUS_HELP.items():
        assert f"{status}" in text
        assert meaning in flat
    assert run("--version").output.startswith("kisl-fit, version")


@pytest.mark.parametrize("call", ["--help", "--version"])
def test_help_loads_nothing_heavy_and_is_quick(call: str) -> None:
    heavy = {"numpy", "scipy", "matplotlib", "torch", "lm_eval", "datasets", "yaml", "pluggy"}
    code = f"""
import sys
from kisl_plugin.cli.fit import main
try:
    main(["{call}"])
finally:
    print("loaded", *{heavy} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_every_name_of_the_python_api_is_there() -> None:
    import kisl_plugin.fit

    assert all(getattr(kisl_plugin.fit, name) for name in kisl_plugin.fit.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = kisl_plugin.fit.no_such_name
