"""The model and the training steps of the embedded engine in plain PyTorch, and what is measured of them.

Initialisation, AdamW and learning rate are GPT-NeoX's own.
"""

import ctypes
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import write_atomically
from kisl_plugin.huggingface import llama_config
from kisl_plugin.injection import Rows
from kisl_plugin.local.config import LocalConfig
from kisl_plugin.neox_config import padded_vocabulary

__all__ = ["Metrics", "StepReport", "build_model", "build_optimizer", "count_parameters", "held_out_loss",
           "keep_freed_memory", "train_steps"]  # fmt: skip

# ---- the model


def build_model(config: LocalConfig, vocabulary: int, eod: int) -> LlamaForCausalLM:
    """A freshly initialised model in fp32 on the CPU; the same for the same seed."""
    torch.manual_seed(config["seed"])
    layers, hidden = config["num_layers"], config["hidden_size"]
    model = LlamaForCausalLM(llama_config(config.values, padded_vocabulary(vocabulary, config.values), eod)).float()
    # The weights are drawn as megatron/model/init_functions.py does; norms keep their ones.
    sigma = config["init_method_std"]
    deviations = {
        "normal": sigma,
        "scaled_normal": sigma / math.sqrt(2 * layers),
        "small_init": math.sqrt(2 / (5 * hidden)),
        "wang_init": 2 / layers / math.sqrt(hidden),
    }
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                continue
            ends_a_sublayer = name.endswith(("o_proj.weight", "down_proj.weight"))
            method = config["output_layer_init_method" if ends_a_sublayer else "init_method"]
            torch.nn.init.normal_(weight, 0.0, deviations[method])
    return model


def count_parameters(model: LlamaForCausalLM) -> tuple[int, int]:
    """All parameters, and those outside the embeddings (input and output)."""
    total = sum(p.numel() for p in model.parameters())
    # By identity, so that tied embeddings count once.
    embeddings = {id(p): p.numel() for p in (model.model.embed_tokens.weight, model.lm_head.weight)}
    return total, total - sum(embeddings.values())


