"""`kisl export`: a checkpoint of GPT-NeoX as a Hugging Face Llama folder that gives the same logits."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.huggingface import read_tokenizer, write_model
from kisl_plugin.neox.checkpoint import Checkpoint, find_checkpoint, open_checkpoint
from kisl_plugin.neox.llama import llama_config, llama_weights
from kisl_plugin.neox_config import refuse_keys
from kisl_plugin.progress import Progress
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

# What an export consists of, in this and earlier releases of transformers.
_EXPORTED = (
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
        InputError: the checkpoint is incomplete or not a Llama, its tokenizer is not found, or `out` is taken.
        KislError: `out` cannot be written.
    """
    folder = find_checkpoint(path)
    _refuse_taken(out)
    _need_libraries()
    opened = open_checkpoint(folder)
    refuse_keys(opened.yamls, "export")
    words, eod = _tokenizer(opened, tokenizer)
    card, triples = _read_card(opened)
    model = _build(opened, llama_config(opened, eod), dtype)
    _check_card(card, model.num_parameters(), folder)
    _write(out, model, words, card, triples)
    name = str(model.dtype).removeprefix("torch.")
    return Exported(out, folder, opened.iteration, model.num_parameters(), name, card)


def _write(
    out: Path, model: "LlamaForCausalLM", tokenizer: "Tokenizer", card: RunCard | None, triples_jsonl: str
) -> None:
    from safetensors import SafetensorError

    try:
        write_model(out, model, tokenizer, card, triples_jsonl)
    except (OSError, SafetensorError) as error:
        raise KislError(f"{out}: cannot be written ({error})") from None


def _build(opened: Checkpoint, config: "LlamaConfig", dtype: str | None) -> "LlamaForCausalLM":
    """The model, filled tensor by tensor, so that memory never holds the weights twice."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    wanted = getattr(torch, dtype) if dtype else reduce(torch.promote_types, opened.shards.dtypes())
    weights: dict[str, torch.Tensor] = {}
    progress = Progress("exporting, tensors", len(list(model.parameters())))
    for name, weight in llama_weights(opened.shards, config):
        weights[name] = _cast(weight, wanted, f"{opened.folder}: {name}")
        progress.update(len(weights))
    progress.close()
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    expected = ["lm_head.weight"] if config.tie_word_embeddings else []
    if unexpected or sorted(missing) not in ([], expected):
        raise InputError(f"{opened.folder}: this transformers' Llama differs: {[*missing, *unexpected]} do not fit")
    model.tie_weights()
    return model


def _cast(tensor: "torch.Tensor", dtype: "torch.dtype", what: str) -> "torch.Tensor":
    """A copy of its own: what DeepSpeed saves may be a view into one large buffer."""
    if not tensor.isfinite().all():
        raise InputError(f"{what} holds values that are not finite: the training diverged; take an earlier checkpoint")
    cast = tensor.to(dtype, copy=True).contiguous()
    if not cast.isfinite().all():
        largest = float(tensor.abs().max())
        raise InputError(
            f"{what} reaches {largest:.3g}, too large for {dtype}; export with --dtype bfloat16 or float32"
        )
    return cast


def _tokenizer(opened: Checkpoint, replacement: Path | None) -> "tuple[Tokenizer, int]":
    path = replacement or _vocab_file(opened)
    tokenizer, eod = read_tokenizer(path)
    size, padded = tokenizer.get_vocab_size(), opened.settings["padded_vocab_size"]
    multiple = opened.settings["make_vocab_size_divisible_by"] * opened.settings["model_parallel_size"]
    if multiple * -(-size // multiple) != padded:
        raise InputError(
            f"{path}: has {size:,} tokens, which do not pad to the model's {padded:,}; give the tokenizer of the "
            "training: --tokenizer PATH"
        )
    return tokenizer, eod


def _vocab_file(opened: Checkpoint) -> Path:
    """The YAML's tokenizer; a relative path began at the folder in which the training was started."""
    yamls = opened.yamls
    kind, file = yamls.values.get("tokenizer_type", "GPT2BPETokenizer"), yamls.values.get("vocab_file")
    if str(kind).lower() != "hftokenizer" or not file:
        raise InputError(
            f"{yamls.file_of('tokenizer_type')}: tokenizer_type is {kind!r}, which is no tokenizer.json; give the same "
            "tokenizer as one: --tokenizer PATH"
        )
    if not Path(file).is_file():
        raise InputError(
            f"{yamls.file_of('vocab_file')}: vocab_file is {file!r}, which is not there; run this in the folder in "
            "which the training was started, or give the file: --tokenizer PATH"
        )
    return Path(file)


def _read_card(opened: Checkpoint) -> tuple[RunCard | None, str]:
    folder = opened.folder
    if not (folder / CARD_NAME).is_file():
        return None, ""
    card = read_run_card(folder)
    if card.iteration not in (None, opened.iteration):
        raise InputError(
            f"{folder / CARD_NAME}: is of iteration {card.iteration}, the weights of {opened.iteration}; a run card "
            "must not be copied from another checkpoint"
        )
    try:
        return card, (folder / TRIPLES_NAME).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / TRIPLES_NAME}: cannot be read ({error}); the card beside it needs it") from None


def _check_card(card: RunCard | None, parameters: int, folder: Path) -> None:
    if card is not None and card.model["params"] != parameters:
        raise InputError(
            f"{folder / CARD_NAME}: model.params is {card.model['params']:,}, the weights are {parameters:,}; this is "
            "the card of another model"
        )


def _refuse_taken(out: Path) -> None:
    """An earlier export may be replaced; anything else stays."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a new folder")
    for found in sorted(out.iterdir()) if out.is_dir() else []:
        if found.is_dir() or not any(found.match(pattern) for pattern in _EXPORTED):
            raise InputError(f"{out}: holds {found.name}, which is no part of an export; give the name of a new folder")


def _need_libraries() -> None:
    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}; install what the export needs: pip install 'kisl-plugin[local]'") from None
