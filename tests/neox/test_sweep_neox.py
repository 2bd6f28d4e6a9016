"""A sweep with the real GPT-NeoX: killed and resumed, equal to one that is not; and on several nodes of a Slurm."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import SPY, fed_rows
from sweep_files import NEOX, run, scores, start, write_models, write_sweep
from test_layouts import counted, expected
from test_nodes import BIN

from kisl_plugin.sweep import Sweep, read_sweep, state_of
from kisl_plugin.sweep.steps import checkpoint_step, run_steps

pytest.importorskip("lm_eval")


def kill_and_resume(file: Path, out: Path, conditions: list[Callable[[Sweep], bool]]) -> None:
    """Run the sweep; at each condition the command is killed and called again."""
    sweep = read_sweep(file, out)
    for condition in conditions:
        process = start("run", file, "--out", out, "--jobs", "2")
        while not condition(sweep):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
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


@pytest.mark.matrix
def test_a_job_of_several_nodes_starts_the_training_with_srun(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = write_models(tmp_path, world, **NEOX)[:1]
    file = write_sweep(tmp_path, world, models=models, engine="neox", frequency=3, seed=7)
    (one,) = read_sweep(file, tmp_path).runs
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text("#!/bin/sh\necho localhost\n")
    (programs / "scontrol").chmod(0o755)
    (tmp_path / "fed").mkdir()
    # What a batch job of two nodes has; its tasks are started here.
    slurm = {"JOB_NUM_NODES": "2", "JOB_ID": "77", "NTASKS_PER_NODE": "2", "NTASKS": "2", "PROCID": "0", "LOCALID": "0"}
    variables = {f"SLURM_{name}": value for name, value in slurm.items()}
    variables |= {"PATH": f"{programs}:{BIN}:{os.environ['PATH']}", "KISL_CPU": "1", "KISL_SPY": str(tmp_path / "fed")}
    variables["PYTHONPATH"] = os.pathsep.join([str(SPY), *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run_steps(one)
    assert state_of(one).state == "probed"
    assert len(list((tmp_path / "fed").glob("dp*"))) == 2
    assert counted(fed_rows(tmp_path / "fed"), world) == expected(world)
    nodes = json.loads((one.folder / "nodes.yml").read_text())
    assert (nodes["launcher"], nodes["master_port"]) == ("slurm", 20_077)
    assert (one.folder / "hostfile").read_text() == "localhost slots=2\n"
