"""Where each run of a sweep stands, read from its files alone: run card, results, locks, metrics and log."""

import fcntl
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.checkpoints import LOCK_NAME, latest_checkpoint
from kisl_plugin.errors import InputError, KislError, error_line
from kisl_plugin.files import read_object, write_atomically
from kisl_plugin.runcard import CARD_NAME, RunCard, read_run_card
from kisl_plugin.sweep.spec import SweepRun

__all__ = ["STATES", "RunState", "checkpoint_step", "is_locked", "is_probed", "is_trained", "last_line",
           "record_failure", "state_of"]  # fmt: skip

STATES = ("waiting", "queued", "running", "trained", "probed", "failed")
SWEEP_LOCK = "sweep.lock"  # held by the process that works on a run; the engine's own lock is LOCK_NAME
_FAILURE = "failure.json"
_TAIL = 1 << 16  # bytes at the end of a log in which its last lines are looked for


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Attributes:
        run: the run.
        state: one of STATES. `waiting` includes what was interrupted, and `trained` what is not probed yet.
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
    def seconds_left(self) -> float | None:
        """Of the training."""
        return (self.run.tokens - self.tokens) / self.rate if self.rate else None


def state_of(run: SweepRun, jobs: Mapping[str, str] | None = None) -> RunState:
    """Where a run stands. `jobs`: the runs that Slurm has in its queue, each `queued` or `running`."""
    end = run.train_iters
    if is_probed(run):
        return RunState(run, "probed", end)
    trained, queue = is_trained(run), (jobs or {}).get(run.name)
    if queue == "running" or is_locked(run):
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
    _check_card(run, card)
    return card.iteration == run.train_iters


def _check_card(run: SweepRun, card: RunCard) -> None:
    trained_on = card.data or {}
    for key, expected in run.data.items():
        if expected is not None and trained_on.get(key, expected) != expected:
            raise InputError(
                f"{run.model_folder}: was trained on another {key} than the YAML names now; move {run.folder} away"
            )


def is_probed(run: SweepRun) -> bool:
    """Whether lm_eval's results stand, and are of the model that stands."""
    for file in sorted(run.results.glob("*/results_*.json")):
        results = read_object(file)
        if results.get("results"):
            cards = [config.get("metadata", {}).get("kisl") for config in results.get("configs", {}).values()]
            model = read_object(run.model_folder / CARD_NAME)
            # A model that was deleted to save space leaves its results valid.
            return not model or all(_content(card) == _content(model) for card in cards if card)
    return False


def _content(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card.items() if key not in ("created", "run_id", "versions")}


def checkpoint_step(run: SweepRun) -> int:
    """The step from which the run resumes."""
    try:
        latest = latest_checkpoint(run.folder)
        return 0 if latest is None else int(latest.name.removeprefix("global_step"))
    except ValueError:  # InputError is one
        return 0


def is_locked(run: SweepRun) -> bool:
    """Whether a process works on the run or trains in its folder; always false where a file system has no locks.

    For an instant this holds the lock itself, shared. So the engine's is tried only while no sweep works on the run.
    """
    for name in (SWEEP_LOCK, LOCK_NAME):
        try:
            with (run.folder / name).open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue
    return False


def record_failure(run: SweepRun, error: KislError | None) -> None:
    """Write why the run failed; None removes the record, when the run is begun again."""
    try:
        if error is None:
            (run.folder / _FAILURE).unlink(missing_ok=True)
        else:
            write_atomically(run.folder / _FAILURE, json.dumps({"reason": str(error)}) + "\n")
    except OSError:  # a full disk may be the failure itself; then the log has it
        pass


# ---- the progress of a training, from what the engines write anyway

_NEOX_STEP = re.compile(r"iteration\s+(\d+)/\s*\d+.*?elapsed time per iteration \(ms\): ([\d.]+)")


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
