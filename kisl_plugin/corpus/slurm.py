"""Tasks as job arrays of a Slurm cluster: submitted, and then run without us."""

import json
import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datatrove.executor import SlurmPipelineExecutor

from kisl_plugin.corpus.executors import (
    NotedTasks,
    Stage,
    clear_notes,
    executor_log,
    failures,
    output_to,
    task_log,
    unfinished,
)
from kisl_plugin.errors import InputError, KislError

# The jobs of submitted stages: which there are, and how each task stands.


@dataclass(frozen=True)
class StageStatus:
    """How a submitted stage stands: ranks by state, error lines by rank, ids of the jobs that are in the queue."""

    name: str
    tasks: int
    done: int
    running: list[int]
    queued: list[int]
    failed: dict[int, str]
    jobs: list[str]

    def lines(self) -> Iterator[str]:
        """The stage in one line, and a line for each failed task."""
        counts = [(self.done, "done"), (len(self.running), "running"), (len(self.queued), "queued")]
        counts.append((len(self.failed), "failed"))
        told = ", ".join(f"{count:,} {state}" for count, state in counts if count) or "none begun"
        jobs = f" (jobs {', '.join(self.jobs)})" if self.jobs else ""
        yield f"{self.name}: of {self.tasks:,} tasks {told}{jobs}"
        for rank, message in sorted(self.failed.items()):
            yield f"{self.name}: task {rank} failed: {message}"


def status(stages: Sequence[Stage]) -> list[StageStatus]:
    """How each stage stands, from its folder and from squeue.

    Raises:
        KislError: Slurm does not answer.
    """
    queue = _queue()
    return [_status(stage, queue) for stage in stages]


def refuse_while_active(stages: Sequence[Stage]) -> None:
    """Two jobs must not write the same shard.

    Raises:
        InputError: jobs of these stages are still queued or running.
    """
    jobs = [job for stage in status(stages) for job in stage.jobs]
    if jobs:
        raise InputError(
            f"{stages[0].folder.parent}: Slurm jobs {', '.join(jobs)} of an earlier call are still queued or running; "
            f"wait for them, or: scancel {' '.join(jobs)}"
        )


def write_jobs(stage: Stage, jobs: Sequence[str], array_size: int) -> None:
    """Remember which task of which job runs which rank, as datatrove deals them out."""
    if not jobs:
        return
    ranks = json.loads((stage.folder / "ranks_to_run.json").read_text(encoding="utf-8"))
    dealt = {job: ranks[i * array_size : (i + 1) * array_size] for i, job in enumerate(jobs)}
    _jobs_file(stage).write_text(json.dumps(dealt), encoding="utf-8")


def ask_slurm(*command: str) -> str:
    """What a Slurm command says.

    Raises:
        InputError: there is no such command.
        KislError: it fails.
    """
    try:
        said = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(
            f"no {command[0]} on this machine; --executor slurm submits from a cluster's login node"
        ) from None
    if said.returncode:
        error = (said.stderr.strip().splitlines() or [f"exit status {said.returncode}"])[-1]
        raise KislError(f"{' '.join(command)}: {error}")
    return said.stdout


def _queue() -> list[tuple[str, int, str]]:
    """Job, index in its array and state of each of the user's tasks that are queued or running."""
    told = ask_slurm("squeue", "--me", "--array", "--noheader", "--format=%F|%K|%T").splitlines()
    rows = [line.split("|") for line in told]
    return [(job, int(index), state) for job, index, state in rows if index.isdigit()]


def _status(stage: Stage, queue: Sequence[tuple[str, int, str]]) -> StageStatus:
    dealt = _read_jobs(stage)
    # datatrove fills up the last array with tasks that have no rank and end at once.
    ours = [(job, dealt[job][index : index + 1], state) for job, index, state in queue if job in dealt]
    queued = [rank for _, ranks, state in ours for rank in ranks if state == "PENDING"]
    running = [rank for _, ranks, state in ours for rank in ranks if state != "PENDING"]
    ended = {rank: str(error) for rank, error in failures(stage).items()}
    for rank in set(unfinished(stage)) - set(running) - set(queued):
        ended[rank] = f"it was killed (out of memory or time?); its log: {task_log(stage.folder, rank)}"
    return StageStatus(
        stage.name, stage.tasks, stage.done(), running, queued, ended, sorted({job for job, _, _ in ours}, key=int)
    )


