"""The training steps themselves, in plain PyTorch."""

import ctypes
import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import write_atomically
from kisl_plugin.injection import Rows
from kisl_plugin.local.config import Config
from kisl_plugin.local.data import RunData
from kisl_plugin.local.model import learning_rate

# Keeps freed memory for the next training step instead of giving it back to the system.

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Tell glibc's malloc to hold on to large blocks; elsewhere nothing happens.

    On a CPU every step frees and asks again for the same large tensors, and each time the system hands out pages to be
    faulted in and cleared: see benchmarks/memory.py.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST // 2)
    mallopt(M_TRIM_THRESHOLD, LARGEST)


# The training steps themselves, in plain PyTorch.


@dataclass(frozen=True)
class StepReport:
    """One training step: mean loss (nats per token) and the time it took (seconds)."""

    iteration: int
    loss: float
    rate: float
    exposures: int
    seconds: float


def train_steps(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, config: Config, data: RunData, start: int
) -> Iterator[StepReport]:
    """Steps start … train_iters-1, yielding after each; the caller may save or stop between them.

    Raises:
        InputError: a token of the corpus is outside the vocabulary.
        KislError: the loss is not finite.
    """
    device = next(model.parameters()).device
    model.train()
    for step in range(start, config["train_iters"]):
        began = time.perf_counter()
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _accumulate(model, config, data.train, step, device)
        if not np.isfinite(loss):
            raise KislError(f"iteration {step + 1}: the loss is {loss}; lower the learning rate ({rate:.2g})")
        if config["gradient_clipping"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["gradient_clipping"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield StepReport(step + 1, loss, rate, exposures_of(data, config, step), time.perf_counter() - began)


def exposures_of(data: RunData, config: Config, step: int) -> int:
    """How many exposures the rows of a step hold."""
    if data.plan is None:
        return 0
    rows = range(step * config.batch, (step + 1) * config.batch)
    return sum(len(data.plan.schedule.triples_in(i)) for i in rows)


def held_out_loss(model: LlamaForCausalLM, config: Config, data: RunData) -> float | None:
    """Mean loss (nats per token) on the first eval_iters batches of the held-out rows; the same rows every time."""
    if data.valid is None:
        return None
    device = next(model.parameters()).device
    rows = min(len(data.valid), config["eval_iters"] * config.batch)
    micro = config["train_micro_batch_size_per_gpu"]
    model.eval()
    total = 0.0
    with torch.no_grad():
        for first in range(0, rows, micro):
            batch = range(first, min(first + micro, rows))
            total += float(_loss(model, _batch(data.valid, batch, device), config)) * len(batch)
    model.train()
    return float(total / rows)


def _accumulate(model: LlamaForCausalLM, config: Config, rows: Rows, step: int, device: torch.device) -> float:
    micro, parts = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    total = 0.0
    for part in range(parts):
        first = step * config.batch + part * micro
        loss = _loss(model, _batch(rows, range(first, first + micro), device), config) / parts
        loss.backward()
        total += float(loss.detach())
    return total


def _batch(rows: Rows, indices: range, device: torch.device) -> torch.Tensor:
    # Modulo, as InjectedDataset reads its base: a run without a kisl section sees the rows of one with F = 0.
    return torch.from_numpy(np.stack([rows[i % len(rows)]["text"] for i in indices])).to(device)


def _loss(model: LlamaForCausalLM, tokens: torch.Tensor, config: Config) -> torch.Tensor:
    vocabulary = model.config.vocab_size
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most >= vocabulary:
        raise InputError(
            f"{config['data_path']}: token {least if least < 0 else most} is outside the vocabulary of {vocabulary}; "
            f"the corpus was not tokenised with {config['vocab_file']}"
        )
    with _precision(config, tokens.device):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def _precision(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 is autocast over fp32 weights; GPT-NeoX keeps bfloat16 weights beside an fp32 master copy."""
    half = config.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


# `metrics.jsonl`: what training measured, one line a log interval, and the note beside the progress.

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
