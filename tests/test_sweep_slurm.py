"""A sweep on a real Slurm on this machine, where it is installed; everywhere what is submitted."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from sweep_files import ROWS, run, scores, write_models, write_sweep

from kisl_plugin.errors import InputError
from kisl_plugin.sweep import RunState, Sweep, read_sweep, run_sweep, state_of
from kisl_plugin.sweep.slurm import RunJob, jobs_in_queue, submit_sweep
from kisl_plugin.sweep.steps import checkpoint_step

sys.path.insert(0, str(Path(__file__).parent / "slurm"))
from one_machine import eventually, pretend, slurm_for_tests

SECONDS = 300.0
SLURM = {"partition": "debug", "hours": 1, "mem": "1G"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm_for_tests(tmp_path_factory.mktemp("slurm"), os.pathsep.join(sys.path)):
        yield


def states(sweep: Sweep) -> list[str]:
    jobs = jobs_in_queue(sweep)
    return [state_of(run, jobs).state for run in sweep.runs]


@pytest.mark.usefixtures("cluster")
def test_slurm_is_given_what_is_missing_and_a_failing_run_stops_no_other(world: Path, tmp_path: Path) -> None:
    overrides = {"large": {"optimizer.params.lr": 1e30}}
    file = write_sweep(tmp_path, world, frequency=[0, 4], seed=1, slurm=SLURM, overrides=overrides)
    sweep = read_sweep(file, tmp_path)
    status, output = run("run", file, "--out", tmp_path, "--slurm")
    assert (status, output.splitlines()[0]) == (0, "submitted 4 of 4 runs"), output
    again = run("run", file, "--out", tmp_path, "--slurm")
    assert again[1].startswith("submitted 0 of 4 runs; "), again
    eventually(lambda: states(sweep) == ["probed", "probed", "failed", "failed"], SECONDS)
    status, output = run("status", file, "--out", tmp_path)
    assert status == 1
    assert f"  {sweep.runs[3].name}: iteration " in output
    assert len(scores(tmp_path)) == 2
    # Called again, it submits only what failed.
    assert run("run", file, "--out", tmp_path, "--slurm")[1].startswith("submitted 2 of 4 runs; 2 probed\n")
    eventually(lambda: not jobs_in_queue(sweep), SECONDS)


@pytest.mark.usefixtures("cluster")
def test_a_job_that_is_signalled_requeues_itself_goes_on_and_ends_as_a_run_without_slurm(
    world: Path, tmp_path: Path
) -> None:
    models = write_models(tmp_path, world, checkpoint_factor=20)[:1]
    file = write_sweep(tmp_path, world, models=models, tokens=300 * 4 * ROWS, frequency=8, seed=1, slurm=SLURM)
    there, here = read_sweep(file, tmp_path / "slurm"), read_sweep(file, tmp_path / "here")
    (one,) = there.runs
    assert submit_sweep(there) == (1, "")
    eventually(lambda: checkpoint_step(one) > 0, SECONDS)
    # A second submission of the run, by someone who does not see the first, waits until it has ended.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.sweep.slurm.jobs_in_queue", lambda *_, **__: {})
        patch.setattr("kisl_plugin.sweep.slurm.state_of", lambda run, _: RunState(run, "waiting"))
        assert submit_sweep(there) == (1, "")
    jobs = squeue("%i %T %r")
    assert sorted(line.split()[1:] for line in jobs) == [["PENDING", "Dependency"], ["RUNNING", "None"]]
    # What Slurm sends at the time limit.
    job = next(line.split()[0] for line in jobs if "RUNNING" in line)
    subprocess.run(["scancel", "--signal=USR2", "--batch", job], check=True)
    eventually(lambda: states(there) == ["probed"] and not jobs_in_queue(there), SECONDS)
    log = one.log.read_text(encoding="utf-8")
    assert log.count("== ") == 2
    assert "resuming from " in log
    assert "training 300/300" in log
    assert [state.state for state in run_sweep(here, jobs=1)] == ["probed"]
    assert scores(tmp_path / "slurm") == scores(tmp_path / "here")
    weights = [sweep.runs[0].model_folder / "model.safetensors" for sweep in (there, here)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.matrix
@pytest.mark.usefixtures("cluster")
def test_a_job_outlives_its_time_limit_of_a_minute(world: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "matrix" not in request.config.option.markexpr:
        pytest.skip("takes minutes: pytest -m matrix")
    slurm = {**SLURM, "hours": 1 / 60, "signal_seconds": 5}
    models = write_models(tmp_path, world, checkpoint_factor=20)[:1]
    file = write_sweep(tmp_path, world, models=models, tokens=2000 * 4 * ROWS, frequency=8, seed=1, slurm=slurm)
    (one,) = (sweep := read_sweep(file, tmp_path)).runs
    assert submit_sweep(sweep) == (1, "")
    eventually(lambda: states(sweep) == ["probed"], 20 * SECONDS)
    log = one.log.read_text(encoding="utf-8")
    assert log.count("== ") == log.count("resuming from ") + 1 > 1
    assert "this job is timed-out" in log


def squeue(columns: str) -> list[str]:
    return subprocess.run(
        ["squeue", "-h", "-o", columns], capture_output=True, text=True, check=True
    ).stdout.splitlines()


# ---- what is submitted

PRETENDED = {
    "sbatch": 'cp "$1" "$FAKE/script_$(basename $1)"; echo Submitted batch job $RANDOM',
    "squeue": "exit 0",
    "srun": "exit 1",
}


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, which only record what they are given."""
    return pretend(PRETENDED, tmp_path / "pretended", monkeypatch)


