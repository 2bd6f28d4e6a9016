"""Where tasks run: processes of this machine, job arrays of a Slurm cluster, or a Ray cluster.

The clusters are datatrove's own executors. Its local one waits forever when a worker is killed, for want of memory for
example; here a pool of the standard library runs the tasks instead. What a task raised is read from the log file that
datatrove writes for each task, so that it reaches the user from any process or machine.
"""

import json
import logging
import multiprocessing
import os
import re
import shlex
import signal
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.utils.logging import setup_default_logger

from kisl_plugin.errors import InputError, KislError, needs_extra

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

__all__ = ["LocalRunner", "RayRunner", "Runner", "SlurmRunner", "Stage"]

TICK_SECONDS = 1.0
_LISTED = 8


@dataclass(frozen=True)
class Stage:
    """A datatrove pipeline that `tasks` tasks run, each on its share: rank 0 … tasks - 1.

    `folder` is datatrove's logging_dir. On a cluster every node must see it under the same path.
    """

    name: str
    pipeline: "list[PipelineStep]"
    tasks: int
    folder: Path

    def done(self) -> int:
        """The number of tasks that are done."""
        return self.tasks - len(self.left())

    def left(self) -> list[int]:
        """The ranks of the tasks that are not done, ascending."""
        return [rank for rank in range(self.tasks) if not self._marker(rank).exists()]

    def forget(self, rank: int) -> None:
        """Let a task run again."""
        self._marker(rank).unlink(missing_ok=True)

    def log(self, rank: int) -> Path:
        """The file in which datatrove logs what a task does."""
        return self.folder / "logs" / f"task_{rank:05d}.log"

    def clear_logs(self) -> None:
        """Remove the logs of tasks that are not done, so that they are not mistaken for those of the next run."""
        for rank in self.left():
            self.log(rank).unlink(missing_ok=True)

    def failures(self) -> dict[int, KislError]:
        """The errors of the tasks that failed, by rank; not of those that run or were killed."""
        errors: dict[int, KislError] = {}
        for rank in self.left():
            log = self.log(rank)
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
            if not any(line.startswith("Traceback (most recent call last)") for line in lines):
                continue
            # After the indented lines of a traceback follows "package.module.Kind: message".
            last = max(number for number, line in enumerate(lines) if line.startswith(" "))
            kind, _, message = next(line for line in lines[last + 1 :] if line).partition(": ")
            if kind.startswith("kisl_plugin."):
                errors[rank] = (InputError if kind.endswith(".InputError") else KislError)(message)
            else:
                errors[rank] = KislError(f"{self.name}: task {rank} failed with {kind}: {message}; its log: {log}")
        return errors

    def raise_failure(self) -> None:
        """Raise the first error of a stage that is not done and no longer runs.

        Raises:
            KislError: what a task raised; or that tasks were killed or never began.
        """
        if not (left := self.left()):
            return
        for error in self.failures().values():
            raise error
        killed = [rank for rank in left if self.log(rank).exists()]
        ranks = ", ".join(map(str, (killed or left)[:_LISTED])) + (" …" if len(killed or left) > _LISTED else "")
        what = "was killed (out of memory?) while it ran" if killed else "ended before it began"
        raise KislError(
            f"{self.name}: a process {what} task {ranks} of {self.tasks}; the same command goes on from here, with "
            f"fewer workers if memory was short; logs: {self.folder / 'logs'}"
        )

    def _marker(self, rank: int) -> Path:
        return self.folder / "completions" / f"{rank:05d}"  # datatrove's


class Runner(Protocol):
    """Runs stages one after the other, each only when the one before is done."""

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True when all is done, False when a cluster goes on without this process.

        `progress` is called about once a second, from another thread, and at the end. It must keep the stream it
        writes to: during a run sys.stderr leads nowhere.

        Raises:
            KislError: what a task raised, in whatever process; or, naming task and log, that it failed otherwise.
        """
        ...


@contextmanager
def _quiet() -> Iterator[None]:
    """Datatrove logs to standard error as well as to each task's log file; the terminal is for progress and results."""
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
            setup_default_logger()  # it keeps what sys.stderr is now
            yield
    finally:
        setup_default_logger()


@contextmanager
def _ticking(progress: Callable[[], None] | None) -> Iterator[None]:
    """Call `progress` about once a second until the block ends, and once then."""
    call = progress or (lambda: None)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_SECONDS):
            call()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        call()


