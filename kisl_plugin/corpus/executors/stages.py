"""A stage of the work, cut into tasks; what runs stages; the markers by which a restart knows what is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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
