"""The training steps themselves, in plain PyTorch."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.injection import Rows
from kisl_plugin.local.config import Config
from kisl_plugin.local.data import RunData
from kisl_plugin.local.optim import learning_rate


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
