"""Where tasks run: in this process, in processes of this machine, on a Slurm or on a Ray cluster."""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.utils.logging import setup_default_logger
from datatrove.utils.stats import PipelineStats

from kisl_plugin.errors import InputError, KislError

# A stage of the work, cut into tasks; what runs stages; the markers by which a restart knows what is done.

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep


@dataclass(frozen=True)
class Stage:
    """A datatrove pipeline that `tasks` tasks run, each on its share: rank 0 … tasks - 1.

    `folder` is datatrove's logging_dir: completions/, stats/, logs/, and our errors/. On a cluster it must lie where
    every node sees it.
    """

    name: str
    pipeline: list[PipelineStep]
    tasks: int
    folder: Path

    def done(self) -> int:
        """How many of the tasks are done."""
        return self.tasks - len(self.left())

    def left(self) -> list[int]:
        """The ranks of the tasks that are not done, ascending."""
        return [rank for rank in range(self.tasks) if not marker(self.folder, rank).exists()]


class Runner(Protocol):
    """Runs stages one after the other, each only when the one before is done."""

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True when all is done, False when a cluster goes on without us.

        `progress` is called about once a second, from another thread, while we wait. It must hold the
        stream it writes to: during a run sys.stdout and sys.stderr are a log file.

        Raises:
            KislError: what a task raised, in whatever process; or, naming task and log, that it failed otherwise.
        """
        ...


def marker(folder: Path, rank: int) -> Path:
    """The file by which datatrove knows that task `rank` of the stage in `folder` is done."""
    return folder / "completions" / f"{rank:05d}"


def forget(folder: Path, rank: int) -> None:
    """Have task `rank` of the stage in `folder` run again."""
    marker(folder, rank).unlink(missing_ok=True)


# Where tasks run: in this process, in processes of this machine, on a Slurm or on a Ray cluster.

__all__ = ["Runner", "Stage", "forget"]


# What datatrove and the tasks say goes to log files, not to the user's terminal; what we say while we wait.

TICK_SECONDS = 1.0


def executor_log(folder: Path) -> Path:
    """Where a stage's processes log what is no single task's."""
    return folder / "logs" / "executor.log"


def task_log(folder: Path, rank: int) -> Path:
    """Where datatrove logs what task `rank` does."""
    return folder / "logs" / f"task_{rank:05d}.log"


@contextmanager
def output_to(file: Path) -> Iterator[None]:
    """What this process prints, datatrove's log with it, goes to the end of `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        setup_default_logger()  # it takes hold of sys.stderr as it is now
        try:
            yield
        finally:
            stream.flush()
    setup_default_logger()


