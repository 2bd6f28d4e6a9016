"""Tasks on a Ray cluster, or on one that is started on this machine for as long as they run."""

import importlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datatrove.executor import RayPipelineExecutor

from kisl_plugin.corpus.executors.logs import executor_log, output_to, ticking
from kisl_plugin.corpus.executors.notes import NotedTasks, clear_notes, raise_failure
from kisl_plugin.corpus.executors.stages import Stage
from kisl_plugin.errors import InputError, KislError

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
