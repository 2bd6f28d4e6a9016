"""A real Slurm on this machine where it is installed; everywhere the scripts that are submitted."""

import difflib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove")

from corpus_builds import make_world, several_files
from corpus_toy_blocks import PYTHONPATH, TASKS, began, expected, merged, stages
from datatrove.executor import SlurmPipelineExecutor

from kisl_plugin.corpus.executors import LocalRunner, SlurmRunner, Stage, read_slurm_status
from kisl_plugin.errors import InputError, KislError

sys.path.insert(0, str(Path(__file__).parent / "slurm"))
from one_machine import eventually, pretend, slurm_for_tests

SECONDS = 90.0
SMALL = SlurmRunner(mem_per_cpu_gb=1)

# ---- the real one ----


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm_for_tests(tmp_path_factory.mktemp("slurm"), PYTHONPATH):
        yield


@pytest.mark.usefixtures("cluster")
def test_a_failed_task_on_slurm_is_reported_and_the_next_call_submits_only_what_is_left(tmp_path: Path) -> None:
    work = stages(tmp_path / "slurm", "input", troubled=True)
    assert SMALL.run(work) is False
    assert len(read_slurm_status(work)[0]) == 2
    assert _at_rest(work) == [
        "shards: 3 of 4 tasks done",
        "shards: task 2 failed: facts.jsonl: line 3: subject is 7; expected text",
        "merge: 0 of 1 tasks done",  # and it does not wait in the queue forever
    ]
    (tmp_path / "slurm" / "trouble").unlink()
    assert SMALL.run(work) is False
    assert _at_rest(work) == ["shards: 4 of 4 tasks done", "merge: 1 of 1 tasks done"]
    assert began(tmp_path / "slurm") == [1, 1, 2, 1]
    assert SMALL.run(work) is True
    assert LocalRunner(1).run(stages(tmp_path / "local"))
    assert merged(tmp_path / "slurm") == merged(tmp_path / "local") == expected()


@pytest.mark.usefixtures("cluster")
def test_the_corpus_that_slurm_builds_is_the_one_that_is_built_here(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files(4))
    there = ("slurm", "--tasks", "3", "--executor", "slurm", "--workers", "3", "--mem-per-cpu", "1")
    assert re.search(r"^shards: \d of 3 tasks done, job \d+ in the queue", world.kisl(*there).output)

    def is_built() -> bool:
        result = world.kisl(*there)
        assert result.exit_code == 0, result.output
        return (tmp_path / "slurm.json").exists()

    eventually(is_built, SECONDS)
    world.build("here")
    for ending in (".bin", ".idx", ".triples.csv"):
        assert (tmp_path / f"slurm{ending}").read_bytes() == (tmp_path / f"here{ending}").read_bytes()


def _at_rest(work: list[Stage]) -> list[str]:
    eventually(lambda: not read_slurm_status(work)[0], SECONDS)
    return read_slurm_status(work)[1]


# ---- what is submitted ----

PRETENDED = {
    "sbatch": 'n=$(($(cat "$FAKE/n" 2>/dev/null || echo 0) + 1)); echo $n > "$FAKE/n"\n'
    'echo "$@" > "$FAKE/call_$n"; for script; do :; done; cp "$script" "$FAKE/script_$n"\n'
    "echo Submitted batch job $n",
    "scontrol": "echo node1",
    "squeue": "exit 0",
}


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, which only record what they are given."""
    return pretend(PRETENDED, tmp_path / "pretended", monkeypatch)


def test_the_script_is_datatrove_s_own_but_for_what_is_named_here(pretended: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "partition": "cpu",
        "time": "01:00:00",
        "cpus_per_task": 2,
        "mem_per_cpu_gb": 4,
        "workers": 3,
    }
    ours, theirs = stages(tmp_path / "ours")[0], stages(tmp_path / "theirs")[0]
    SlurmRunner(**options, sbatch={"account": "a1"}).run([ours])
    SlurmPipelineExecutor(
        theirs.pipeline,
        TASKS,
        job_name="kisl_shards",
        logging_dir=str(theirs.folder),
        sbatch_args={"account": "a1"},
        **options,
    ).run()
    own = (ours.folder / "launch_script.slurm").read_text()
    other = (theirs.folder / "launch_script.slurm").read_text().replace(str(theirs.folder), str(ours.folder))
    changes = [line for line in difflib.ndiff(other.splitlines(), own.splitlines()) if line[0] in "+-"]
    assert changes[:2] == ["+ #SBATCH --kill-on-invalid-dep=yes", "- #SBATCH --qos=normal"]
    assert sorted(changes[2:]) == [f"+ export PATH={Path(sys.executable).parent}:$PATH", "- "]


def test_the_merge_waits_for_all_shards(pretended: Path, tmp_path: Path) -> None:
    SMALL.run(stages(tmp_path / "out"))
    calls = [(pretended / f"call_{n}").read_text().split() for n in (1, 2)]
    assert [call[:-1] for call in calls] == [
        ["--export=ALL,RUN_OFFSET=0"],
        ["--export=ALL,RUN_OFFSET=0", "--dependency=afterok:1"],
    ]
    assert not (pretended / "call_3").exists()  # no job to sum up statistics


def test_the_submitted_job_runs_with_datatrove_s_own_program(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SMALL.run(stages(tmp_path / "out"))
    variables = {"PYTHONPATH": PYTHONPATH, "SLURM_NODELIST": "node1"}
    for index in (0, 3):
        array = {"SLURM_ARRAY_TASK_ID": str(index), "RUN_OFFSET": "0"}
        script = (pretended / "script_1").read_text().replace("srun  -l -n 1 ", "exec ")
        job = subprocess.run(
            ["bash", "-c", script], env=os.environ | variables | array, cwd=tmp_path, capture_output=True, text=True
        )
        assert job.returncode == 0, job.stderr
    assert began(tmp_path / "out") == [1, 0, 0, 1]


def test_a_path_that_a_script_would_misread_is_refused(pretended: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Slurm scripts need a path without spaces and special characters"):
        SMALL.run(stages(tmp_path / "with space"))


def test_jobs_that_were_submitted_before_sbatch_failed_are_remembered(
    pretended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = (pretended / "sbatch").read_text() + "\n[ $n -lt 2 ] || exit 1"
    (pretended / "sbatch").write_text(limited)
    with pytest.raises(KislError, match=r"merge: sbatch failed with exit status 1; its message is printed above"):
        SMALL.run(stages(tmp_path / "out"))
    (pretended / "squeue").write_text("#!/bin/bash\necho 1\n")
    assert read_slurm_status(stages(tmp_path / "out"))[0] == ["1"]


def test_only_the_options_that_were_passed_reach_slurm(pretended: Path, tmp_path: Path) -> None:
    SlurmRunner().run(stages(tmp_path / "out"))
    script = (pretended / "script_1").read_text()
    assert f"export PATH={sysconfig.get_path('scripts')}:$PATH" in script
    assert "--partition" not in script
    assert "--time" not in script


def test_without_slurm_the_error_says_where_to_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on this machine; --executor slurm submits from a login node"):
        SMALL.run(stages(tmp_path / "out"))
