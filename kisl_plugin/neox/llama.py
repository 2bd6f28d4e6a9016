"""A GPT-NeoX model as a Llama: whether it is one, its shape, and its weights in Hugging Face's names and order."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox.checkpoint import Checkpoint, Shards
from kisl_plugin.neox_config import swiglu_width

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig

_ROUNDING = 0.01


def llama_config(checkpoint: Checkpoint, eod: int) -> "LlamaConfig":
    """The shape of the model, padded vocabulary included. `eod`: the id of the end of document, bos and eos."""
    from transformers import LlamaConfig

    settings = checkpoint.settings
    return LlamaConfig(
        vocab_size=settings["padded_vocab_size"],
        hidden_size=settings["hidden_size"],
        intermediate_size=_inner_width(settings),
        num_hidden_layers=settings["num_layers"],
        num_attention_heads=settings["num_attention_heads"],
        num_key_value_heads=settings.get("num_kv_heads") or settings["num_attention_heads"],
        max_position_embeddings=settings["max_position_embeddings"],
        rms_norm_eps=float(settings["rms_norm_epsilon"]),
        rope_theta=float(settings["rotary_emb_base"]),
        tie_word_embeddings=not settings["no_weight_tying"],
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=eod,
        eos_token_id=eod,
    )


def llama_weights(shards: Shards, config: "LlamaConfig") -> Iterator[tuple[str, "Tensor"]]:
    """Every parameter of the Hugging Face model once, by name; every tensor of the checkpoint is used once.

    Raises:
        InputError: a tensor is missing, left over, or of another shape.
    """
    count, table = config.num_hidden_layers, [config.vocab_size, config.hidden_size]
    yield "model.embed_tokens.weight", _join(shards.take("0.word_embeddings.weight", table, 0), 0)
    for layer in range(count):
        for name, weight in _layer(shards, config, f"{layer + 2}."):
            yield f"model.layers.{layer}.{name}", weight
    yield "model.norm.weight", _common(shards, f"{count + 3}.norm.scale", config)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", _join(shards.take(f"{count + 4}.final_linear.weight", table, 0), 0)
    shards.check_all_taken()


def _layer(shards: Shards, config: "LlamaConfig", at: str) -> Iterator[tuple[str, "Tensor"]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{name}.weight", _common(shards, f"{at}{name}.scale", config)
    rows = hidden + 2 * config.num_key_value_heads * (hidden // config.num_attention_heads)
    parts = shards.take(f"{at}attention.query_key_value.weight", [rows, hidden], 0)
    for name, weight in zip("qkv", _split_attention(parts, config), strict=True):
        yield f"self_attn.{name}_proj.weight", weight
    yield "self_attn.o_proj.weight", _join(shards.take(f"{at}attention.dense.weight", [hidden, hidden], 1), 1)
    # Each rank's first half is multiplied by the gate, its second half is the gate: see Gated_Activation.
    halves = [part.chunk(2) for part in shards.take(f"{at}mlp.linear1.weight", [2 * inner, hidden], 0)]
    yield "mlp.up_proj.weight", _join([up for up, _ in halves], 0)
    yield "mlp.gate_proj.weight", _join([gate for _, gate in halves], 0)
    yield "mlp.down_proj.weight", _join(shards.take(f"{at}mlp.linear2.weight", [hidden, inner], 1), 1)


def _split_attention(parts: Sequence["Tensor"], config: "LlamaConfig") -> list["Tensor"]:
    """Query, key and value out of each rank's joint projection.

    With as many key as query heads it is stored head by head, [head][q|k|v]; with fewer as [q|k|v] of all the rank's
    heads. Source: ParallelSelfAttention.forward and gqa_project in megatron/model/transformer.py.
    """
    import torch

    hidden, heads, kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    if kv_heads == heads:
        by_head = [part.view(-1, 3, hidden // heads, hidden) for part in parts]
        return [_join([part[:, i].reshape(-1, hidden) for part in by_head], 0) for i in range(3)]
    sizes = [count * (hidden // heads) // len(parts) for count in (heads, kv_heads, kv_heads)]
    split = [torch.split(part, sizes) for part in parts]
    return [_join([pieces[i] for pieces in split], 0) for i in range(3)]


def _join(parts: Sequence["Tensor"], dimension: int) -> "Tensor":
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dimension)


def _common(shards: Shards, name: str, config: "LlamaConfig") -> "Tensor":
    """A norm's scale, which every tensor-parallel rank keeps whole; what rounding made differ is averaged."""
    import torch

    first, *others = shards.take(name, [config.hidden_size])
    if all(first.equal(other) for other in others):
        return first
    every = torch.stack([first, *others]).float()
    spread = float((every.amax(0) - every.amin(0)).max())
    if spread > _ROUNDING * float(every.abs().max()):
        raise InputError(
            f"{name}: differs by {spread:.2g} between the tensor-parallel ranks; no one norm gives this model"
        )
    return every.mean(0).to(first.dtype)


def _inner_width(settings: Mapping[str, Any]) -> int:
    hidden, factor = settings["hidden_size"], settings.get("expansion_factor")
    size = int(factor * hidden) if factor else settings.get("intermediate_size")
    return swiglu_width(size, hidden, settings["mlp_multiple_of"])