def grid(world: Path, out: Path, slurm: dict[str, object]) -> Sweep:
    values = {
        "models": ["137m", "1b"],
        "frequency": 100,
        "data_path": str(world / "text"),
        "overrides": {"vocab_file": str(world / "tokenizer.json")},
        "slurm": slurm,
    }
    return read_sweep(values, out)


def test_the_section_slurm_becomes_options_of_sbatch(pretended: Path, world: Path, tmp_path: Path) -> None:
    slurm = {"partition": "a100", "gpus": 8, "hours": 24, "account": "kisl", "setup": ["module load cuda"]}
    assert submit_sweep(grid(world, tmp_path, {**slurm, "1b": {"nodes": 2}})) == (2, "")
    scripts = {path.read_text() for path in pretended.glob("script_*")}
    assert len(scripts) == 2
    for script in scripts:
        lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
        options = dict(line.split("=", 1) for line in lines if "=" in line)
        large = "kisl_1b_" in options["job-name"]
        assert (options["nodes"], options["ntasks-per-node"]) == (("2", "8") if large else ("1", "1"))
        assert (options["partition"], options["gpus-per-node"], options["time"]) == ("a100", "8", "1440")
        assert (options["dependency"], options["signal"], options["account"]) == ("singleton", "B:USR2@120", "kisl")
        assert "\nmodule load cuda\n" in script
        assert f"\nexec {sys.executable} -u -m submitit.core._submit " in script
        assert "requeue" in lines


@pytest.mark.parametrize(
    ("slurm", "message"),
    [({"gpus": "eight"}, "slurm.gpus is 'eight'; expected a whole number"),
     ({"1b": {"nodes": 0}}, "slurm.nodes is 0; expected a whole number, 1 or more"),
     ({"hours": -1}, "slurm.hours is -1; expected a number above 0")],
)  # fmt: skip
def test_a_wrong_option_is_refused_before_anything_is_submitted(
    pretended: Path, world: Path, tmp_path: Path, slurm: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        submit_sweep(grid(world, tmp_path, slurm))
    assert not list(pretended.glob("script_*"))


def test_without_slurm_the_error_says_where_to_submit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="squeue: not installed; --slurm submits from a machine of the cluster"):
        submit_sweep(grid(world, tmp_path, {}))
    assert jobs_in_queue(grid(world, tmp_path, {})) == {}


def test_a_job_that_saved_nothing_within_its_limit_ends_instead_of_starting_over_for_ever(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kisl_plugin.sweep.slurm.run_steps", lambda _: None)
    one = grid(world, tmp_path, {}).runs[0]
    one.folder.mkdir(parents=True)
    job = RunJob(one, 0, 1e-9)
    job()
    assert job.checkpoint() is None
    assert (
        state_of(one).reason == "1e-09 hours ended before the next checkpoint; lower checkpoint_factor or raise hours"
    )
    (one.folder / "latest").write_text("global_step10")
    assert job.checkpoint() is not None
    preempted = RunJob(one, 0, 24)
    preempted()
    assert preempted.checkpoint() is not None
