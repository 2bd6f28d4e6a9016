"""The simulated sweep in examples/: the lines that README shows for it, and what they say of the truth."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kisl_plugin.cli.fit import main

ROOT = Path(__file__).parents[1]
SIMULATED = ROOT / "examples" / "simulated"
SCRIPT = ROOT / "benchmarks" / "simulate_sweep.py"


@pytest.fixture(scope="module")
def simulation() -> dict[str, Any]:
    if not SCRIPT.is_file():
        pytest.skip("the script is in a checkout only")
    return runpy.run_path(str(SCRIPT))


def test_the_files_are_those_that_the_script_writes(
    simulation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate_sweep.py", "--out", str(tmp_path)])
    simulation["main"]()
    written = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert written == {file.name: file.read_text(encoding="utf-8") for file in SIMULATED.iterdir()}
    assert len(written) == 5 * 9 * 3


def test_the_lines_of_the_readme_run_and_the_intervals_hold_the_truth(
    simulation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = "--hold-out 1.05e9 --predict params=7e9,tokens=58e9 --write-configs planned".split()
    done = CliRunner().invoke(main, [str(SIMULATED), *options])
    assert done.exit_code == 0, done.output
    assert "SIMULATED results" in done.output
    fit = json.loads(Path("report/fit.json").read_text(encoding="utf-8"))
    f_star = simulation["f_star"]
    curves = [(curve["f_star_interval"], f_star(6 * curve["params"] * curve["tokens"])) for curve in fit["curves"]]
    (prediction,) = fit["predictions"]
    curves.append((prediction["f_star_interval"], f_star(6 * 7e9 * 58e9)))
    assert len(curves) == 6
    assert [low < truth < high for (low, high), truth in curves] == [True] * 6
    assert fit["law"]["A"] > 0
    assert "within the intervals" in done.output
    configs = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in Path("planned").glob("*.yml")]
    assert len(configs) == 3
    assert all(config["kisl"]["triples"] == "wikidata_six" for config in configs)
