"""A sweep on one machine: a few worker processes, each with its GPUs or one CPU thread, and the display of progress."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TextIO

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.fit.text import count
from kisl_plugin.progress import duration
from kisl_plugin.sweep.spec import Sweep, SweepRun, refuse_missing_inputs
from kisl_plugin.sweep.state import RunState, last_line, record_failure, state_of

__all__ = ["places", "run_sweep", "total_line"]

_BUSY_SECONDS = 1.0  # between two looks at runs that another process works on
_REDRAW_SECONDS, _LOG_SECONDS = 0.5, 30.0
_END_SECONDS = 10.0  # that a worker has to end after SIGTERM


def run_sweep(sweep: Sweep, jobs: int | None = None, retries: int = 0, stream: TextIO | None = None) -> list[RunState]:
    """Do what is left of a sweep on this machine, and return where every run stands then.

    A run that fails does not stop the others. Whatever ends this process ends its workers; a later call goes on.

    Args:
        sweep: from read_sweep.
        jobs: runs side by side. None: as many as the GPUs, else the CPU cores, allow.
        retries: how often a failed run is tried again. One with a wrong input is not.
        stream: where progress is shown (standard error).

    Raises:
        InputError: input files are missing, or there are not enough GPUs; nothing has been started.
    """
    states = {run.name: state_of(run) for run in sweep.runs}
    left = [run for run in sweep.runs if states[run.name].state != "probed"]
    if left:
        refuse_missing_inputs(sweep)
    environments = places(sweep, jobs)[: len(left)]
    pool = _Pool(left, retries)
    display = _Display(sweep, states, stream if stream is not None else sys.stderr)
    if left:
        display.line(f"{len(left)} of {len(sweep.runs)} runs are left; {len(environments)} side by side")
    workers = [_Worker(pool, environment) for environment in environments]

    def interrupted(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupted) if in_main_thread else None
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            display.update(pool)
            pool.changed.wait(_REDRAW_SECONDS)
            pool.changed.clear()
    finally:
        pool.stopped = True
        for worker in workers:
            worker.end()
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
        display.update(pool, last=True)
    return list(states.values())


def places(sweep: Sweep, jobs: int | None) -> list[dict[str, str]]:
    """The environment of each of the workers that may run side by side: its GPUs, or one thread of the CPU.

    Raises:
        InputError: there are not enough GPUs.
    """
    gpus = _visible_gpus()
    if not gpus:
        # More threads do not make a small run faster than two runs with one thread each.
        one_thread = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [one_thread] * (jobs or cores)
    each = sweep.gpus
    if each is None:
        each = 1 if sweep.engine != "neox" else len(gpus) // jobs if jobs else len(gpus)
    each = max(1, each)
    jobs = jobs or max(1, len(gpus) // each)
    if each > len(gpus) or (each > 1 and jobs * each > len(gpus)):
        raise InputError(f"{sweep.where}: {jobs} × {each} GPUs; expected at most the {len(gpus)} that are visible here")
    # Runs with one GPU each may share it.
    dealt = [[gpus[(job * each + i) % len(gpus)] for i in range(each)] for job in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(names)} for names in dealt]


def _visible_gpus() -> list[str]:
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is not None or os.environ.get("KISL_CPU") == "1":
        return [name for name in (names or "").split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


class _Pool:
    """The runs that are left, those that are worked on, and those that are finished but not yet shown."""

    def __init__(self, left: Sequence[SweepRun], retries: int) -> None:
        self.left, self.retries = deque(left), retries
        self.active: dict[str, SweepRun] = {}
        self.finished: deque[tuple[SweepRun, str | None]] = deque()
        self.changed = threading.Event()
        self.stopped = False
        self._lock = threading.Lock()

    def take(self) -> SweepRun | None:
        with self._lock:
            if self.stopped or not self.left:
                return None
            run = self.left.popleft()
            self.active[run.name] = run
        self.changed.set()
        return run

    def put_back(self, run: SweepRun) -> None:
        with self._lock:
            del self.active[run.name]
            self.left.append(run)

    def finish(self, run: SweepRun, reason: str | None) -> None:
        with self._lock:
            del self.active[run.name]
            self.finished.append((run, reason))
        self.changed.set()


class _Worker(threading.Thread):
    """A thread that hands runs to its process, and starts another one if that is killed."""

    def __init__(self, pool: _Pool, environment: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._pool, self._environment = pool, environment
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        while (run := self._pool.take()) is not None:
            kind, reason = "failed", None
            for _ in range(self._pool.retries + 1):
                kind, reason = self._work(run)
                if self._pool.stopped:  # by a signal to this process, which ended the worker's
                    return
                if kind != "failed":
                    break
            if kind == "busy":  # when it is free, it may be done
                self._pool.put_back(run)
                time.sleep(_BUSY_SECONDS)
            else:
                self._pool.finish(run, reason)

    def _work(self, run: SweepRun) -> tuple[str, str | None]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kisl_plugin.sweep.steps"],
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        with suppress(BrokenPipeError):
            process.stdin.write(run.to_json() + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer:
            ended = process.wait()
            by = f"signal {-ended}" if ended < 0 else f"exit status {ended}"
            reason = f"its process ended ({by}): {last_line(run.log)}"
            if not self._pool.stopped:
                record_failure(run, KislError(reason))
            return "failed", reason
        reply = json.loads(answer)
        return reply["kind"], reply["reason"]

    def end(self) -> None:
        """End the process and what it has started, whether it works or waits."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
                return


