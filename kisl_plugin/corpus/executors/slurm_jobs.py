"""The jobs of submitted stages: which there are, and how each task stands."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kisl_plugin.corpus.executors.logs import task_log
from kisl_plugin.corpus.executors.notes import failures, unfinished
from kisl_plugin.corpus.executors.stages import Stage
from kisl_plugin.errors import InputError, KislError


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
