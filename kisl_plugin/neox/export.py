"""`kisl export`: a checkpoint of GPT-NeoX as a Hugging Face Llama folder that gives the same logits."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.huggingface import read_tokenizer, write_model
from kisl_plugin.neox.checkpoint import Checkpoint, find_checkpoint, open_checkpoint
from kisl_plugin.neox.llama import llama_config, llama_weights
from kisl_plugin.neox_config import refuse_keys
from kisl_plugin.progress import Progress
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["Exported", "export_checkpoint"]

# What an export consists of, in this and earlier releases of transformers.
_FILES = (
    "config.json generation_config.json model*.safetensors model.safetensors.index.json tokenizer.json "
    f"tokenizer_config.json special_tokens_map.json {CARD_NAME} {TRIPLES_NAME}"
).split()


@dataclass(frozen=True)
class Exported:
    """What was written where. `card` is None where the checkpoint has none."""

    folder: Path
    checkpoint: Path
    iteration: int
    parameters: int
    dtype: str
    card: RunCard | None


def export_checkpoint(path: Path, out: Path, dtype: str | None = None, tokenizer: Path | None = None) -> Exported:
    """Write the model of a checkpoint to `out`. `dtype` None keeps the stored one; `tokenizer` replaces vocab_file.

    Raises:
        InputError: the checkpoint is incomplete or not a Llama, its tokenizer is not found, or `out` holds other files.
        KislError: `out` cannot be written.
    """
    folder = find_checkpoint(path)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a new folder")
    for content in sorted(out.iterdir()) if out.is_dir() else []:  # an earlier export may be replaced
        if content.is_dir() or not any(content.match(pattern) for pattern in _FILES):
            raise InputError(f"{out}: holds {content.name}, which is not part of an export; give a new folder")
    with needs_extra("local", "exporting a model"):
        import transformers  # noqa: F401
        from safetensors import SafetensorError

    checkpoint = open_checkpoint(folder)
    refuse_keys(checkpoint.yamls, "export")
    tokenizer_path = tokenizer or _vocab_file(checkpoint)
    loaded_tokenizer, eod = read_tokenizer(tokenizer_path)
    size, padded = loaded_tokenizer.get_vocab_size(), checkpoint.settings["padded_vocab_size"]
    multiple = checkpoint.settings["make_vocab_size_divisible_by"] * checkpoint.settings["model_parallel_size"]
    if multiple * -(-size // multiple) != padded:
        raise InputError(
            f"{tokenizer_path}: has {size:,} tokens, which do not pad to the model's {padded:,}; give the tokenizer of "
            "the training: --tokenizer PATH"
        )

    card, triples = _read_card(checkpoint)
    model = _build(checkpoint, llama_config(checkpoint, eod), dtype)
    if card is not None and card.model["params"] != model.num_parameters():
        raise InputError(
            f"{folder / CARD_NAME}: model.params is {card.model['params']:,}, the weights are "
            f"{model.num_parameters():,}; this is the card of another model"
        )
    try:
        write_model(out, model, loaded_tokenizer, card, triples)
    except (OSError, SafetensorError) as error:
        raise KislError(f"{out}: cannot be written ({error})") from None
    dtype_name = str(model.dtype).removeprefix("torch.")
    return Exported(out, folder, checkpoint.iteration, model.num_parameters(), dtype_name, card)


def _vocab_file(checkpoint: Checkpoint) -> Path:
    """The YAML's tokenizer; a relative path starts at the folder in which the training was started."""
    yamls = checkpoint.yamls
    kind, file = yamls.values.get("tokenizer_type", "GPT2BPETokenizer"), yamls.values.get("vocab_file")
    if str(kind).lower() != "hftokenizer" or not file:
        raise InputError(
            f"{yamls.file_of('tokenizer_type')}: tokenizer_type is {kind!r}, which has no tokenizer.json; give the "
            "same tokenizer as one: --tokenizer PATH"
        )
    if not Path(file).is_file():
        raise InputError(
            f"{yamls.file_of('vocab_file')}: vocab_file is {file!r}, which is not there; run this in the folder in "
            "which the training was started, or give the file: --tokenizer PATH"
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


def _build(checkpoint: Checkpoint, config: "LlamaConfig", dtype: str | None) -> "LlamaForCausalLM":
    """The model, filled tensor by tensor, so that memory never holds the weights twice."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    target = getattr(torch, dtype) if dtype else reduce(torch.promote_types, checkpoint.shards.dtypes())
    weights: dict[str, torch.Tensor] = {}
    progress = Progress("exporting, tensors", len(list(model.parameters())))
    for name, weight in llama_weights(checkpoint.shards, config):
        where = f"{checkpoint.folder}: {name}"
        if not weight.isfinite().all():
            raise InputError(f"{where} contains NaN or infinity: the training diverged; use an earlier checkpoint")
        # A copy of its own: what DeepSpeed saves may be a view into one large buffer.
        weights[name] = weight.to(target, copy=True).contiguous()
        if not weights[name].isfinite().all():
            largest = float(weight.abs().max())
            raise InputError(f"{where} reaches {largest:.3g}, too large for {target}; use --dtype bfloat16 or float32")
        progress.update(len(weights))
    progress.close()
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    expected = ["lm_head.weight"] if config.tie_word_embeddings else []
    if unexpected or sorted(missing) not in ([], expected):
        names = [*missing, *unexpected]
        raise InputError(f"{checkpoint.folder}: the Llama of this transformers has other weights: {names} do not fit")
    model.tie_weights()
    return model