def _read_jobs(stage: Stage) -> dict[str, list[int]]:
    try:
        return dict(json.loads(_jobs_file(stage).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _jobs_file(stage: Stage) -> Path:
    return stage.folder / "jobs.json"


# Tasks as job arrays of a Slurm cluster: submitted, and then run without us.


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of the cluster; None leaves it to the cluster.

    `sbatch` holds further options of sbatch (account, constraint …), which win; `workers` tasks run at a time, -1: as
    many as there is room for; `env_command` is run first in every job, by default what finds the programs of the
    environment that runs us.
    """

    partition: str | None = None
    time: str | None = None
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    workers: int = -1
    sbatch: Mapping[str, str] = field(default_factory=dict)
    env_command: str | None = None


@dataclass(frozen=True)
class SlurmRunner:
    """Submits each stage as a job array that waits for the stage before it."""

    options: SlurmOptions

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Submit what is not done; False: the cluster runs it; True if there is nothing left to do.

        Raises:
            InputError: jobs of these stages are still queued or running, or sbatch refuses what is asked.
            KislError: Slurm does not answer.
        """
        refuse_while_active(stages)
        submitted: list[str] = []
        for stage in stages:
            if stage.left():
                submitted = self._submit(stage, submitted) or submitted
        return not submitted

    def _submit(self, stage: Stage, after: Sequence[str]) -> list[str]:
        clear_notes(stage)
        executor = SlurmExecutor.of(stage, self.options, after)
        executor.refuse_bad_options()
        try:
            with output_to(executor_log(stage.folder)):
                executor.launch_job()
        except subprocess.CalledProcessError as error:
            before = f" after jobs {', '.join(executor.jobs)}" if executor.jobs else ""
            raise KislError(
                f"sbatch failed with exit status {error.returncode}{before} of {executor.job_name}; its words are above"
            ) from None
        finally:  # also what was submitted before an error or Ctrl-C
            write_jobs(stage, executor.jobs, executor.max_array_size)
        return executor.jobs


class SlurmExecutor(NotedTasks, SlurmPipelineExecutor):
    """datatrove's executor: it remembers all its jobs, quotes paths, and leaves out options that are None."""

    jobs: list[str]

    @classmethod
    def of(cls, stage: Stage, options: SlurmOptions, after: Sequence[str]) -> "SlurmExecutor":
        """The executor of a stage that waits until all jobs `after` have succeeded."""
        executor = cls(
            stage.pipeline,
            stage.tasks,
            options.time,
            options.partition,
            cpus_per_task=options.cpus_per_task,
            mem_per_cpu_gb=options.mem_per_cpu_gb,
            workers=options.workers,
            job_name=f"kisl_{stage.name}",
            qos=None,
            env_command=options.env_command or own_environment(),
            # Without it a job whose dependency failed stays in the queue for ever.
            sbatch_args={"kill-on-invalid-dep": "yes", **options.sbatch},
            max_array_size=max_array_size(),
            depends_job_id=":".join(after) or None,
            logging_dir=str(stage.folder),
        )
        executor.jobs = []
        executor.job_id_retriever = executor.remember
        return executor

    def remember(self, said: str) -> str:
        """The id in what sbatch said; datatrove asks for it after each of the arrays it submits."""
        found = re.search(r"Submitted batch job (\d+)", said)
        if found is None:
            raise KislError(f"sbatch said {said.strip()!r}; expected 'Submitted batch job ID'")
        self.jobs.append(found[1])
        return found[1]

    def launch_merge_stats(self) -> None:
        """No job for datatrove's sum of statistics: what is counted is with the results."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Datatrove's options, without those left to the cluster, quoted as sbatch reads them."""
        options = super().get_sbatch_args(max_array)
        return {key: shlex.quote(str(value)) if value else value for key, value in options.items() if value is not None}

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """Datatrove's script, with the folder's path quoted."""
        pickled = self.logging_dir.resolve_paths("executor.pik")
        return str(super().get_launch_file_contents(sbatch_args, run_script.replace(pickled, shlex.quote(pickled))))

    def refuse_bad_options(self) -> None:
        """Let sbatch look at the options before anything is submitted.

        Raises:
            InputError: what sbatch says against them.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".slurm") as script:
            script.write(self.get_launch_file_contents(self.get_sbatch_args(), "true"))
            script.flush()
            tried = subprocess.run(["sbatch", "--test-only", script.name], capture_output=True, text=True)
        if tried.returncode:
            said = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
            raise InputError(f"sbatch refuses the job {self.job_name}: {said.removeprefix('sbatch: error: ')}")


def own_environment() -> str:
    """The command by which a job finds the programs of the environment that runs us."""
    return f"export PATH={shlex.quote(sysconfig.get_path('scripts'))}{os.pathsep}$PATH"


def max_array_size() -> int:
    """The largest job array that the cluster takes; what is larger goes as several, one after the other."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask_slurm("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else 1001  # Slurm's own default
