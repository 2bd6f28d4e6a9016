"""Llama models of the sizes that a GPT-NeoX YAML names, with GPT-NeoX's own initialisation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kisl_plugin.local.config import Config
from kisl_plugin.neox_config import swiglu_width

# Llama models of the sizes that a GPT-NeoX YAML names, with GPT-NeoX's own initialisation.

Fill = Callable[[torch.Tensor, int], object]


def padded_vocabulary(size: int, config: Config) -> int:
    """The vocabulary's size rounded up as GPT-NeoX does."""
    multiple = config["make_vocab_size_divisible_by"] * config["model_parallel_size"]
    return int(multiple * -(-size // multiple))


def build_model(config: Config, vocabulary: int, eod: int) -> LlamaForCausalLM:
    """A freshly initialised model in fp32 on the CPU; the same for the same seed."""
    torch.manual_seed(config["seed"])
    heads = config["num_attention_heads"]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=padded_vocabulary(vocabulary, config),
            hidden_size=config["hidden_size"],
            intermediate_size=swiglu_width(
                config["intermediate_size"], config["hidden_size"], config["mlp_multiple_of"]
            ),
            num_hidden_layers=config["num_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config["num_kv_heads"] or heads,
            max_position_embeddings=config["max_position_embeddings"],
            rms_norm_eps=config["rms_norm_epsilon"],
            rope_theta=float(config["rotary_emb_base"]),
            tie_word_embeddings=not config["no_weight_tying"],
            attention_bias=False,
            mlp_bias=False,
            attention_dropout=0.0,
            bos_token_id=eod,
            eos_token_id=eod,
            use_cache=True,
        )
    ).float()
    _initialise(model, config)
    return model


def parameter_counts(model: LlamaForCausalLM) -> tuple[int, int]:
    """All parameters, and those outside the embeddings (input and output)."""
    total = sum(p.numel() for p in model.parameters())
    embeddings = {id(p): p.numel() for p in (model.model.embed_tokens.weight, model.lm_head.weight)}
    return total, total - sum(embeddings.values())


def _initialise(model: LlamaForCausalLM, config: Config) -> None:
    inner, outer = (_filler(config[key], config) for key in ("init_method", "output_layer_init_method"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            fill = outer if name.endswith(("o_proj.weight", "down_proj.weight")) else inner
            fill(parameter, _fan_out(name, parameter, model.config))


def _fan_out(name: str, parameter: torch.Tensor, shape: LlamaConfig) -> int:
    """Outputs of the tensor that GPT-NeoX draws at once: q, k and v are one there, and so are gate and up."""
    if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
        heads, key_heads = shape.num_attention_heads, shape.num_key_value_heads
        return int((heads + 2 * key_heads) * shape.hidden_size // heads)
    if name.endswith(("gate_proj.weight", "up_proj.weight")):
        return int(2 * shape.intermediate_size)
    return parameter.shape[0]


def _filler(method: str, config: Config) -> Fill:
    """The initialisations of megatron/model/init_functions.py; the fan-out counts for the Xavier ones."""
    layers, hidden, sigma = config["num_layers"], config["hidden_size"], config["init_method_std"]
    if method == "xavier_uniform":
        return _xavier_uniform
    if method == "xavier_normal":
        return lambda tensor, fan_out: torch.nn.init.normal_(tensor, 0.0, _xavier_std(tensor, fan_out))
    std = {
        "normal": sigma,
        "scaled_normal": sigma / math.sqrt(2 * layers),
        "small_init": math.sqrt(2 / (5 * hidden)),
        "wang_init": 2 / layers / math.sqrt(hidden),
    }[method]
    return lambda tensor, _: torch.nn.init.normal_(tensor, 0.0, std)


def _xavier_uniform(tensor: torch.Tensor, fan_out: int) -> torch.Tensor:
    bound = math.sqrt(3) * _xavier_std(tensor, fan_out)
    return torch.nn.init.uniform_(tensor, -bound, bound)


def _xavier_std(tensor: torch.Tensor, fan_out: int) -> float:
    return math.sqrt(2 / (tensor.shape[1] + fan_out))


# AdamW and the learning rate of every step, as GPT-NeoX has them.


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
