"""The steps of one run, train, export and probe, in this process or started by it; what stands is skipped.

A worker is one process that takes runs one after the other, so that torch and lm_eval are imported once. It is started
as `python -m kisl_plugin.sweep.steps`, reads runs as lines of JSON, and answers each with a line.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

from kisl_plugin.checkpoints import hold_save
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import hold_lock, write_atomically
from kisl_plugin.runcard import read_run_card
from kisl_plugin.sweep.spec import SweepRun
from kisl_plugin.sweep.state import SWEEP_LOCK, checkpoint_step, is_probed, is_trained, last_line, record_failure

__all__ = ["BusyError", "run_steps", "serve"]


class BusyError(KislError):
    """Another process works on the run."""


def run_steps(run: SweepRun) -> None:
    """Do what is left of a run. What the steps print goes to its log; a failure is recorded beside it.

    Raises:
        BusyError: another process works on the run.
        KislError: a step failed; the message says which and why.
    """
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.log.touch()
    except OSError as error:
        raise KislError(f"{run.folder}: cannot be written to ({error})") from None
    busy = f"{run.name}: another sweep works on it"
    with _or_busy(hold_lock(run.folder / SWEEP_LOCK, busy)), _output_to(run.log):
        record_failure(run, None)
        try:
            if not is_probed(run):
                now = datetime.now(timezone.utc).isoformat(timespec="seconds")
                print(f"== {now} {run.name}: {checkpoint_step(run):,} of {run.train_iters:,} steps stand", flush=True)
                run.write_config()
                if not is_trained(run):
                    _train(run)
                _probe(run)
        except BaseException as error:
            if isinstance(error, (BusyError, KeyboardInterrupt, SystemExit)):  # not failed
                raise
            if not isinstance(error, KislError):
                traceback.print_exc()
                error = KislError(f"{type(error).__name__}: {' '.join(str(error).split())}")
            record_failure(run, error)
            raise error from None


@contextmanager
def _or_busy(lock: AbstractContextManager[None]) -> Iterator[None]:
    """Hold a lock while the block runs; a BusyError where another process holds it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except InputError:
            raise
        except KislError as error:
            raise BusyError(str(error)) from None
        yield


def _train(run: SweepRun) -> None:
    """Train, and leave the finished model in `model_folder`."""
    with _or_busy(hold_save(run.folder, run.name)):  # of a training that was started by hand, or outlived a worker
        pass
    if run.engine == "neox":
        if not _has_last_checkpoint(run):
            yamls = [str(run.config), *_for_nodes(run)]
            _command("deepy.py train", ["kisl_plugin.neox.launcher", "train", *yamls], run)
        _command("kisl export", ["kisl_plugin", "export", str(run.folder), str(run.model_folder)], run)
    else:
        from kisl_plugin.hookspecs import manager

        engine = manager().hook.kisl_engine(name=run.engine)
        if engine is None:
            raise InputError(f"engine {run.engine!r}: its plugin is not installed here")
        engine.train([run.config])
    if not is_trained(run):
        raise KislError(f"{run.model_folder}: the training ended without the model of iteration {run.train_iters}")


def _has_last_checkpoint(run: SweepRun) -> bool:
    try:
        iteration = read_run_card(run.folder / f"global_step{run.train_iters}").iteration
    except InputError:
        return False
    return checkpoint_step(run) == iteration == run.train_iters


def _for_nodes(run: SweepRun) -> list[str]:
    """In a Slurm job of several nodes, one YAML more: DeepSpeed's launcher starts the processes with srun."""
    if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) == 1:
        return []
    listed = subprocess.run(["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True).stdout
    slots = os.environ.get("SLURM_NTASKS_PER_NODE", "1")
    hosts = write_atomically(run.folder / "hostfile", "".join(f"{node} slots={slots}\n" for node in listed.split()))
    # Jobs may share a node, so each has a port of its own.
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000
    os.environ.update(MASTER_ADDR=listed.split()[0], MASTER_PORT=str(port))
    values = {"launcher": "slurm", "deepspeed_slurm": True, "no_ssh_check": True, "hostfile": str(hosts)}
    values["master_port"] = port
    own = {key: value for key, value in values.items() if key not in run.values}
    return [str(write_atomically(run.folder / "nodes.yml", json.dumps(own)))]


def _command(name: str, module: Sequence[str], run: SweepRun) -> None:
    """Run one of the product's own commands, given as a module and its arguments; it ends with this process."""
    process = subprocess.Popen([sys.executable, "-m", *module], stdin=subprocess.DEVNULL)
    try:
        status = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if status:
        ended = f"was ended by signal {-status}" if status < 0 else f"exit status {status}"
        reason = last_line(run.log).removeprefix("Error: ")
        raise (InputError if status == 2 else KislError)(f"{name}: {ended}: {reason}")


def _probe(run: SweepRun) -> None:
    """Ask the model, in a folder that takes its final place when every file is complete."""
    with needs_extra("eval", "probing"):
        from kisl_plugin.probe.run import probe_models
    if run.results.exists():
        raise InputError(f"{run.results}: holds other results than those of {run.model_folder}; move it away")
    draft = run.folder / "probe.part"
    shutil.rmtree(draft, ignore_errors=True)
    probe_models([run.model_folder], draft, run.tasks)
    run.results.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(run.results)


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Within it, what this process and those that it starts print goes to the end of `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, number)
            os.close(saved)


def serve(work: Callable[[SweepRun], None] = run_steps) -> None:
    """Do the runs whose lines come in, one after the other; when the input ends, end this process and its children.

    The input ends with the process at its other end, however that ends. Each answer is an object with `reason`, null if
    the run is done, and `kind`: done, busy, input (repeating it is no use) or failed.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        if os.getpgrp() == os.getpid():  # a group of its own, with what it has started
            os.killpg(0, signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        while True:
            run = SweepRun.from_json(lines.get())
            reason, kind = None, "done"
            try:
                work(run)
            except KislError as error:
                kind = (
                    "busy" if isinstance(error, BusyError) else "input" if isinstance(error, InputError) else "failed"
                )
                reason = str(error)
            print(json.dumps({"reason": reason, "kind": kind}), file=answers, flush=True)


if __name__ == "__main__":
    serve()
