"""DeepSpeed's launcher, watched: it counts a process that a signal ended as done, and passes no SIGTERM on."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from kisl_plugin.errors import KislError


@contextmanager
def watched(runner: Any) -> Iterator[None]:
    """Within it, processes that `deepspeed.launcher.runner` starts get the SIGTERM that this one gets.

    Raises:
        KislError: one of them was ended by a signal, which DeepSpeed would report as success.
    """
    started: list[subprocess.Popen[Any]] = []

    def popen(*arguments: Any, **named: Any) -> "subprocess.Popen[Any]":
        started.append(subprocess.Popen(*arguments, **named))
        return started[-1]

    def pass_on(number: int, _: Any) -> None:
        for process in started:
            process.send_signal(number)
        raise SystemExit(128 + number)

    runner.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        runner.subprocess = subprocess
    ended = [process.returncode for process in started if (process.returncode or 0) < 0]
    if ended:
        raise KislError(f"DeepSpeed's launcher was ended by signal {-ended[0]}; its workers may still be running")