@contextmanager
def ticking(progress: Callable[[], None] | None) -> Iterator[None]:
    """Call `progress` about once a second until the block ends, and once then."""
    if progress is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_tick, args=(progress, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    progress()


def _tick(progress: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(TICK_SECONDS):
        progress()


# A note for each task: an error in another process, or on another machine, reaches the user as its own one line.


class NotedTasks(PipelineExecutor):
    """To be put before a datatrove executor: every task keeps its note in errors/ of the stage's folder."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        with noting(Path(self.logging_dir.path), rank):
            # Not super(): Ray's logs to a folder of /tmp that a node's users share; a killed task's log is lost there.
            return PipelineExecutor._run_for_rank(self, rank, local_rank, node_rank)

    def succeeds(self, rank: int) -> bool:
        """Run one task on a pipeline of its own; False where it fails: its error is noted."""
        task = deepcopy(self)
        try:
            task._run_for_rank(rank)
        except KislError:
            return False
        return True


@contextmanager
def noting(folder: Path, rank: int) -> Iterator[None]:
    """Keep a note while task `rank` runs: withdrawn when it is done, its error where it fails.

    The note is there from the start, so that a task which is killed leaves it behind.

    Raises:
        KislError: the task's own, or one that names the task and its log.
    """
    note = _note(folder, rank)
    _write(note, {"state": "running"})
    try:
        yield
    except Exception as error:
        known = error if isinstance(error, KislError) else _unexpected(folder, rank, error)
        _write(note, {"state": "failed", "message": str(known), "exit_status": known.exit_status})
        raise known from error
    except BaseException:  # Ctrl-C is no failure of the task
        note.unlink(missing_ok=True)
        raise
    note.unlink(missing_ok=True)


def clear_notes(stage: Stage) -> None:
    """Take away what earlier runs noted."""
    for rank in range(stage.tasks):
        _note(stage.folder, rank).unlink(missing_ok=True)


def failures(stage: Stage) -> dict[int, KislError]:
    """The noted errors of the tasks that are not done, by rank."""
    notes = {rank: _read(_note(stage.folder, rank)) for rank in stage.left()}
    return {rank: _error(note) for rank, note in notes.items() if note.get("state") == "failed"}


def unfinished(stage: Stage) -> list[int]:
    """The tasks that began and neither ended nor failed: they run, or were killed."""
    return [rank for rank in stage.left() if _read(_note(stage.folder, rank)).get("state") == "running"]


def raise_failure(stage: Stage) -> None:
    """Raise the first noted error of a stage that is not done and runs no more.

    Raises:
        KislError: that error; or that tasks were killed or never began.
    """
    left = stage.left()
    if not left:
        return
    failed = failures(stage)
    if failed:
        raise failed[min(failed)]
    killed = unfinished(stage)
    what = "was killed (out of memory?) while it ran" if killed else "ended before it began"
    raise KislError(
        f"{stage.name}: a process {what} task {_listed(killed or left)} of {stage.tasks}; the same command goes on "
        f"from here, with fewer workers if memory was short; logs: {stage.folder / 'logs'}"
    )


def _listed(ranks: list[int], shown: int = 8) -> str:
    return ", ".join(map(str, ranks[:shown])) + (" …" if len(ranks) > shown else "")


def _unexpected(folder: Path, rank: int, error: Exception) -> KislError:
    said = (str(error).strip().splitlines() or [""])[0]
    return KislError(
        f"{folder.name}: task {rank} failed with {type(error).__name__}: {said}; its log: {task_log(folder, rank)}"
    )


def _error(note: dict[str, Any]) -> KislError:
    kind = InputError if note["exit_status"] == InputError.exit_status else KislError
    return kind(note["message"])


def _note(folder: Path, rank: int) -> Path:
    return folder / "errors" / f"{rank:05d}.json"


def _read(note: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(note.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _write(note: Path, content: dict[str, Any]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    fresh.replace(note)


# Tasks on this machine: in this process, or in some processes beside it.


@dataclass(frozen=True)
class LocalRunner:
    """Runs `workers` tasks at a time on this machine; one at a time needs no other process."""

    workers: int = 1

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Run what is not done yet; True. Raises what `Runner.run` says."""
        for stage in stages:
            clear_notes(stage)
            executor = LocalExecutor(
                stage.pipeline, stage.tasks, self.workers, str(stage.folder), start_method="forkserver"
            )
            with ticking(progress), output_to(executor_log(stage.folder)):
                executor.run()
            raise_failure(stage)
        return True


class LocalExecutor(NotedTasks, LocalPipelineExecutor):
    """datatrove's executor, but it ends, and does not wait for ever, when one of its processes is killed."""

    def run(self) -> None:
        """Run the tasks that are not done; after the first that fails no other is begun."""
        ranks = self.get_incomplete_ranks()
        workers = min(self.workers, len(ranks))
        if ranks:
            self.save_executor_as_json()
        if workers > 1:
            self._run_in_processes(ranks, workers)
        else:
            all(self.succeeds(rank) for rank in ranks)

    def _run_in_processes(self, ranks: list[int], workers: int) -> None:
        context = multiprocessing.get_context(self.start_method)
        held, leash = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(self, held))
        try:
            tasks = [pool.submit(_succeeds_in_worker, rank) for rank in ranks]
            all(task.result() for task in as_completed(tasks))
        except BrokenProcessPool:  # one was killed: the notes tell what it was at
            pass
        except BaseException:  # Ctrl-C: the workers end with the leash
            leash.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            leash.close()


_executor: LocalExecutor


def _start_worker(executor: LocalExecutor, held: Connection) -> None:
    global _executor
    _executor = executor
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and drops the leash
    threading.Thread(target=_leave_with_parent, args=(held,), daemon=True).start()


def _leave_with_parent(held: Connection) -> None:
    """End this process when the parent closes its end or dies: it must not write what a restart writes."""
    held.poll(None)
    os._exit(1)


def _succeeds_in_worker(rank: int) -> bool:
    with output_to(executor_log(Path(_executor.logging_dir.path))):
        return _executor.succeeds(rank)


# Tasks on a Ray cluster, or on one that is started on this machine for as long as they run.

GIB = 2**30
CONNECT_SECONDS = 10.0


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
            InputError: there is no ray, no cluster at the address, or no node of it can hold a task.
            KislError: what `Runner.run` says.
        """
        if any(stage.left() for stage in stages):
            with output_to(executor_log(stages[0].folder)), _cluster(self.address) as ray, ticking(progress):
                self._refuse_if_too_large(ray)
                for stage in stages:
                    self._run(stage)
        return True

    def _run(self, stage: Stage) -> None:
        clear_notes(stage)
        RayExecutor(
            stage.pipeline,
            stage.tasks,
            self.workers,
            logging_dir=str(stage.folder),
            cpus_per_task=self.cpus_per_task,
            mem_per_cpu_gb=self.mem_per_cpu_gb,
        ).run()
        raise_failure(stage)

    def _refuse_if_too_large(self, ray: Any) -> None:
        """Ray would wait for ever, without a word, for a node that is large enough."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, memory = self.cpus_per_task, self.cpus_per_task * self.mem_per_cpu_gb * GIB
        if not any(node.get("CPU", 0) >= cpus and node.get("memory", 0) >= memory for node in nodes):
            has = "; ".join(f"{node.get('CPU', 0):.0f} CPUs, {node.get('memory', 0) / GIB:.1f} GB" for node in nodes)
            raise InputError(
                f"a task asks for {cpus} CPUs with {self.mem_per_cpu_gb:g} GB each and no node of the Ray cluster has "
                f"that (they have: {has}); ask for less"
            )


class RayExecutor(NotedTasks, RayPipelineExecutor):
    """datatrove's executor, but a task runs in Ray's own process: a killed one ends the run."""

    def run(self) -> None:
        """Run the tasks that are not done; after the first that fails no other is begun."""
        import ray

        waiting = deque(self.get_incomplete_ranks())
        memory = int(self.mem_per_cpu_gb * self.cpus_per_task * GIB)
        task = ray.remote(RayExecutor.succeeds).options(num_cpus=self.cpus_per_task, memory=memory)
        shared = ray.put(self)
        running: list[Any] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.append(task.remote(shared, waiting.popleft()))
                ended, running = ray.wait(running)
                if not _succeeded(ended[0]):
                    waiting.clear()
        finally:  # after Ctrl-C too: none must go on to write what a restart writes
            for left in running:
                ray.cancel(left, force=True)


def _succeeded(ended: Any) -> bool:
    import ray

    try:
        return bool(ray.get(ended))
    except ray.exceptions.RayTaskError as error:  # before the task was ours: kisl is not there
        raise KislError(f"a Ray node cannot run the task ({str(error).strip().splitlines()[-1]})") from None
    except ray.exceptions.RayError:  # it was killed, as often as Ray tried it: its note tells
        return False


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected and quiet; a connection that the caller has already is used and kept."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _refuse_if_silent(address)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    try:
        yield ray
    finally:
        ray.shutdown()  # with it end the tasks that still run


def _refuse_if_silent(address: str) -> None:
    """Ray itself would try a wrong address for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error}); give the HOST:PORT of its head node"
        ) from None


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise InputError("the ray executor needs ray; install it with: pip install 'kisl-plugin[corpus,ray]'") from None
