"""What is printed: progress (in a log a plain line every ten seconds), durations, shares, tables; or all to a file."""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

__all__ = ["Progress", "duration", "output_to", "percent", "text_table"]

_LOG_SECONDS = 10.0
_REDRAW_SECONDS = 0.2


def duration(seconds: float) -> str:
    """Seconds in words: 42s, 3m20s, 2h05m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def percent(fraction: float) -> str:
    """A share to two digits: 0.012%, 94%."""
    return f"{float(f'{100 * fraction:.2g}'):.6g}%"


def text_table(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Lines of columns with two spaces between them; `alignment` has `<` or `>` for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


class Progress:
    """Counts up to `total` and shows how much is done, the time left, and the note of the last `update`.

    On a terminal one line is redrawn; elsewhere a line is written every ten seconds. Output goes to
    standard error, so that standard output holds a command's results only.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self._stream = sys.stderr
        self._live = self._stream.isatty()
        self._every = _REDRAW_SECONDS if self._live else _LOG_SECONDS
        self._began = self._shown = time.monotonic()
        self._first: int | None = None
        self._drawn = False

    def update(self, done: int, note: str = "") -> None:
        """Report that `done` of `total` are done: a line is shown if the last one is old enough, and at the end."""
        self._first = done if self._first is None else self._first
        now = time.monotonic()
        if now - self._shown < self._every and done < self.total:
            return
        self._shown = now
        elapsed, since_first = now - self._began, done - self._first
        if since_first and done < self.total:
            timing = f"{duration(elapsed / since_first * (self.total - done))} left"
        else:
            timing = duration(elapsed)
        line = " · ".join(part for part in (f"{self.label} {done:,}/{self.total:,}", timing, note) if part)
        if self._live:  # a line that wraps cannot be redrawn
            line = f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}"
            self._drawn = True
        self._stream.write(line if self._live else f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the redrawn line, if there is one."""
        if self._drawn:
            self._drawn = False
            self._stream.write("\n")
            self._stream.flush()


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Within it, what this process prints, and those that it starts, goes to the end of the file `path`."""
    before = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("a", encoding="utf-8", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        try:
            yield
        finally:
            for number, own in zip((1, 2), before, strict=True):
                os.dup2(own, number)
                os.close(own)
