"""A sweep on one machine: a few worker processes, each with its GPUs or one CPU thread, and the display of progress."""

import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from kisl_plugin.errors import BusyError, InputError, KislError
from kisl_plugin.fit.text import count
from kisl_plugin.progress import duration
from kisl_plugin.sweep.spec import Sweep, SweepRun, refuse_missing_inputs
from kisl_plugin.sweep.steps import RunState, last_line, record_failure, state_of

__all__ = ["places", "run_sweep", "total_line"]

_BUSY_SECONDS = 1.0  # between two looks at runs that another process works on
_REDRAW_SECONDS, _LOG_SECONDS = 0.5, 30.0
_END_SECONDS = 10.0  # that a worker has to end after SIGTERM


def run_sweep(sweep: Sweep, jobs: int | None = None, retries: int = 0) -> list[RunState]:
    """Do what is left of a sweep on this machine, and return where every run stands then.

    A run that fails does not stop the others. Whatever ends this process ends its workers; a later call goes on.

    Args:
        sweep: from read_sweep.
        jobs: runs side by side. None: as many as the GPUs, else the CPU cores, allow.
        retries: how often a failed run is tried again. One with a wrong input is not.

    Raises:
        InputError: input files are missing, or there are not enough GPUs; nothing has been started.
    """
    states = {run.name: state_of(run) for run in sweep.runs}
    left = deque(run for run in sweep.runs if states[run.name].state != "probed")
    if left:
        refuse_missing_inputs(sweep)
    workers = [_Worker(environment) for environment in places(sweep, jobs)[: len(left)]]
    display = _Display(states)
    if left:
        display.line(f"{len(left)} of {len(sweep.runs)} runs are left; {len(workers)} side by side")
    retried: Counter[str] = Counter()

    def interrupted(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupted) if in_main_thread else None
    try:
        while left or any(worker.run for worker in workers):
            for worker in workers:
                if left and worker.run is None and time.monotonic() >= worker.rests_until:
                    worker.start(left.popleft())
            display.update([worker.run for worker in workers if worker.run])
            ready, _, _ = select.select([worker for worker in workers if worker.run], [], [], _REDRAW_SECONDS)
            for worker in ready:
                run, error = worker.answer()
                if isinstance(error, BusyError):  # when it is free, it may be done
                    worker.rests_until = time.monotonic() + _BUSY_SECONDS
                    left.append(run)
                elif error and not isinstance(error, InputError) and retried[run.name] < retries:
                    retried[run.name] += 1
                    left.appendleft(run)
                else:
                    display.finish(run, error)
    finally:
        for worker in workers:
            worker.end()
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
        display.close([worker.run for worker in workers if worker.run])
    return list(states.values())


def places(sweep: Sweep, jobs: int | None) -> list[dict[str, str]]:
    """The environment of each of the workers that may run side by side: its GPUs, or one thread of the CPU."""
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


class _Worker:
    """A process that does one run after the other; another one is started if that is killed.

    `run` is what it works on, None while it waits, and `rests_until` the time (monotonic) before which it gets none.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.run: SweepRun | None = None
        self.rests_until = 0.0

    def start(self, run: SweepRun) -> None:
        """Begin a run."""
        if self._process is None or self._process.poll() is not None:
            process = subprocess.Popen(
                [sys.executable, "-c", "from kisl_plugin.sweep.steps import serve; serve()"],
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert process.stdin and process.stdout
            self._process, self._runs, self._answers = process, process.stdin, process.stdout
        self.run = run
        with suppress(BrokenPipeError):  # it has been killed, and so its answers end
            pickle.dump(run, self._runs)
            self._runs.flush()

    def fileno(self) -> int:
        """Of the answers, for select."""
        return self._answers.fileno()

    def answer(self) -> tuple[SweepRun, KislError | None]:
        """The run that has ended, and its error."""
        run, self.run = self.run, None
        assert run and self._process
        try:
            return run, pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError):
            ended = self._process.wait()
        by = f"signal {-ended}" if ended < 0 else f"exit status {ended}"
        error = KislError(f"its process ended ({by}): {last_line(run.log)}")
        record_failure(run, error)
        return run, error

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

    def __init__(self, states: dict[str, RunState]) -> None:
        self._states, self._stream = states, sys.stderr
        self._live = self._stream.isatty()
        self._drawn = 0
        self._shown = time.monotonic()
        self._started: set[str] = set()

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self._draw([text])
        self._drawn = 0

    def update(self, active: Sequence[SweepRun]) -> None:
        """Show how far the runs are that are worked on."""
        for run in active:
            state = state_of(run)
            self._states[run.name] = state if state.state == "running" else replace(state, state="running")
        if self._live:
            columns, rows = shutil.get_terminal_size()
            lines = [_line(self._states[run.name]) for run in active[: rows - 2]] + [self._total()]
            self._draw([line[: columns - 1] for line in lines])
            return
        for run in active:
            if run.name not in self._started:
                self.line(f"{run.name} started")
                self._started.add(run.name)
        if time.monotonic() - self._shown >= _LOG_SECONDS:
            self._shown = time.monotonic()
            self.line(self._total())

    def finish(self, run: SweepRun, error: KislError | None) -> None:
        """Show that a run has ended."""
        state = state_of(run)
        if error and state.state != "probed":
            state = replace(state, state="failed", reason=str(error))
        self._states[run.name] = state
        done = sum(one.state in ("probed", "failed") for one in self._states.values())
        self.line(f"[{done}/{len(self._states)}] {run.name} {state.state}{f': {error}' if error else ''}")

    def close(self, active: Sequence[SweepRun]) -> None:
        """Erase what is redrawn; `active` are the runs that were interrupted."""
        self._states.update({run.name: state_of(run) for run in active})
        self._draw([])

    def _total(self) -> str:
        return total_line(list(self._states.values()))

    def _draw(self, lines: Sequence[str]) -> None:
        """Write lines in the place of those that were drawn before."""
        erased = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        self._stream.write(erased + "".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)


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
        left = sum(state.flops_left for state in counted)
        parts += [f"{count(rate)} tokens/s", f"{duration(left / speed)} left"]
    return " · ".join(parts)
