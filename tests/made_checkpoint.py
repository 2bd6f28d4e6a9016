"""A checkpoint laid out as GPT-NeoX lays it out, made from a Hugging Face model by loops over heads and ranks."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_world import write_yaml
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

STEP = "global_step20"
VOCABULARY = 512

Weights = Mapping[str, Tensor]


def neox_values(world: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "num_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 72,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "norm": "rmsnorm",
        "pos-emb": "rotary",
        "activation": "swiglu",
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
        "no_weight_tying": True,
        "tokenizer_type": "HFTokenizer",
        "vocab_file": str(world / "tokenizer.json"),
        "model_parallel_size": 1,
        "pipe_parallel_size": 0,
        "make_vocab_size_divisible_by": 128,
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def llama(values: Mapping[str, Any], seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=values["hidden_size"],
        intermediate_size=values["intermediate_size"] // 3,
        num_hidden_layers=values["num_layers"],
        num_attention_heads=values["num_attention_heads"],
        num_key_value_heads=values.get("num_kv_heads") or values["num_attention_heads"],
        tie_word_embeddings=not values["no_weight_tying"],
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_(1, 0.1)
    return model


def make_checkpoint(save: Path, values: Mapping[str, Any], model: LlamaForCausalLM, **extra: Any) -> Path:
    """Write SAVE/global_step20 and `latest`. `extra`: what is saved beside the weights, in rank 0's file."""
    ranks, folder = values["model_parallel_size"], save / STEP
    folder.mkdir(parents=True)
    parts = [_rank(model.state_dict(), values, rank) for rank in range(ranks)]
    staged = values["pipe_parallel_size"] > 0
    for rank, part in enumerate(parts):
        module = None if staged else {f"sequential.{name}": tensor for name, tensor in part.items()}
        saved = {"module": module, "optimizer": None, "iteration": 20, "args": _arguments(values), **_random_states()}
        torch.save({**saved, **extra}, folder / f"mp_rank_{rank:02d}_model_states.pt")
        for layer in {name.split(".")[0] for name in part} if staged else ():
            held = {name.partition(".")[2]: t for name, t in part.items() if name.startswith(f"{layer}.")}
            torch.save(held, folder / f"layer_{int(layer):02d}-model_{rank:02d}-model_states.pt")
    (folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"must not be opened")
    write_yaml(folder / "configs" / "run.yml", dict(values))
    (save / "latest").write_text(STEP)
    return folder


def made(world: Path, folder: Path, *, extra: dict[str, Any] | None = None, **changes: Any) -> Path:
    """SAVE, with one checkpoint of a small model."""
    values = neox_values(world, **changes)
    make_checkpoint(folder / "save", values, llama(values), **(extra or {}))
    return folder / "save"


def rewrite(path: Path, change: Any) -> None:
    saved = torch.load(path, weights_only=False)
    change(saved)
    torch.save(saved, path)


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    same = "num_layers hidden_size num_attention_heads max_position_embeddings make_vocab_size_divisible_by".split()
    saved = {key: values[key] for key in [*same, "model_parallel_size", "tokenizer_type"]}
    return {**saved, "padded_vocab_size": VOCABULARY}


def _random_states() -> dict[str, Any]:
    return {"random_rng_state": random.getstate(), "np_rng_state": np.random.get_state()}


def _rank(weights: Weights, values: Mapping[str, Any], rank: int) -> dict[str, Tensor]:
    count, ranks = values["num_layers"], values["model_parallel_size"]
    part = {"0.word_embeddings.weight": _cut(weights["model.embed_tokens.weight"], ranks, rank)}
    for layer in range(count):
        old = {k.split(".", 3)[3]: v for k, v in weights.items() if k.startswith(f"model.layers.{layer}.")}
        part |= {f"{layer + 2}.{name}": tensor for name, tensor in _layer(old, values, rank).items()}
    part[f"{count + 3}.norm.scale"] = weights["model.norm.weight"]
    if values["no_weight_tying"]:
        part[f"{count + 4}.final_linear.weight"] = _cut(weights["lm_head.weight"], ranks, rank)
    return part


def _layer(old: Weights, values: Mapping[str, Any], rank: int) -> dict[str, Tensor]:
    ranks = values["model_parallel_size"]
    inner = [_cut(old[f"mlp.{name}_proj.weight"], ranks, rank) for name in ("up", "gate")]
    return {
        "input_layernorm.scale": old["input_layernorm.weight"],
        "post_attention_layernorm.scale": old["post_attention_layernorm.weight"],
        "attention.query_key_value.weight": _attention(old, values, rank),
        "attention.dense.weight": _cut(old["self_attn.o_proj.weight"].T, ranks, rank).T,
        "attention.rotary_emb.inv_freq": torch.ones(4),
        "mlp.linear1.weight": torch.cat(inner),
        "mlp.linear2.weight": _cut(old["mlp.down_proj.weight"].T, ranks, rank).T,
    }


def _attention(old: Weights, values: Mapping[str, Any], rank: int) -> Tensor:
    """Head by head with as many key as query heads, else first all queries, then all keys, then all values."""
    heads, ranks = values["num_attention_heads"], values["model_parallel_size"]
    kv_heads = values.get("num_kv_heads") or heads
    size = values["hidden_size"] // heads
    rows = {name: old[f"self_attn.{name}_proj.weight"].split(size) for name in "qkv"}
    mine = {
        name: range(rank * n // ranks, (rank + 1) * n // ranks)
        for name, n in zip("qkv", (heads, kv_heads, kv_heads), strict=True)
    }
    if kv_heads == heads:
        return torch.cat([rows[name][head] for head in mine["q"] for name in "qkv"])
    return torch.cat([rows[name][head] for name in "qkv" for head in mine[name]])


def _cut(weight: Tensor, ranks: int, rank: int) -> Tensor:
    size = len(weight) // ranks
    return weight[rank * size : (rank + 1) * size].clone()
