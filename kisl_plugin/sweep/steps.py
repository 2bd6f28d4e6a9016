"""One run of a sweep: where it stands by its files, and the steps that are left: train, export and probe.

A worker is one process that takes runs one after the other, so that torch and lm_eval are imported once: see `serve`.
"""

import fcntl
import json
import os
import pickle
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kisl_plugin.checkpoints import LATEST, LOCK_NAME, hold_save, latest_checkpoint, restore_latest
from kisl_plugin.errors import BusyError, InputError, KislError, error_line, needs_extra
from kisl_plugin.files import hold_lock, read_object, write_atomically
from kisl_plugin.progress import output_to
from kisl_plugin.runcard import CARD_NAME, read_run_card
from kisl_plugin.sweep.spec import SweepRun

__all__ = [
    "RunState",
    "checkpoint_step",
    "is_trained",
    "last_line",
    "record_failure",
    "run_steps",
    "serve",
    "state_of",
]

_SWEEP_LOCK = "sweep.lock"  # held by the process that works on a run; the engine's own lock is LOCK_NAME
_FAILURE = "failure.json"
_TAIL = 1 << 16  # bytes at the end of a log in which its last lines are looked for
_NEOX_STEP = re.compile(r"iteration\s+(\d+)/\s*\d+.*?elapsed time per iteration \(ms\): ([\d.]+)")

# ---- where a run stands: run card, results, locks, metrics and log


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Attributes:
        run: the run.
        state: waiting (interrupted ones too), queued, running, trained (not probed yet), probed or failed.
        step: the last step that is known to be done.
        rate: tokens per second of a running training, None where nothing is known.
        reason: why it failed.
    """

    run: SweepRun
    state: str
    step: int = 0
    rate: float | None = None
    reason: str = ""

    @property
    def tokens(self) -> int:
        """Tokens that are trained."""
        return self.run.tokens * self.step // self.run.train_iters

    @property
    def flops_left(self) -> float:
        """Of the training."""
        return self.run.flops * (1 - self.step / self.run.train_iters)

    @property
    def seconds_left(self) -> float | None:
        """Of the training."""
        return (self.run.tokens - self.tokens) / self.rate if self.rate else None


def state_of(run: SweepRun, jobs: Mapping[str, str] | None = None) -> RunState:
    """Where a run stands. `jobs`: the runs that Slurm has in its queue, each `queued` or `running`."""
    end = run.train_iters
    if is_probed(run):
        return RunState(run, "probed", end)
    trained, queue = is_trained(run), (jobs or {}).get(run.name)
    if queue == "running" or _is_locked(run):
        return RunState(run, "running", end) if trained else _progress(run)
    step = end if trained else checkpoint_step(run)
    if queue is not None:
        return RunState(run, queue, step)
    failure = read_object(run.folder / _FAILURE)
    if failure:
        return RunState(run, "failed", step, reason=str(failure.get("reason")))
    return RunState(run, "trained" if trained else "waiting", step)


def is_trained(run: SweepRun) -> bool:
    """Whether the finished model stands, with the run card of this run.

    Raises:
        InputError: it is the model of other inputs, such as a corpus that changed while the run was training.
    """
    try:
        card = read_run_card(run.model_folder)
    except InputError:
        return False
    for key, expected in run.data.items():
        if expected is not None and (card.data or {}).get(key, expected) != expected:
            raise InputError(
                f"{run.model_folder}: was trained on another {key} than the YAML names now; move {run.folder} away"
            )
    return card.iteration == run.train_iters


def is_probed(run: SweepRun) -> bool:
    """Whether lm_eval's results stand, and are of the model that stands."""

    def content(card: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in card.items() if key not in ("created", "run_id", "versions")}

    for file in sorted(run.results.glob("*/results_*.json")):
        results = read_object(file)
        if results.get("results"):
            cards = [config.get("metadata", {}).get("kisl") for config in results.get("configs", {}).values()]
            model = read_object(run.model_folder / CARD_NAME)
            # A model that was deleted to save space leaves its results valid.
            return not model or all(content(card) == content(model) for card in cards if card)
    return False


