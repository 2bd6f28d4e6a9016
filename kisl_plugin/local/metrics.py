"""`metrics.jsonl`: what training measured, one line a log interval, and the note beside the progress."""

import json
from collections import deque
from pathlib import Path

from kisl_plugin.local.training import StepReport
from kisl_plugin.runcard import write_atomically

RECENT_STEPS = 20


class Metrics:
    """Collects step reports. A resumed run keeps the lines up to `start` and goes on there.

    Lines that cannot be read are dropped: a run that was killed while writing leaves half a line.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._recent: deque[StepReport] = deque(maxlen=RECENT_STEPS)
        self._interval: list[StepReport] = []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{line}\n" for line in lines if _is_up_to(line, start)))

    def add(self, report: StepReport) -> None:
        """Take in one step."""
        self._recent.append(report)
        self._interval.append(report)

    def note(self, tokens_a_step: int, exposures: int) -> str:
        """Loss, speed and exposures so far, for the progress line."""
        speed = tokens_a_step * len(self._recent) / max(1e-9, sum(r.seconds for r in self._recent))
        return f"loss {self._recent[-1].loss:.3f} · {speed:,.0f} tokens/s · {exposures:,} exposures"

    def write(self, tokens: int, exposures: int) -> None:
        """End a log interval: its mean loss, the learning rate, and totals so far."""
        reports, self._interval = self._interval, []
        self._append(
            iteration=reports[-1].iteration,
            loss=round(sum(r.loss for r in reports) / len(reports), 5),
            lr=reports[-1].rate,
            tokens=tokens,
            exposures=exposures,
            seconds=round(sum(r.seconds for r in reports), 3),
        )

    def write_held_out(self, iteration: int, loss: float | None) -> None:
        """Record the held-out loss (nats per token)."""
        if loss is not None:
            self._append(iteration=iteration, held_out_loss=round(loss, 5))

    def _append(self, **values: float) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")


def _is_up_to(line: str, start: int) -> bool:
    try:
        values = json.loads(line)
    except ValueError:
        return False
    iteration = values.get("iteration") if isinstance(values, dict) else None
    return isinstance(iteration, int) and iteration <= start
