"""A sweep with the real GPT-NeoX: killed and resumed, equal to one that is not; and on several nodes of a Slurm."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sweep_files import NEOX, run, scores, start, write_models, write_sweep

from kisl_plugin.sweep import Sweep, read_sweep
from kisl_plugin.sweep.state import checkpoint_step

pytest.importorskip("lm_eval")


def kill_and_resume(file: Path, out: Path, conditions: list[Callable[[Sweep], bool]]) -> None:
    """Run the sweep; at each condition the command is killed and called again."""
    sweep = read_sweep(file, out)
    for condition in conditions:
        process = start("run", file, "--out", out, "--jobs", "2")
        while not condition(sweep):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        process.kill()
        process.communicate()
    status, output = run("run", file, "--out", out, "--jobs", "2")
    assert status == 0, output


def test_a_run_that_is_killed_in_training_ends_as_one_that_is_not(world: Path, tmp_path: Path) -> None:
    models = write_models(tmp_path, world, **NEOX)[:1]
    file = write_sweep(tmp_path, world, models=models, engine="neox", frequency=8, seed=1)
    kill_and_resume(file, tmp_path / "killed", [lambda sweep: checkpoint_step(sweep.runs[0]) in (4, 8, 12)])
    (one,) = read_sweep(file, tmp_path / "killed").runs
    log = one.log.read_text(encoding="utf-8")
    assert log.count("== ") == 2
    assert "iteration       20/" in log
    assert run("run", file, "--out", tmp_path / "whole")[0] == 0
    check_equal(tmp_path / "killed", tmp_path / "whole", 1)


@pytest.mark.matrix
def test_the_small_sweep_killed_five_times(world: Path, tmp_path: Path) -> None:
    models = write_models(tmp_path, world, **NEOX)
    file = write_sweep(tmp_path, world, models=models, engine="neox")
    step_of = [lambda sweep, n=n: checkpoint_step(sweep.runs[n]) >= 8 for n in (0, 3, 6, 9, 12)]
    kill_and_resume(file, tmp_path / "killed", step_of)
    assert run("run", file, "--out", tmp_path / "whole", "--jobs", "2")[0] == 0
    check_equal(tmp_path / "killed", tmp_path / "whole", 16)


def check_equal(killed: Path, whole: Path, runs: int) -> None:
    assert len(scores(whole)) == runs
    assert scores(killed) == scores(whole)
    for folder in (whole / "runs").iterdir():
        models = [root / "runs" / folder.name / "hf" / "model.safetensors" for root in (whole, killed)]
        assert models[0].read_bytes() == models[1].read_bytes()
    fit = json.loads((killed / "report" / "fit.json").read_text(encoding="utf-8"))
    assert fit["set_aside"] == []
