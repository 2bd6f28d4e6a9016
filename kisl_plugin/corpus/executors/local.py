"""Tasks on this machine: in this process, or in some processes beside it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor

from kisl_plugin.corpus.executors.logs import executor_log, output_to, ticking
from kisl_plugin.corpus.executors.notes import NotedTasks, clear_notes, raise_failure
from kisl_plugin.corpus.executors.stages import Stage


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
