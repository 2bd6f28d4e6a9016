"""`kisl export`: a checkpoint of GPT-NeoX as a Hugging Face Llama folder that gives the same logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.huggingface import llama_config, read_tokenizer, write_model
from kisl_plugin.neox.checkpoint import Checkpoint, Shards, find_checkpoint, open_checkpoint
from kisl_plugin.neox.install import TESTED_COMMIT, VARIABLE, commit_of, find_neox
from kisl_plugin.neox.verify import TOLERANCE, largest_difference
from kisl_plugin.neox_config import padded_vocabulary, refuse_keys
from kisl_plugin.progress import Progress
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["Exported", "export_checkpoint"]

# What an export consists of, in this and earlier releases of transformers.
_FILES = (
    "config.json generation_config.json model*.safetensors model.safetensors.index.json tokenizer.json "
    f"tokenizer_config.json special_tokens_map.json README.md {CARD_NAME} {TRIPLES_NAME}"
).split()


@dataclass(frozen=True)
class Exported:
    """What was written where.

    `card` is None where the checkpoint has none, `difference` the largest one of a logit where it was verified.
    """

    folder: Path
    checkpoint: Path
    iteration: int
    parameters: int
    dtype: str
    card: RunCard | None
    difference: float | None = None


def export_checkpoint(
    path: Path, out: Path, tokenizer: Path | None = None, *, any_commit: bool = False, verify: bool = False
) -> Exported:
    """Write the model of a checkpoint to `out`, in the type in which it is stored; `tokenizer` replaces vocab_file.

    Args:
        path: the checkpoint, or a `save`, whose latest is taken.
        out: a new folder, or one with an earlier export.
        tokenizer: the file of the training's tokenizer, if it has moved.
        any_commit: export what a commit of GPT-NeoX trained that was not tested.
        verify: compare logits with those that GPT-NeoX computes from the checkpoint.

    Raises:
        InputError: the checkpoint is incomplete or not a Llama, was written by a commit of GPT-NeoX that was not tested
            (unless `any_commit`), its tokenizer is not found, or `out` holds other files.
        KislError: `out` cannot be written. With `verify`, GPT-NeoX is not here, or the logits differ.
    """
    folder = find_checkpoint(path)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a new folder")
    for content in sorted(out.iterdir()) if out.is_dir() else []:  # an earlier export may be replaced
        if content.is_dir() or not any(content.match(pattern) for pattern in _FILES):
            raise InputError(f"{out}: holds {content.name}, which is not part of an export; give a new folder")
    with needs_extra("local", "exporting a model"):
        import torch  # noqa: F401
        import transformers  # noqa: F401
        from safetensors import SafetensorError

    checkpoint = open_checkpoint(folder)
    refuse_keys(checkpoint.yamls, "export")
    tokenizer_path = tokenizer or _vocab_file(checkpoint)
    loaded_tokenizer, eod = read_tokenizer(tokenizer_path)
    size, padded = loaded_tokenizer.get_vocab_size(), checkpoint.settings["padded_vocab_size"]
    if padded_vocabulary(size, checkpoint.settings) != padded:
        raise InputError(
            f"{tokenizer_path}: has {size:,} tokens, which do not pad to the model's {padded:,}; give the tokenizer of "
            "the training: --tokenizer PATH"
        )

    card, triples = _read_card(checkpoint)
    commit = card.versions.get("gpt_neox") if card is not None else None
    if commit not in (None, TESTED_COMMIT) and not any_commit:
        raise InputError(
            f"{folder / CARD_NAME}: was trained with GPT-NeoX {commit}; the export was tested with {TESTED_COMMIT}, "
            "and others store some weights in another order; to export it all the same: --any-commit --verify"
        )
    if verify:  # with another GPT-NeoX, which may read the checkpoint in another order, there is nothing to compare
        neox = find_neox()
        here = commit_of(neox)
        if commit is not None and here is not None and commit != here:
            raise KislError(
                f"{neox}: is GPT-NeoX {here}, and the checkpoint was trained with {commit}; --verify needs that one: "
                f"set {VARIABLE} to a clone of it"
            )
    model = _build(checkpoint, llama_config(checkpoint.settings, padded, eod))
    if card is not None and card.model["params"] != model.num_parameters():
        raise InputError(
            f"{folder / CARD_NAME}: model.params is {card.model['params']:,}, the weights are "
            f"{model.num_parameters():,}; this is the card of another model"
        )
    try:
        write_model(out, model, loaded_tokenizer, card, triples)
    except (OSError, SafetensorError) as error:
        raise KislError(f"{out}: cannot be written ({error})") from None
    difference = None
    if verify:
        difference = largest_difference(checkpoint, out, tokenizer_path)
        if not difference <= TOLERANCE:
            raise KislError(
                f"{out}: is not the model of {folder}: a logit differs by {difference:.2g} from GPT-NeoX's, and "
                f"rounding explains {TOLERANCE:g} at most; do not use it"
            )
    dtype_name = str(model.dtype).removeprefix("torch.")
    return Exported(out, folder, checkpoint.iteration, model.num_parameters(), dtype_name, card, difference)


def _vocab_file(checkpoint: Checkpoint) -> Path:
    """The YAML's tokenizer; a relative path starts at the folder in which the training was started."""
    yamls = checkpoint.yamls
    kind, file = yamls.values.get("tokenizer_type", "GPT2BPETokenizer"), yamls.values.get("vocab_file")
    if str(kind).lower() != "hftokenizer" or not file or not Path(file).is_file():
        raise InputError(
            f"{yamls.file_of('vocab_file')}: vocab_file is {file!r} of {kind!r}, which is no tokenizer.json here; run "
            "this in the folder in which the training was started, or give the file: --tokenizer PATH"
        )
    return Path(file)