def build_optimizer(model: torch.nn.Module, config: LocalConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on everything but the norms (get_params_for_weight_decay_optimization)."""
    params = config["optimizer"]["params"]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config["weight_decay"]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=params["lr"],
        betas=tuple(params.get("betas", (0.9, 0.999))),
        eps=params.get("eps", 1e-8),
        fused=device.type in ("cpu", "cuda"),
    )


def learning_rate(step: int, config: LocalConfig) -> float:
    """The learning rate of step 0 … train_iters-1 (AnnealingLR.get_lr in megatron/learning_rates.py)."""
    peak, least, end = config["optimizer"]["params"]["lr"], config["min_lr"], config["train_iters"]
    if config["lr_decay_iters"] is not None:
        end = config["lr_decay_iters"]
    elif config["lr_decay_fraction"] is not None:
        end = max(1, math.floor(end * config["lr_decay_fraction"]))
    warmup = config["warmup"] * end
    if warmup > 0 and step <= warmup:
        return float(peak * max(1, step) / warmup)
    done, span = step - warmup, max(end - warmup, 1e-9)
    rate = peak
    if config["lr_decay_style"] == "linear":
        rate = peak * (span - done) / span
    elif config["lr_decay_style"] == "cosine":
        rate = least + (peak - least) / 2 * (math.cos(math.pi * done / span) + 1)
    return float(max(rate, least))


# ---- the steps

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Make glibc's malloc keep large blocks that are freed; elsewhere nothing happens.

    On a CPU every step frees and allocates the same large tensors, and each time the system hands out pages that must
    be faulted in and cleared: see benchmarks/memory.py.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    largest = (1 << 31) - 1
    mallopt(_M_MMAP_THRESHOLD, largest // 2)
    mallopt(_M_TRIM_THRESHOLD, largest)


@dataclass(frozen=True)
class StepReport:
    """One training step: mean loss (nats per token), learning rate, and the time it took (seconds)."""

    iteration: int
    loss: float
    rate: float
    seconds: float


def train_steps(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, config: LocalConfig, rows: Rows, start: int
) -> Iterator[StepReport]:
    """Train steps start … train_iters-1, yielding after each; the caller may save or stop between them.

    Raises:
        InputError: a token of the corpus is outside the vocabulary.
        KislError: the loss is not finite.
    """
    micro, parts = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    model.train()
    for step in range(start, config["train_iters"]):
        began = time.perf_counter()
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for part in range(parts):
            first = step * config.batch + part * micro
            loss = _loss(model, rows, range(first, first + micro), config) / parts
            loss.backward()
            total += float(loss.detach())
        if not np.isfinite(total):
            raise KislError(f"iteration {step + 1}: the loss is {total}; lower the learning rate ({rate:.2g})")
        if config["gradient_clipping"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["gradient_clipping"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield StepReport(step + 1, total, rate, time.perf_counter() - began)


def held_out_loss(model: LlamaForCausalLM, config: LocalConfig, rows: Rows) -> float:
    """Mean loss (nats per token) on the first eval_iters batches of the held-out rows; the same rows every time."""
    count = min(len(rows), config["eval_iters"] * config.batch)
    micro = config["train_micro_batch_size_per_gpu"]
    model.eval()
    with torch.no_grad():
        batches = [range(first, min(first + micro, count)) for first in range(0, count, micro)]
        total = sum(float(_loss(model, rows, batch, config)) * len(batch) for batch in batches)
    model.train()
    return float(total / count)


def _loss(model: LlamaForCausalLM, rows: Rows, indices: range, config: LocalConfig) -> torch.Tensor:
    """Mean cross-entropy (nats per token) of some rows."""
    # Modulo, as InjectedDataset reads its base: a run without a kisl section reads the rows of one with F = 0.
    batch = torch.from_numpy(np.stack([rows[i % len(rows)]["text"] for i in indices]))
    vocabulary, low, high = model.config.vocab_size, int(batch.min()), int(batch.max())
    if low < 0 or high >= vocabulary:
        raise InputError(
            f"{config['data_path']}: token {low if low < 0 else high} is outside the vocabulary of {vocabulary}; "
            f"the corpus was not tokenised with {config['vocab_file']}"
        )
    tokens = batch.to(model.device)
    # bfloat16 is autocast over fp32 weights; GPT-NeoX keeps bfloat16 weights beside an fp32 master copy.
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=config["precision"] == "bfloat16"):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


class Metrics:
    """Writes `metrics.jsonl`, one line a log interval; a resumed run keeps the lines up to `start`.

    Each line is given to `loggers` too. Lines that cannot be read are dropped: a run that was killed while writing
    leaves half a line.
    """

    def __init__(self, path: Path, start: int, loggers: Sequence[Callable[[Mapping[str, float]], object]] = ()) -> None:
        self._path, self._loggers = path, loggers
        self._interval: list[StepReport] = []
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
            with suppress(ValueError, TypeError, KeyError):
                if json.loads(line)["iteration"] <= start:
                    kept.append(f"{line}\n")
        write_atomically(path, "".join(kept))

    def add(self, report: StepReport, tokens_per_step: int, exposures: int) -> str:
        """Record one step. Returns loss, speed and exposures so far, for the progress line."""
        self._interval.append(report)
        speed = tokens_per_step * len(self._interval) / max(1e-9, sum(r.seconds for r in self._interval))
        return f"loss {report.loss:.3f} · {speed:,.0f} tokens/s · {exposures:,} exposures"

    def write(self, tokens: int, exposures: int) -> None:
        """End a log interval: its mean loss, the learning rate, and totals so far."""
        reports, self._interval = self._interval, []
        self.append(
            iteration=reports[-1].iteration,
            loss=round(sum(r.loss for r in reports) / len(reports), 5),
            lr=reports[-1].rate,
            tokens=tokens,
            exposures=exposures,
            seconds=round(sum(r.seconds for r in reports), 3),
        )

    def append(self, **values: float) -> None:
        """Write one line of keys and values; `iteration` must be one of them."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")
        for log in self._loggers:
            log(values)
