"""A note for each task: an error in another process, or on another machine, reaches the user as its own one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.utils.stats import PipelineStats

from kisl_plugin.corpus.executors.logs import task_log
from kisl_plugin.corpus.executors.stages import Stage
from kisl_plugin.errors import InputError, KislError


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