def _read_card(checkpoint: Checkpoint) -> tuple[RunCard | None, str]:
    """The run card and the triples that belong to it; None and "" where the checkpoint has none."""
    folder = checkpoint.folder
    if not (folder / CARD_NAME).is_file():
        return None, ""
    card = read_run_card(folder)
    if card.iteration not in (None, checkpoint.iteration):
        raise InputError(
            f"{folder / CARD_NAME}: is of iteration {card.iteration}, the weights of {checkpoint.iteration}; a run "
            "card must not be copied from another checkpoint"
        )
    try:
        return card, (folder / TRIPLES_NAME).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / TRIPLES_NAME}: cannot be read ({error}); the run card needs it") from None


def _build(checkpoint: Checkpoint, config: "LlamaConfig") -> "LlamaForCausalLM":
    """The model, filled tensor by tensor, so that memory never holds the weights twice."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    target = reduce(torch.promote_types, checkpoint.shards.dtypes())
    weights: dict[str, Tensor] = {}
    progress = Progress("exporting, tensors", len(list(model.parameters())))
    for name, weight in _llama_weights(checkpoint.shards, config):
        if not weight.isfinite().all():
            raise InputError(f"{checkpoint.folder}: {name} contains NaN or infinity: has the training diverged?")
        # A copy of its own: what DeepSpeed saves may be a view into one large buffer.
        weights[name] = weight.to(target, copy=True).contiguous()
        progress.update(len(weights))
    progress.close()
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    expected = ["lm_head.weight"] if config.tie_word_embeddings else []
    if unexpected or sorted(missing) not in ([], expected):
        names = [*missing, *unexpected]
        raise InputError(f"{checkpoint.folder}: the Llama of this transformers has other weights: {names} do not fit")
    model.tie_weights()
    return model


# The weights in Hugging Face's names and order.

# How far the copies of a norm may differ between tensor-parallel ranks, as a share of the largest weight.
_ROUNDING = 0.01


def _llama_weights(shards: Shards, config: "LlamaConfig") -> Iterator[tuple[str, "Tensor"]]:
    """Every parameter of the Hugging Face model once, by name; every tensor of the checkpoint is used once."""
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
