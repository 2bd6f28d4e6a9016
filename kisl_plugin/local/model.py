"""Llama models of the sizes that a GPT-NeoX YAML names, with GPT-NeoX's own initialisation, AdamW and learning rate."""

import math
from typing import Any

import torch
from transformers import LlamaForCausalLM

from kisl_plugin.huggingface import llama_config
from kisl_plugin.local.config import LocalConfig


def padded_vocabulary(size: int, config: LocalConfig) -> int:
    """The vocabulary's size rounded up as GPT-NeoX does."""
    multiple = config["make_vocab_size_divisible_by"] * config["model_parallel_size"]
    return int(multiple * -(-size // multiple))


def build_model(config: LocalConfig, vocabulary: int, eod: int) -> LlamaForCausalLM:
    """A freshly initialised model in fp32 on the CPU; the same for the same seed."""
    torch.manual_seed(config["seed"])
    layers, hidden = config["num_layers"], config["hidden_size"]
    model = LlamaForCausalLM(llama_config(config.values, padded_vocabulary(vocabulary, config), eod)).float()
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
