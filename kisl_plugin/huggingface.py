"""A finished model as a Hugging Face folder, with tokenizer, run card and triples; both engines write theirs here."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin.errors import InputError
from kisl_plugin.runcard import RunCard, write_run_card

# The tokenizer that data, training and export share: a tokenizer.json with GPT-NeoX's end of document.

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOD_TOKEN = "<|endoftext|>"
PADDING = "<|padding|>"


def read_tokenizer(path: Path) -> "tuple[Tokenizer, int]":
    """The tokenizer of a file, which neither cuts a text nor fills it up, and the id of its end of document.

    Raises:
        InputError: the file is missing, is no tokenizer.json, or has no `<|endoftext|>`.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a tokenizer.json: kisl corpus tokenizer --input FILE --output {path}"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise missing_library(path) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: not a tokenizer.json of the tokenizers library ({error})") from None
    # A file may ask for either; a text would be cut or filled up, and nobody would know.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    eod = tokenizer.token_to_id(EOD_TOKEN)
    if eod is None:
        raise InputError(f"{path}: the tokenizer has no {EOD_TOKEN}; GPT-NeoX looks that token up as end of document")
    return tokenizer, eod


def missing_library(path: Path) -> InputError:
    """The error where the tokenizers library is not installed."""
    return InputError(f"{path}: the tokenizers library is missing; pip install 'kisl-plugin[corpus]'")


# A finished model as a Hugging Face folder, with tokenizer, run card and triples; both engines write theirs here.

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM


def write_model(
    folder: Path, model: "LlamaForCausalLM", tokenizer: "Tokenizer", card: RunCard | None, triples_jsonl: str
) -> None:
    """Write safetensors, config, tokenizer (its end of document is bos, eos and pad) and, last, the run card.

    A folder of that name is replaced, once the new one is whole.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    logging.disable_progress_bar()
    # In the model's own config it would freeze that token's embedding: there it is the end of document as well.
    model.generation_config.pad_token_id = model.config.eos_token_id
    model.save_pretrained(draft, safe_serialization=True)
    for weights in draft.glob("*.safetensors"):  # safetensors lets nobody but the owner read them
        shutil.copymode(draft / "config.json", weights)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOD_TOKEN,
        eos_token=EOD_TOKEN,
        pad_token=EOD_TOKEN,
        # Transformers 4 would add token_type_ids, which a Llama does not take.
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=model.config.max_position_embeddings,
    )
    wrapped.save_pretrained(draft)
    # Transformers 5 writes both in a way that transformers 4 passes over in silence.
    _amend(draft / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    _amend(draft / "config.json", rope_theta=_rope_theta(model.config))
    if card is not None:
        write_run_card(draft, card, triples_jsonl)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _amend(path: Path, **values: Any) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, **values}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rope_theta(config: "LlamaConfig") -> float:
    parameters = getattr(config, "rope_parameters", None)
    return float(parameters["rope_theta"] if parameters else config.rope_theta)
