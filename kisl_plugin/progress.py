"""Progress of long work: one line redrawn on a terminal, a plain line now and then in a log."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

LOG_SECONDS = 10.0
REDRAW_SECONDS = 0.2


def duration(seconds: float) -> str:
    """Seconds as people read them: 42s, 3m20s, 2h05m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Counts towards `total` and shows the share done, the time left and what `update` is told.

    On a terminal one line is redrawn; elsewhere a line is written every `log_seconds` seconds. Output goes to
    standard error, so that a command's results stay clean.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        stream: TextIO | None = None,
        log_seconds: float = LOG_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.total = label, total
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._every = REDRAW_SECONDS if self._live else log_seconds
        self._clock = clock
        self._began = self._shown = clock()
        self._first: int | None = None
        self._drawn = False

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of `total` are done; the line is shown when it is due, and always at the end."""
        self._first = done if self._first is None else self._first
        now = self._clock()
        if now - self._shown >= self._every or done >= self.total:
            self._shown = now
            self._write(self._line(done, now, note))

    def close(self) -> None:
        """End the redrawn line, if there is one."""
        if self._drawn:
            self._drawn = False
            self._stream.write("\n")
            self._stream.flush()

    def _line(self, done: int, now: float, note: str) -> str:
        elapsed = now - self._began
        fresh = done - (self._first or 0)
        left = f"{duration(elapsed / fresh * (self.total - done))} left" if fresh and done < self.total else ""
        timing = left or duration(elapsed)
        parts = [f"{self.label} {done:,}/{self.total:,}", timing, note]
        return " · ".join(part for part in parts if part)

    def _write(self, line: str) -> None:
        self._drawn = self._live
        if self._live:  # a line that wraps cannot be redrawn
            line = line[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        self._stream.flush()