# ---- this machine ----


@dataclass(frozen=True)
class LocalRunner:
    """Runs `workers` tasks at a time on this machine; a single one in this process."""

    workers: int = 1

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True. After the first task that fails no other is begun."""
        for stage in stages:
            stage.clear_logs()
            ranks = stage.left()
            executor = LocalPipelineExecutor(stage.pipeline, stage.tasks, logging_dir=str(stage.folder))
            with _ticking(progress), _quiet():
                if min(self.workers, len(ranks)) > 1:
                    _run_in_pool(executor, ranks, min(self.workers, len(ranks)))
                else:
                    all(_succeeds(executor, rank) for rank in ranks)
            stage.raise_failure()
        return True


def _succeeds(executor: LocalPipelineExecutor, rank: int) -> bool:
    """Run one task, on a pipeline of its own; an error is in its log."""
    try:
        deepcopy(executor)._run_for_rank(rank)
    except Exception:
        return False
    return True


def _run_in_pool(executor: LocalPipelineExecutor, ranks: Sequence[int], workers: int) -> None:
    context = multiprocessing.get_context("forkserver")
    parent_alive, leash = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(executor, parent_alive))
    try:
        tasks = [pool.submit(_succeeds_in_worker, rank) for rank in ranks]
        all(task.result() for task in as_completed(tasks))
    except BrokenProcessPool:  # one was killed: its log has no end
        pass
    except BaseException:  # Ctrl-C: the workers end with the leash
        leash.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        leash.close()


_executor: LocalPipelineExecutor


def _start_worker(executor: LocalPipelineExecutor, parent_alive: Connection) -> None:
    global _executor
    _executor = executor

    def leave_with_parent() -> None:
        """End when the parent closes its end or dies: this process must not write what a restart writes."""
        parent_alive.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives Ctrl-C and drops the leash
    threading.Thread(target=leave_with_parent, daemon=True).start()


def _succeeds_in_worker(rank: int) -> bool:
    with _quiet():
        return _succeeds(_executor, rank)


# ---- Ray ----


@dataclass(frozen=True)
class RayRunner:
    """Runs `workers` tasks at a time (-1: as many as there is room for), each with CPUs and memory reserved.

    `address` None: the cluster of RAY_ADDRESS, else one that `ray start` started on this machine, else a new one here.
    """

    address: str | None = None
    workers: int = -1
    cpus_per_task: int = 1
    mem_per_cpu_gb: float = 2.0

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True.

        Raises:
            InputError: ray is not installed, or there is no cluster at the address.
            KislError: see Runner.run.
        """
        with needs_extra("corpus,ray", "the ray executor"):
            import ray
        connected = ray.is_initialized()
        with _ticking(progress), _quiet():
            if not connected:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                address = self.address or os.environ.get("RAY_ADDRESS", "")
                host, _, port = address.removeprefix("ray://").rpartition(":")
                try:
                    if port.isdigit():  # Ray itself would try a wrong address for minutes
                        socket.create_connection((host, int(port)), timeout=10).close()
                    ray.init(address or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
                except (OSError, ValueError) as error:
                    reason = str(error).splitlines()[0]
                    raise InputError(f"no Ray cluster at {address or 'this machine'}: {reason}") from None
            try:
                for stage in stages:
                    stage.clear_logs()
                    RayPipelineExecutor(
                        stage.pipeline,
                        stage.tasks,
                        self.workers,
                        logging_dir=str(stage.folder),
                        cpus_per_task=self.cpus_per_task,
                        mem_per_cpu_gb=self.mem_per_cpu_gb,
                    ).run()
                    stage.raise_failure()
            finally:
                if not connected:
                    ray.shutdown()  # ends the tasks that still run
        return True


# ---- Slurm ----


@dataclass(frozen=True)
class SlurmRunner:
    """Submits each stage as job arrays that wait for those of the stage before; None leaves an option to the cluster.

    `workers` tasks run at a time, -1: as many as there is room for; `sbatch` contains further options of sbatch
    (account, constraint …), which take precedence; `env_command` is run first in every job; by default it puts the
    programs of this environment on the PATH.
    """

    partition: str | None = None
    time: str | None = None
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    workers: int = -1
    sbatch: Mapping[str, str] = field(default_factory=dict)
    env_command: str | None = None

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Submit what is not done; False: the cluster runs it; True if there is nothing left to do.

        Raises:
            InputError: jobs of these stages are still queued or running, or the path is not one for a Slurm script.
            KislError: a Slurm command fails.
        """
        folder = str(stages[0].folder.parent)
        if shlex.quote(folder) != folder:
            raise InputError(f"{folder}: datatrove's Slurm scripts need a path without spaces and special characters")
        jobs, _ = read_slurm_status(stages)
        if jobs:
            raise InputError(
                f"{folder}: Slurm jobs {', '.join(jobs)} of an earlier call are still queued or running; wait for "
                f"them, or: scancel {' '.join(jobs)}"
            )
        submitted = list[str]()
        # A larger array is submitted in parts, one after the other. 1001 is Slurm's default.
        limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", _slurm("scontrol", "show", "config"), re.MULTILINE)
        for stage in stages:
            if not stage.left():
                continue
            stage.clear_logs()
            executor = _SlurmExecutor(
                stage.pipeline,
                stage.tasks,
                self.time,
                self.partition,
                cpus_per_task=self.cpus_per_task,
                mem_per_cpu_gb=self.mem_per_cpu_gb,
                workers=self.workers,
                job_name=f"kisl_{stage.name}",
                qos=None,
                env_command=self.env_command
                or f"export PATH={shlex.quote(sysconfig.get_path('scripts'))}{os.pathsep}$PATH",
                # Otherwise a job whose dependency failed stays in the queue forever.
                sbatch_args={"kill-on-invalid-dep": "yes", **self.sbatch},
                max_array_size=int(limit[1]) if limit else 1001,
                depends_job_id=":".join(submitted) or None,
                logging_dir=str(stage.folder),
            )
            try:
                with _quiet():
                    executor.launch_job()
            except subprocess.CalledProcessError as error:
                raise KislError(
                    f"{stage.name}: sbatch failed with exit status {error.returncode}; its message is printed above"
                ) from None
            finally:  # also what was submitted before an error or Ctrl-C
                _jobs_file(stage).write_text(json.dumps(executor.jobs), encoding="utf-8")
            submitted = executor.jobs
        return not submitted


class _SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's executor, which remembers its job ids and leaves out options that are None."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.jobs: list[str] = []
        super().__init__(*args, job_id_retriever=self._remember, **kwargs)

    def _remember(self, output: str) -> str:
        """The id of the array that sbatch has submitted, from "Submitted batch job ID"."""
        self.jobs.append(output.split()[-1])
        return self.jobs[-1]

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Without the options that are left to the cluster."""
        return {key: value for key, value in super().get_sbatch_args(max_array).items() if value is not None}

    def launch_merge_stats(self) -> None:
        """No job that adds up datatrove's statistics: the results have their own."""


def read_slurm_status(stages: Sequence[Stage]) -> tuple[list[str], list[str]]:
    """The ids of these stages' jobs that are in the queue, and the status in lines: each stage, each failed task.

    Both are empty where nothing was submitted to Slurm.

    Raises:
        InputError: squeue is not installed.
        KislError: it fails.
    """
    jobs_of = {
        stage.name: json.loads(_jobs_file(stage).read_text(encoding="utf-8"))
        for stage in stages
        if _jobs_file(stage).exists()
    }
    if not jobs_of:
        return [], []
    queue = set(_slurm("squeue", "--me", "--noheader", "--format=%F").split())
    active, lines = list[str](), list[str]()
    for stage in stages:
        jobs = [job for job in jobs_of.get(stage.name, []) if job in queue]
        active += jobs
        failures: dict[int, str] = {rank: str(error) for rank, error in stage.failures().items()}
        if not jobs:
            killed = (rank for rank in stage.left() if rank not in failures and stage.log(rank).exists())
            failures |= {rank: f"it was killed (out of memory or time?); its log: {stage.log(rank)}" for rank in killed}
        in_queue = f", jobs {', '.join(jobs)} in the queue" if jobs else ""
        lines.append(f"{stage.name}: {stage.done():,} of {stage.tasks:,} tasks done{in_queue}")
        lines += [f"{stage.name}: task {rank} failed: {message}" for rank, message in sorted(failures.items())]
    return active, lines


def _jobs_file(stage: Stage) -> Path:
    return stage.folder / "jobs.json"


def _slurm(*command: str) -> str:
    """The output of a Slurm command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"no {command[0]} on this machine; --executor slurm submits from a login node") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise KislError(f"{' '.join(command)}: {reason}")
    return done.stdout
