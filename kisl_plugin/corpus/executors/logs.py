"""What datatrove and the tasks say goes to log files, not to the user's terminal; what we say while we wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from datatrove.utils.logging import setup_default_logger

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