def checkpoint_step(run: SweepRun) -> int:
    """The step from which the run resumes."""
    try:
        latest = latest_checkpoint(run.folder)
        return 0 if latest is None else int(latest.name.removeprefix("global_step"))
    except ValueError:  # InputError is one
        return 0


def _is_locked(run: SweepRun) -> bool:
    """Whether a process works on the run or trains in its folder; always false where a file system has no locks.

    For an instant this holds the lock itself, shared. So the engine's is tried only while no sweep works on the run.
    """
    for name in (_SWEEP_LOCK, LOCK_NAME):
        try:
            with (run.folder / name).open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue
    return False


def _progress(run: SweepRun) -> RunState:
    """The last step and the speed: of the embedded engine's metrics.jsonl, or of GPT-NeoX's log."""
    done, tokens_per_step = checkpoint_step(run), run.tokens / run.train_iters
    before: Mapping[str, Any] = {}
    rate = None
    for line in _tail(run.folder / "metrics.jsonl"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("seconds"):
            steps = record["iteration"] - before.get("iteration", 0)
            rate = steps * tokens_per_step / record["seconds"] if before else None
            before = record
            done = max(done, int(record["iteration"]))
    for step, milliseconds in _NEOX_STEP.findall("\n".join(_tail(run.log))):
        done = int(step)
        rate = tokens_per_step / (float(milliseconds) / 1000)
    return RunState(run, "running", min(done, run.train_iters), rate)


def last_line(log: Path) -> str:
    """The last line of a log that says what went wrong."""
    return error_line(_tail(log))


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL))
            return stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def record_failure(run: SweepRun, error: KislError | None) -> None:
    """Write why the run failed; None removes the record, when the run is begun again."""
    try:
        if error is None:
            (run.folder / _FAILURE).unlink(missing_ok=True)
        else:
            write_atomically(run.folder / _FAILURE, json.dumps({"reason": str(error)}) + "\n")
    except OSError:  # a full disk may be the failure itself; then the log has it
        pass


# ---- the steps, in this process or started by it; what stands is skipped


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
    with hold_lock(run.folder / _SWEEP_LOCK, f"{run.name}: another sweep works on it"), output_to(run.log):
        record_failure(run, None)
        try:
            if not is_probed(run):
                now = datetime.now(timezone.utc).isoformat(timespec="seconds")
                print(f"== {now} {run.name}: {checkpoint_step(run):,} of {run.train_iters:,} steps stand", flush=True)
                run.write_config()
                if not is_trained(run):
                    _train(run)
                _probe(run)
        except BusyError:
            raise
        except KislError as error:
            record_failure(run, error)
            raise
        except Exception as error:
            traceback.print_exc()
            failure = KislError(f"{type(error).__name__}: {' '.join(str(error).split())}")
            record_failure(run, failure)
            raise failure from None


def _train(run: SweepRun) -> None:
    """Train, and leave the finished model in `model_folder`."""
    with hold_save(run.folder, run.name):  # not beside a training that was started by hand, or outlived a worker
        if restored := restore_latest(run.folder):
            print(f"{run.folder / LATEST} was empty or missing; going on from {restored.name}", flush=True)
    if run.engine == "neox":
        if checkpoint_step(run) < run.train_iters:
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


def serve() -> None:
    """Do the runs that come in, one after the other; when the input ends, end this process and its children.

    The input are pickled runs. It ends with the process at its other end, however that ends. Each answer is the pickled
    error of the run, or None if it is done.
    """
    runs: queue.SimpleQueue[SweepRun] = queue.SimpleQueue()

    def read() -> None:
        with suppress(EOFError, pickle.UnpicklingError):
            while True:
                runs.put(pickle.load(sys.stdin.buffer))
        if os.getpgrp() == os.getpid():  # a group of its own, with what it has started
            os.killpg(0, signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        while True:
            failure = None
            try:
                run_steps(runs.get())
            except KislError as error:  # perhaps of a plugin's own class, which need not be one that can be pickled
                kind = next(kind for kind in (BusyError, InputError, KislError) if isinstance(error, kind))
                failure = kind(str(error))
            answers.write(pickle.dumps(failure))
