"""Where tasks run: processes of this machine, job arrays of a Slurm cluster, or a Ray cluster.

The clusters are datatrove's own executors. Its local one waits forever when a worker is killed, for want of memory for
example; here a pool of the standard library runs the tasks instead. What a task raised is read from the log file that
datatrove writes for each task, so that it reaches the user from any process or machine.
"""

import logging
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
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

__all__ = ["LocalRunner", "RayRunner", "Runner", "SlurmRunner", "Stage", "read_slurm_status"]

TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Stage:
    """A datatrove pipeline that `tasks` tasks run, each on its share: rank 0 … tasks - 1.

    `folder` is datatrove's logging_dir. On a cluster every node must see it under the same path.
    """

    name: str
    pipeline: "list[PipelineStep | Callable[..., Any]]"
    tasks: int
    folder: Path

    def left(self) -> list[int]:
        """The ranks of the tasks that are not done, ascending."""
        return [rank for rank in range(self.tasks) if not self._marker(rank).exists()]

    def forget(self, rank: int) -> None:
        """Let a task run again."""
        self._marker(rank).unlink(missing_ok=True)

    def clear_logs(self) -> None:
        """Remove the logs of tasks that are not done, so that they are not mistaken for those of the next run."""
        for rank in self.left():
            self._log(rank).unlink(missing_ok=True)

    def failures(self, running: bool = False) -> dict[int, KislError]:
        """The errors of the tasks that failed, by rank; of those that were killed too, unless tasks are `running`."""
        errors: dict[int, KislError] = {}
        for rank in self.left():
            log = self._log(rank)
            if not log.exists():
                continue
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            if any(line.startswith("Traceback (most recent call last)") for line in lines):
                # After the indented lines of a traceback follows "package.module.Kind: message".
                last = max(number for number, line in enumerate(lines) if line.startswith(" "))
                kind, _, message = next(line for line in lines[last + 1 :] if line).partition(": ")
                if kind.startswith("kisl_plugin."):
                    errors[rank] = (InputError if kind.endswith(".InputError") else KislError)(message)
                    continue
                what = f"failed with {kind}: {message}; once that is solved the same command goes on from here"
            elif running:
                continue
            else:
                what = "ended since a process was killed (out of memory or time?); the same command goes on from here"
            errors[rank] = KislError(f"{self.name}: task {rank} {what}; its log: {log}")
        return errors

    def raise_failure(self) -> None:
        """Raise the first error of a stage that is not done and no longer runs.

        Raises:
            KislError: what a task raised; or that tasks were killed, or did not begin.
        """
        for error in self.failures().values():
            raise error
        if left := self.left():
            raise KislError(f"{self.name}: {len(left)} tasks did not begin; logs: {self.folder / 'logs'}")

    def _log(self, rank: int) -> Path:
        return self.folder / "logs" / f"task_{rank:05d}.log"  # datatrove's

    def _marker(self, rank: int) -> Path:
        return self.folder / "completions" / f"{rank:05d}"  # datatrove's


class Runner(Protocol):
    """Runs stages one after the other: tasks of a stage in any order, a stage after all tasks of the one before."""

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True when all is done, False when a cluster goes on without this process.

        `progress` is called about once a second, from another thread, and at the end. It must keep the stream it
        writes to: during a run sys.stderr leads nowhere.

        Raises:
            KislError: what a task raised, in whatever process; or, naming task and log, that it failed otherwise.
        """
        ...


@contextmanager
def _quiet(progress: Callable[[], None] | None = None) -> Iterator[None]:
    """Keep datatrove's log, which each task's file has too, off the terminal, and call `progress` as a Runner does."""
    call = progress or (lambda: None)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_SECONDS):
            call()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
            setup_default_logger()  # it keeps what sys.stderr is now
            yield
    finally:
        setup_default_logger()
        over.set()
        thread.join()
        call()


@dataclass(frozen=True)
class LocalRunner:
    """Runs `workers` tasks at a time on this machine; a single one in this process."""

    workers: int = 1

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True. After the first task that fails no other is begun."""
        for stage in stages:
            stage.clear_logs()
            ranks = stage.left()
            workers = min(self.workers, len(ranks))
            executor = LocalPipelineExecutor(stage.pipeline, stage.tasks, logging_dir=str(stage.folder))
            with _quiet(progress):
                if workers > 1:
                    _run_in_pool(executor, ranks, workers)
                else:
                    all(_succeeds(deepcopy(executor), rank) for rank in ranks)
            stage.raise_failure()
        return True


