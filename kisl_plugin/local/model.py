"""Llama models of the sizes that a GPT-NeoX YAML names, with GPT-NeoX's own initialisation."""

import math
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kisl_plugin.local.config import Config
from kisl_plugin.shapes import swiglu_width

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
