"""A GPT-NeoX model as a Llama: its shape, and its weights in Hugging Face's names and order."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError
from kisl_plugin.neox.checkpoint import Checkpoint, Shards
from kisl_plugin.neox_config import swiglu_width

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig

# How far the copies of a norm may differ between tensor-parallel ranks, as a share of the largest weight.
_ROUNDING = 0.01


def llama_config(checkpoint: Checkpoint, eod: int) -> "LlamaConfig":
    """The shape of the model, padded vocabulary included. `eod`: the id of the end of document, bos and eos."""
    from transformers import LlamaConfig

    settings = checkpoint.settings
    hidden, factor = settings["hidden_size"], settings.get("expansion_factor")
    size = int(factor * hidden) if factor else settings.get("intermediate_size")
    return LlamaConfig(
        vocab_size=settings["padded_vocab_size"],
        hidden_size=hidden,
        intermediate_size=swiglu_width(size, hidden, settings["mlp_multiple_of"]),
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
    count, hidden, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    table = [config.vocab_size, hidden]
    rows = hidden + 2 * config.num_key_value_heads * (hidden // config.num_attention_heads)
    yield "model.embed_tokens.weight", _join(shards.take("0.word_embeddings.weight", table, 0), 0)
    for layer in range(count):
        source, target = f"{layer + 2}.", f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{target}{norm}.weight", _norm(shards, f"{source}{norm}.scale", hidden)
        parts = shards.take(f"{source}attention.query_key_value.weight", [rows, hidden], 0)
        for name, weight in zip("qkv", _split_attention(parts, config), strict=True):
            yield f"{target}self_attn.{name}_proj.weight", weight
        dense = shards.take(f"{source}attention.dense.weight", [hidden, hidden], 1)
        yield f"{target}self_attn.o_proj.weight", _join(dense, 1)
        # Each rank's first half is multiplied by the gate, its second half is the gate: see Gated_Activation.
        halves = [part.chunk(2) for part in shards.take(f"{source}mlp.linear1.weight", [2 * inner, hidden], 0)]
        yield f"{target}mlp.up_proj.weight", _join([up for up, _ in halves], 0)
        yield f"{target}mlp.gate_proj.weight", _join([gate for _, gate in halves], 0)
        yield f"{target}mlp.down_proj.weight", _join(shards.take(f"{source}mlp.linear2.weight", [hidden, inner], 1), 1)
    yield "model.norm.weight", _norm(shards, f"{count + 3}.norm.scale", hidden)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", _join(shards.take(f"{count + 4}.final_linear.weight", table, 0), 0)
    shards.check_all_taken()


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


def _norm(shards: Shards, name: str, hidden: int) -> "Tensor":
    """A norm's scale, which every tensor-parallel rank keeps whole; what rounding made differ is averaged."""
    import torch

    first, *others = shards.take(name, [hidden])
    if all(first.equal(other) for other in others):
        return first
    copies = torch.stack([first, *others]).float()
    spread = float((copies.amax(0) - copies.amin(0)).max())
    if spread > _ROUNDING * float(copies.abs().max()):
        raise InputError(
            f"{name}: differs by {spread:.2g} between the tensor-parallel ranks; no single norm gives this model"
        )
    return copies.mean(0).to(first.dtype)