class _Display:
    """One line for each run that is worked on and one in all, redrawn on a terminal; in a log, lines now and then.

    `states` is kept up to date.
    """

    def __init__(self, sweep: Sweep, states: dict[str, RunState], stream: TextIO) -> None:
        self._sweep, self._states, self._stream = sweep, states, stream
        self._live = stream.isatty()
        self._drawn = 0
        self._shown = time.monotonic()
        self._started: set[str] = set()

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self._erase()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def update(self, pool: _Pool, last: bool = False) -> None:
        """Show what is new: runs that ended, and how far the others are."""
        active = dict(pool.active)
        while pool.finished:
            run, reason = pool.finished.popleft()
            state = state_of(run)
            if reason is not None and state.state != "probed":
                state = replace(state, state="failed", reason=reason)
            self._states[run.name] = state
            done = sum(one.state in ("probed", "failed") for one in self._states.values())
            self.line(f"[{done}/{len(self._states)}] {run.name} {state.state}{f': {reason}' if reason else ''}")
        for name, run in active.items():
            state = state_of(run)
            self._states[name] = state if state.state == "running" else replace(state, state="running")
        states = list(self._states.values())
        now = time.monotonic()
        if last:
            for name in active:
                self._states[name] = state_of(active[name])
            self._erase()
        elif self._live:
            self._erase()
            columns, rows = shutil.get_terminal_size()
            lines = [_line(self._states[name]) for name in list(active)[: rows - 2]] + [total_line(states)]
            self._stream.write("".join(f"{line[: columns - 1]}\n" for line in lines))
            self._stream.flush()
            self._drawn = len(lines)
        else:
            for name in active.keys() - self._started:
                self.line(f"{name} started")
                self._started.add(name)
            if now - self._shown >= _LOG_SECONDS:
                self._shown = now
                self.line(total_line(states))

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


def _line(state: RunState) -> str:
    run, end = state.run, state.run.train_iters
    share = "probing" if state.step >= end else f"{state.step:,}/{end:,}"
    rate = f"{state.rate:,.0f} tokens/s · {duration(state.seconds_left or 0)} left" if state.rate else ""
    return f"  {run.name}  {share}  {rate if state.step < end else ''}".rstrip()


def total_line(states: Sequence[RunState]) -> str:
    """How many runs are in which state; tokens done and in all, the rate of what runs now, and the time left at it."""
    names = ("probed", "failed", "running", "trained", "queued", "waiting")
    counts = {name: sum(state.state == name for state in states) for name in names}
    parts = [", ".join(f"{number} {name}" for name, number in counts.items() if number)]
    counted = [state for state in states if state.state != "failed"]
    done, total = sum(state.tokens for state in counted), sum(state.run.tokens for state in counted)
    parts.append(f"{count(done)} of {count(total)} tokens")
    running = [state for state in states if state.state == "running" and state.rate]
    rate = sum(state.rate or 0 for state in running)
    if rate:
        # Models differ in size, so what is left is measured in FLOPs.
        speed = sum(6.0 * state.run.params * (state.rate or 0) for state in running)
        left = sum(state.run.flops * (1 - state.step / state.run.train_iters) for state in counted)
        parts += [f"{count(rate)} tokens/s", f"{duration(left / speed)} left"]
    return " · ".join(parts)
