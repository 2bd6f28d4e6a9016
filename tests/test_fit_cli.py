"""kisl-fit as a command: what it prints, what it writes, and how it fails."""

import json
import os
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
from kisl_plugin.fit.text import STATUS_HELP

SIZES = {137_000_000: 400.0, 300_000_000: 300.0, 562_000_000: 220.0, 1_050_000_000: 150.0}
FILES = ["curves.pdf", "curves.png", "fit.json"]
FILES += ["index.html", "law.pdf", "law.png", "observations.csv"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_prints_the_table_and_writes_the_report(tmp_path: Path) -> None:
    write_sweep(tmp_path / "results", 200.0)
    outcome = run(tmp_path / "results", "--out", tmp_path / "report")
    assert outcome.exit_code == 0, outcome.output
    assert "137M" in outcome.output
    assert "No infusion law: needs collapse points from 3 model sizes" in outcome.output
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES
    assert json.loads((tmp_path / "report" / "fit.json").read_text())["law"] is None


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sizes at one token budget, and at twice as many tokens two of them."""
    folder = tmp_path_factory.mktemp("sizes")
    for params, f_star in SIZES.items():
        write_sweep(folder / str(params), f_star, model={"params": params}, injected_tokens=4000)
    for params in (137_000_000, 562_000_000):
        write_sweep(folder / f"{params}d", 1.5 * SIZES[params], model={"params": params}, tokens=5_200_000_000)
    return folder


def strict(path: Path) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_what_is_asked_for_is_held_out_predicted_and_planned(sizes: Path, tmp_path: Path) -> None:
    asked = ["--hold-out", "1B", "--predict", "params=7e9,tokens=2.6e9", "--predict", "params=300M,tokens=5.2B"]
    planned = ["--triples", "1e5", "--write-configs", tmp_path / "planned"]
    outcome = run(sizes, "--out", tmp_path / "report", *asked, *planned)
    assert outcome.exit_code == 0, outcome.output
    found = strict(tmp_path / "report" / "fit.json")
    (held,) = found["held_out"]
    assert held["params"] == 1_050_000_000
    assert held["ratio"] == pytest.approx(held["predicted"] / held["measured"])
    large, inside = found["predictions"]
    low, high = large["f_star_interval"]
    assert low < large["f_star"] < high < 400
    assert large["exposures"] == pytest.approx(large["f_star"] * 100_000)
    assert large["decades"] > 0.5
    assert inside["decades"] == 0
    assert 200 < inside["f_star"] < 700
    assert len(found["data_laws"]) == 2
    assert found["joint"]["forms"][0]["weight"] >= found["joint"]["forms"][-1]["weight"]
    assert {verdict["name"] for verdict in found["verdicts"] if verdict["passed"]} >= {"unimodal curves"}
    yamls = sorted((tmp_path / "planned").glob("*.yml"))
    assert len(yamls) == 6
    assert all(f"Wrote {path}" in outcome.output for path in yamls)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "7B on 2.6B tokens" in page
    assert f"Best F: F* = {large['f_star']:.3g} (95 %" in page
    assert max(map(len, outcome.output.partition("Wrote into")[0].splitlines())) <= 80


def test_the_name_of_a_file_may_be_no_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    try:
        Path(os.fsdecode(folder)).mkdir()
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    write(Path(os.fsdecode(folder)) / "results_1.json", results(None))
    write(Path(os.fsdecode(folder)) / "results_2.json", results(run_card()))
    outcome = run(tmp_path, "--out", tmp_path / "report")
    assert outcome.exit_code == 0, outcome.output
    assert "\\udcff" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_a_folder_of_which_nothing_can_be_used_is_listed_and_a_failure(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(None))
    outcome = run(tmp_path, "--out", tmp_path / "report")
    assert outcome.exit_code == 1
    assert "Set aside: 1" in outcome.output
    assert "no run card" in outcome.output
    assert "no file could be used" in outcome.output.strip().splitlines()[-1]
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
        (["--write-configs", "x", "."], "--write-configs needs --predict"),
        (["--predict", "7e9", "."], "--predict '7e9'"),
        (["--triples", "5", "."], "--triples needs --predict"),
        (["--predict", "params=7B,tokens=2T", "--triples", "many", "."], "--triples 'many'"),
        (["--predict", "params=7B,tokens=2T", "--triples", "1.5", "."], "--triples '1.5'; expected a whole number"),
        (["--hold-out", "big", "."], "--hold-out 'big'; expected a number such as 1.05e9 or 3B"),
        (["--hold-out", "0", "."], "--hold-out"),
        (["--runs", "missing.csv", "."], "missing.csv"),
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
    assert "--predict params=7e9,tokens=58e9" in text
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


def test_a_report_is_told_of_even_where_the_yamls_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    asked = ["--predict", "params=7B,tokens=2T", "--write-configs", tmp_path / "planned"]
    outcome = run(tmp_path, "--out", tmp_path / "report", *asked)
    assert outcome.exit_code == 2
    assert f"Wrote into {tmp_path / 'report'}: index.html" in outcome.output
    assert "no YAMLs without a predicted F*" in outcome.output


def test_names_of_files_reach_a_terminal_without_commands_and_line_breaks(tmp_path: Path) -> None:
    write(tmp_path / "a\x1b[31m\nError: b\x9b" / "results_1.json", results(None))
    outcome = run(tmp_path, "--out", tmp_path / "report")
    assert "a\\x1b[31m\\nError: b\\x9b/results_1.json" in outcome.output
    assert not {"\x1b", "\x9b"} & set(outcome.output)
    assert "0/0" not in outcome.output
