"""How far a build has come: its tasks note what they have read, and the caller shows the sum."""

import sys
import time
from contextlib import suppress
from pathlib import Path

from kisl_plugin.corpus.pieces import Piece
from kisl_plugin.corpus.work import Plan, Work
from kisl_plugin.progress import Progress

MEGABYTE = 1_000_000
NOTE_SECONDS = 1.0


class ReadNote:
    """A file that says how many bytes (as pieces count them) a task has done; rewritten now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._read = 0
        self._due = 0.0

    def read(self, piece: Piece, size: int) -> None:
        """`size` bytes more were read of `piece`."""
        self._read += size
        if time.monotonic() >= self._due:
            self._write(self._before + min(piece.size, self._read))

    def done(self, size: int) -> None:
        """That much is done for good."""
        self._before, self._read = self._before + size, 0
        self._write(self._before)

    def _write(self, size: int) -> None:
        self._due = time.monotonic() + NOTE_SECONDS
        with suppress(OSError):  # a full disk is told by what must be written
            self._path.write_text(str(size), encoding="utf-8")


def note_of(work: Work, rank: int) -> Path:
    """Where a task notes what it has read."""
    return work.notes / f"{rank:05d}"


def merge_note_of(work: Work) -> Path:
    """Where the merge notes what it has copied."""
    return work.notes / "merge"


class BuildProgress:
    """Shows, each time it is called, the sum of the tasks' notes, and then the merge's."""

    def __init__(self, work: Work, plan: Plan) -> None:
        self._work, self._tasks = work, plan.tasks
        self._total = sum(piece.size for piece in plan.pieces)
        # While tasks run sys.stderr is a log file.
        self._stream = sys.stderr
        self._reading = self._progress("building the corpus", self._total)
        self._merging: Progress | None = None
        self._all_read = False
        self._before = self.read()

    def __call__(self) -> None:
        """Show how far it is."""
        copied = _size_in(merge_note_of(self._work))
        if not self._all_read:
            # The merge comes after all tasks, and takes their stamps away.
            self._show_reading(self._tasks if copied else self._finished())
        if copied and self._merging is None:
            self._merging = self._progress("merging the shards", shards_size(self._work))
        if copied and self._merging:
            # The last update is always written, and there is one last only.
            self._merging.update(min(copied // MEGABYTE, self._merging.total - 1))

    def finish(self) -> None:
        """Show that all is done, which may have been between two looks."""
        if not self._all_read:
            self._show_reading(self._tasks)

    def read(self) -> int:
        """Bytes that the tasks have done, as pieces count them."""
        return sum(_size_in(note_of(self._work, rank)) for rank in range(self._tasks))

    def line(self) -> str:
        """How far it is, at once."""
        return f"{self.read() // MEGABYTE:,} of {self._total // MEGABYTE:,} MB of text read"

    def fresh(self) -> int:
        """Bytes of text that were read since this began."""
        return self.read() - self._before

    def close(self) -> None:
        """End the line."""
        (self._merging or self._reading).close()

    def _finished(self) -> int:
        return sum(1 for _ in self._work.shards.glob("[0-9]*[0-9].json"))

    def _show_reading(self, finished: int) -> None:
        self._all_read = finished == self._tasks
        last = self._reading.total - 1
        done = last + 1 if self._all_read else min(self.read() // MEGABYTE, last)
        self._reading.update(done, f"{finished:,} of {self._tasks:,} tasks done")
        if self._all_read:
            self._reading.close()

    def _progress(self, label: str, size: int) -> Progress:
        return Progress(f"{label}, MB", max(1, size // MEGABYTE), stream=self._stream)


def shards_size(work: Work) -> int:
    """Bytes of all tokens in the shards."""
    return sum(path.stat().st_size for path in work.shards.glob("*.bin"))


def _size_in(note: Path) -> int:
    try:
        return int(note.read_text(encoding="utf-8") or 0)
    except (OSError, ValueError):
        return 0