def _succeeds(executor: LocalPipelineExecutor, rank: int) -> bool:
    """Run one task, on a pipeline that no other task uses; an error is in its log."""
    try:
        executor._run_for_rank(rank)
    except Exception:
        return False
    return True


def _run_in_pool(executor: LocalPipelineExecutor, ranks: Sequence[int], workers: int) -> None:
    context = multiprocessing.get_context("forkserver")
    parent_alive, leash = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(parent_alive,))
    try:
        tasks = [pool.submit(_succeeds, executor, rank) for rank in ranks]
        all(task.result() for task in as_completed(tasks))
    except BrokenProcessPool:  # one was killed: its log has no end
        pass
    except BaseException:  # Ctrl-C: the workers end with the leash
        leash.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        leash.close()


def _start_worker(parent_alive: Connection) -> None:
    def leave_with_parent() -> None:
        """End when the parent closes its end or dies: this process must not write what a restart writes."""
        parent_alive.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives Ctrl-C and drops the leash
    threading.Thread(target=leave_with_parent, daemon=True).start()
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    setup_default_logger()


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
        """Run what is not done yet; True. An InputError: ray is not installed, or there is no cluster."""
        with needs_extra("corpus,ray", "the ray executor"):
            import ray
        connected = ray.is_initialized()
        with _quiet(progress):
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


@dataclass(frozen=True)
class SlurmRunner:
    """Submits each stage as a job array that waits for the one of the stage before; None: what the cluster prescribes.

    `workers` tasks run at a time, -1: as many as there is room for; `sbatch` contains further options of sbatch
    (account, constraint …), which take precedence. Slurm gives a job the variables of this process; the programs of
    this environment are put on its PATH.
    """

    partition: str | None = None
    time: str | None = None
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    workers: int = -1
    sbatch: Mapping[str, str] = field(default_factory=dict)

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Submit what is not done; False: the cluster runs it; True if there is nothing left to do.

        No job of these stages may be in the queue (see `read_slurm_status`).

        Raises:
            InputError: sbatch is not installed, or the path is not one for a Slurm script.
            KislError: sbatch fails.
        """
        folder = str(stages[0].folder.parent)
        if shlex.quote(folder) != folder:
            raise InputError(f"{folder}: datatrove's Slurm scripts need a path without spaces and special characters")
        programs = f"export PATH={shlex.quote(sysconfig.get_path('scripts'))}{os.pathsep}$PATH"
        job: str | None = None
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
                env_command=programs,
                # Otherwise a job whose dependency failed stays in the queue forever.
                sbatch_args={"kill-on-invalid-dep": "yes", **self.sbatch},
                max_array_size=-1,
                depends_job_id=job,
                logging_dir=str(stage.folder),
            )
            try:
                with _quiet():
                    executor.launch_job()
            except FileNotFoundError:
                raise InputError("no sbatch on this machine; --executor slurm submits from a login node") from None
            except subprocess.CalledProcessError as error:
                raise KislError(
                    f"{stage.name}: sbatch failed with exit status {error.returncode}; its message is printed above"
                ) from None
            job = str(executor.job_id)
            _job_file(stage).write_text(job, encoding="utf-8")
        return job is None


class _SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's executor, which leaves out options that are None."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Without the options that are left to the cluster."""
        return {key: value for key, value in super().get_sbatch_args(max_array).items() if value is not None}

    def launch_merge_stats(self) -> None:
        """No job that adds up datatrove's statistics: the results have their own."""


def read_slurm_status(stages: Sequence[Stage]) -> tuple[list[str], list[str]]:
    """The ids of these stages' jobs that are in the queue, and the status in lines: each stage, each failed task.

    Both are empty where nothing was submitted to Slurm.

    Raises:
        KislError: squeue is not installed, or fails.
    """
    job_of = {stage.name: file.read_text("utf-8") for stage in stages if (file := _job_file(stage)).exists()}
    if not job_of:
        return [], []
    try:
        command = ["squeue", "--me", "--noheader", "--format=%F"]
        queue = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or error
        raise KislError(
            f"squeue: {str(reason).strip()}; the build's jobs {', '.join(job_of.values())} may run"
        ) from None
    active, lines = list[str](), list[str]()
    for stage in stages:
        line = f"{stage.name}: {stage.tasks - len(stage.left()):,} of {stage.tasks:,} tasks done"
        running = (job := job_of.get(stage.name, "")) in queue
        if running:
            active.append(job)
            line += f", job {job} in the queue"
        failures = stage.failures(running)
        lines += [line, *(f"{stage.name}: task {rank} failed: {error}" for rank, error in failures.items())]
    return active, lines


def _job_file(stage: Stage) -> Path:
    return stage.folder / "job"
