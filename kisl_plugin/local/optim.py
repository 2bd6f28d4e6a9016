"""AdamW and the learning rate of every step, as GPT-NeoX has them."""

import math
from typing import Any

import torch

from kisl_plugin.local.config import Config


def build_optimizer(model: torch.nn.Module, config: Config, device: torch.device) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on everything but the norms (get_params_for_weight_decay_optimization)."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    params = config["optimizer"]["params"]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=float(params["lr"]),
        betas=tuple(params.get("betas", (0.9, 0.999))),
        eps=float(params.get("eps", 1e-8)),
        fused=device.type in ("cpu", "cuda"),
    )


def learning_rate(step: int, config: Config) -> float:
    """The learning rate of step 0 … train_iters-1 (AnnealingLR.get_lr in megatron/learning_rates.py)."""
    peak, least = float(config["optimizer"]["params"]["lr"]), config["min_lr"]
    end = _decay_steps(config)
    warmup = config["warmup"] * end
    if warmup > 0 and step <= warmup:
        return float(peak * max(1, step) / warmup)
    done, span = step - warmup, max(end - warmup, 1e-9)
    style = config["lr_decay_style"]
    if style == "linear":
        rate = peak * (span - done) / span
    elif style == "cosine":
        rate = least + (peak - least) / 2 * (math.cos(math.pi * done / span) + 1)
    elif style == "exponential":
        rate = peak * math.exp(-0.693 * done / span)
    else:
        rate = peak
    return float(max(rate, least))


def _decay_steps(config: Config) -> int:
    if config["lr_decay_iters"] is not None:
        steps = config["lr_decay_iters"]
    elif config["lr_decay_fraction"] is not None:
        steps = math.floor(config["train_iters"] * config["lr_decay_fraction"])
    else:
        steps = config["train_iters"]
    return max(1, int(steps))
