"""A tiny datatrove pipeline for the executors' tests: each task writes its numbers to one file of shards/."""

import hashlib
import os
import signal
import time
from pathlib import Path

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from kisl_plugin.corpus.executors import Stage
from kisl_plugin.errors import InputError

TASKS = 4
# For other processes to find these blocks, and the package where pytest found it.
PYTHONPATH = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


class Count(PipelineStep):
    """The numbers of this task."""

    type, name = "reader", "count"

    def run(self, data: DocumentsPipeline | None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for number in range(rank, 10 * world_size, world_size):
            yield Document(text=hashlib.sha256(str(number).encode()).hexdigest(), id=str(number))


class Odd(BaseFilter):
    """Drops what ends in an even digit."""

    name = "odd"

    def filter(self, doc: Document) -> bool:
        return int(doc.text, 16) % 2 == 1


class Write(PipelineStep):
    """One file a task, and a line in began_RANK with the process for each time that it was tried."""

    type, name = "writer", "write"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        with (self.folder / f"began_{rank}").open("a") as began:
            began.write(f"{os.getpid()}\n")
        (self.folder / f"{rank:05d}.txt").write_text("".join(f"{doc.id} {doc.text}\n" for doc in data))
        yield from ()


class Trouble(PipelineStep):
    """Task `rank` comes to grief, once, while the file trouble is in the folder."""

    type, name = "filter", "trouble"

    def __init__(self, folder: Path, kind: str, rank: int) -> None:
        super().__init__()
        self.folder, self.kind, self.rank = folder, kind, rank

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        if rank == self.rank and (self.folder / "trouble").exists():
            self._come_to_grief()
        yield from data

    def _come_to_grief(self) -> None:
        if self.kind == "input":
            raise InputError("facts.jsonl: line 3: subject is 7; expected text")
        if self.kind == "bug":
            raise ZeroDivisionError("one\ntwo")
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / "hanging").write_text(str(os.getpid()))
        time.sleep(600)  # until somebody ends it


class Merge(PipelineStep):
    """All tasks' files into one."""

    type, name = "writer", "merge"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline | None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        shards = [self.folder / f"{rank:05d}.txt" for rank in range(TASKS)]
        (self.folder / "merged.txt").write_text("".join(shard.read_text() for shard in shards))
        yield from ()


def stages(folder: Path, kind: str = "none", rank: int = 2, troubled: bool = False) -> list[Stage]:
    """Shards and their merge; task `rank` of the shards is in trouble of that kind."""
    folder.mkdir(parents=True, exist_ok=True)
    if troubled:
        (folder / "trouble").touch()
    shards = [Count(), Odd(), Trouble(folder, kind, rank), Write(folder)]
    return [
        Stage("shards", shards, TASKS, folder / "work" / "shards"),
        Stage("merge", [Merge(folder)], 1, folder / "work" / "merge"),
    ]


def began(folder: Path) -> list[int]:
    """How often each task of the shards was tried."""
    return [len(pids) for pids in processes(folder)]


def processes(folder: Path) -> list[list[int]]:
    """The processes in which each task of the shards was tried."""
    files = [folder / f"began_{rank}" for rank in range(TASKS)]
    return [[int(line) for line in file.read_text().split()] if file.exists() else [] for file in files]


def merged(folder: Path) -> str:
    """What the merge wrote."""
    return (folder / "merged.txt").read_text()


def expected() -> str:
    """What the merge must hold, by a path of its own."""
    lines = []
    for rank in range(TASKS):
        for number in range(rank, 10 * TASKS, TASKS):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            if digest[-1] in "13579bdf":
                lines.append(f"{number} {digest}\n")
    return "".join(lines)
