"""The real Slurm of tests/slurm where it is installed; everywhere what is submitted, beside datatrove's own."""

import difflib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("datatrove")

from corpus_builds import make_world, several_files
from corpus_toy_blocks import TASKS, began, expected, merged, stages
from datatrove.executor import SlurmPipelineExecutor
from kisl_plugin.corpus.slurm import SlurmOptions, SlurmRunner, StageStatus, status

from kisl_plugin.corpus.executors import LocalRunner, Stage
from kisl_plugin.errors import InputError, KislError

sys.path.insert(0, str(Path(__file__).parent / "slurm"))
from one_machine import missing_programs, one_machine_slurm

SECONDS = 90.0
SMALL = SlurmRunner(SlurmOptions(mem_per_cpu_gb=1))

# ---- the real one ----


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if missing := missing_programs():
        pytest.skip(f"a real Slurm needs {', '.join(missing)} on this machine (Debian: slurm-wlm, munge)")
    with one_machine_slurm(tmp_path_factory.mktemp("slurm")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in (environment | {"PYTHONPATH": str(Path(__file__).parent)}).items():
            patch.setenv(name, value)
        yield


@pytest.mark.usefixtures("cluster")
def test_a_failed_task_on_slurm_is_told_and_the_next_call_submits_only_what_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    work = stages(folder, "input", troubled=True)
    assert SMALL.run(work) is False
    with pytest.raises(InputError, match=r"Slurm jobs \d+, .* still queued or running; wait for them, or: scancel"):
        SMALL.run(work)
    shards, merge = _at_rest(work)
    assert shards.failed == {2: "facts.jsonl: line 3: subject is 7; expected text"}
    assert (shards.done, merge.done) == (TASKS - 1, 0)  # and the merge does not wait in the queue for ever
    (folder / "trouble").unlink()
    assert SMALL.run(work) is False
    assert [line for stage in _at_rest(work) for line in stage.lines()] == [
        "shards: of 4 tasks 4 done",
        "merge: of 1 tasks 1 done",
    ]
    assert began(folder) == [1, 1, 2, 1]
    assert SMALL.run(work) is True
    assert LocalRunner(1).run(stages(tmp_path / "local"))
    assert merged(folder) == merged(tmp_path / "local") == expected()


@pytest.mark.usefixtures("cluster")
def test_a_task_that_slurm_ends_is_told_and_runs_again(tmp_path: Path) -> None:
    work = stages(tmp_path, "hang", troubled=True)
    SMALL.run(work)
    _eventually(lambda: (tmp_path / "hanging").exists())
    shards, merge = status(work)
    assert 2 in shards.running
    assert merge.queued == [0]
    subprocess.run(["scancel", f"{shards.jobs[0]}_2"], check=True)
    shards, merge = _at_rest(work)
    assert list(shards.failed) == [2]
    assert shards.failed[2].startswith("it was killed (out of memory or time?); its log: ")
    (tmp_path / "trouble").unlink()
    SMALL.run(work)
    _at_rest(work)
    assert merged(tmp_path) == expected()


@pytest.mark.usefixtures("cluster")
def test_the_corpus_that_slurm_builds_is_the_one_that_is_built_here(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files(4))
    there = ("slurm", "--tasks", "3", "--executor", "slurm", "--workers", "3", "--mem-per-cpu", "1")
    assert re.search(r"^shards: of 3 tasks 3 (queued|running)", world.kisl(*there).output)

    def is_built() -> bool:
        said = world.kisl(*there)
        assert said.exit_code == 0, said.output
        return (tmp_path / "slurm.json").exists()

    _eventually(is_built)
    world.build("here")
    for ending in (".bin", ".idx", ".triples.csv"):
        assert (tmp_path / f"slurm{ending}").read_bytes() == (tmp_path / f"here{ending}").read_bytes()


@pytest.mark.usefixtures("cluster")
def test_what_sbatch_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    runner = SlurmRunner(SlurmOptions(partition="nowhere", mem_per_cpu_gb=1))
    with pytest.raises(InputError, match=r"sbatch refuses the job kisl_shards: .*[Ii]nvalid partition"):
        runner.run(stages(tmp_path))


def _at_rest(work: list[Stage]) -> list[StageStatus]:
    _eventually(lambda: not any(stage.jobs for stage in status(work)))
    return status(work)


def _eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, f"not within {SECONDS:.0f} s"
        time.sleep(0.3)


# ---- what is submitted ----

PRETENDED = {
    "sbatch": 'case "$1" in --test-only) exit 0;; esac\n'
    'n=$(($(cat "$FAKE/n" 2>/dev/null || echo 0) + 1)); echo $n > "$FAKE/n"\n'
    'echo "$@" > "$FAKE/call_$n"; for script; do :; done; cp "$script" "$FAKE/script_$n"\n'
    "echo Submitted batch job $n",
    "scontrol": 'case "$2" in config) echo "MaxArraySize            = 3";; hostnames) echo node1;; esac',
    "squeue": "exit 0",
}


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, which only write down what they are told."""
    folder = tmp_path / "pretended"
    folder.mkdir()
    for name, script in PRETENDED.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder


def test_the_script_is_datatrove_s_own_but_for_what_is_named_here(pretended: Path, tmp_path: Path) -> None:
    asked = {"partition": "cpu", "time": "01:00:00", "cpus_per_task": 2, "mem_per_cpu_gb": 4, "workers": 3}
    ours, theirs = stages(tmp_path / "ours")[0], stages(tmp_path / "theirs")[0]
    SlurmRunner(SlurmOptions(**asked, sbatch={"account": "a1"})).run([ours])
    SlurmPipelineExecutor(
        theirs.pipeline,
        TASKS,
        job_name="kisl_shards",
        max_array_size=3,
        logging_dir=str(theirs.folder),
        sbatch_args={"account": "a1"},
        **asked,
    ).run()
    own = (ours.folder / "launch_script.slurm").read_text()
    other = (theirs.folder / "launch_script.slurm").read_text().replace(str(theirs.folder), str(ours.folder))
    changes = [line for line in difflib.ndiff(other.splitlines(), own.splitlines()) if line[0] in "+-"]
    assert changes[:2] == ["+ #SBATCH --kill-on-invalid-dep=yes", "- #SBATCH --qos=normal"]
    assert sorted(changes[2:]) == [f"+ export PATH={Path(sys.executable).parent}:$PATH", "- "]


def test_the_merge_waits_for_every_array_of_the_shards(pretended: Path, tmp_path: Path) -> None:
    SMALL.run(stages(tmp_path / "out"))
    calls = [(pretended / f"call_{n}").read_text().split() for n in (1, 2, 3)]
    assert [call[:-1] for call in calls] == [
        ["--export=ALL,RUN_OFFSET=0"],
        ["--export=ALL,RUN_OFFSET=1", "--dependency=afterany:1"],
        ["--export=ALL,RUN_OFFSET=0", "--dependency=afterok:1:2"],
    ]
    assert not (pretended / "call_4").exists()  # no job to sum up statistics


def test_the_submitted_job_runs_with_datatrove_s_own_program(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's; $(touch bad)"
    SMALL.run(stages(folder))
    variables = {"PYTHONPATH": str(Path(__file__).parent), "SLURM_NODELIST": "node1"}
    for index in range(TASKS + 1):  # the last array is filled up with tasks that have nothing to do
        array = {"SLURM_ARRAY_TASK_ID": str(index % 3), "RUN_OFFSET": str(index // 3)}
        script = (pretended / f"script_{1 + index // 3}").read_text().replace("srun  -l -n 1 ", "exec ")
        job = subprocess.run(
            ["bash", "-c", script], env=os.environ | variables | array, cwd=tmp_path, capture_output=True, text=True
        )
        assert job.returncode == 0, job.stderr
    assert began(folder) == [1] * TASKS
    assert not (tmp_path / "bad").exists()


def test_jobs_that_were_submitted_before_sbatch_failed_are_remembered(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = (pretended / "sbatch").read_text() + "\n[ $n -lt 2 ] || exit 1"
    (pretended / "sbatch").write_text(limited)
    with pytest.raises(KislError, match=r"sbatch failed with exit status 1 after jobs 1 of kisl_shards"):
        SMALL.run(stages(tmp_path / "out"))
    (pretended / "squeue").write_text("#!/bin/bash\necho '1|0|PENDING'\n")
    with pytest.raises(InputError, match=r"Slurm jobs 1 of an earlier call are still queued or running"):
        SMALL.run(stages(tmp_path / "out"))


def test_an_environment_command_of_one_s_own_takes_the_place_of_ours(pretended: Path, tmp_path: Path) -> None:
    SlurmRunner(SlurmOptions(env_command="module load python")).run(stages(tmp_path / "out"))
    script = (pretended / "script_1").read_text()
    assert "\nmodule load python\n" in script.replace("  ", "")
    assert "PATH" not in script
    assert "--partition" not in script
    assert "--time" not in script


def test_without_slurm_the_error_says_where_to_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no squeue on this machine; --executor slurm submits from a cluster's login"):
        SMALL.run(stages(tmp_path / "out"))


def test_a_slurm_that_does_not_answer_is_no_traceback(pretended: Path, tmp_path: Path) -> None:
    (pretended / "squeue").write_text("#!/bin/bash\necho 'slurm_load_jobs error: Unable to contact' >&2; exit 1\n")
    with pytest.raises(KislError, match=r"squeue --me .*: slurm_load_jobs error: Unable to contact"):
        status(stages(tmp_path / "out"))
