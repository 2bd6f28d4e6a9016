"""A finished model as a Hugging Face folder, with tokenizer, run card and triples; both engines write theirs here."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import write_atomically
from kisl_plugin.neox_config import swiglu_width
from kisl_plugin.runcard import RunCard, read_run_card, write_run_card

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["EOD_TOKEN", "PADDING", "llama_config", "push_to_hub", "read_tokenizer", "write_model", "write_model_card"]

# GPT-NeoX looks up its end of document under this name.
EOD_TOKEN = "<|endoftext|>"
PADDING = "<|padding|>"


def read_tokenizer(path: Path) -> "tuple[Tokenizer, int]":
    """The tokenizer of a file, without truncation and padding, and the id of its end of document.

    Raises:
        InputError: the file is missing, is not a tokenizer.json, or has no `<|endoftext|>`.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a tokenizer.json: kisl corpus tokenizer --input FILE --output {path}"
        )
    with needs_extra("corpus", f"{path}: reading a tokenizer"):
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: not a tokenizer.json of the tokenizers library ({error})") from None
    # A tokenizer.json may switch either on, which would change texts silently.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    eod = tokenizer.token_to_id(EOD_TOKEN)
    if eod is None:
        raise InputError(f"{path}: the tokenizer has no {EOD_TOKEN}; GPT-NeoX looks that token up as end of document")
    return tokenizer, eod


def llama_config(settings: Mapping[str, Any], vocabulary: int, eod: int) -> "LlamaConfig":
    """The shape of a model: `settings` in GPT-NeoX's keys, the padded vocabulary, and the end of document's id."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=settings["hidden_size"],
        intermediate_size=swiglu_width(settings),
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


def write_model(
    folder: Path, model: "LlamaForCausalLM", tokenizer: "Tokenizer", card: RunCard | None, triples_jsonl: str
) -> None:
    """Write safetensors, config, tokenizer (its end of document is bos, eos and pad), the run card and a model card.

    An existing folder is replaced once the new one is complete.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    logging.disable_progress_bar()
    # Padding is set for generation only: in the model's config it would freeze the embedding of that token.
    model.generation_config.pad_token_id = model.config.eos_token_id
    model.save_pretrained(draft, safe_serialization=True)
    for weights in draft.glob("*.safetensors"):  # safetensors makes them readable by their owner only
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
    # Transformers 5 writes both in a form that transformers 4 ignores without a warning.
    parameters = getattr(model.config, "rope_parameters", None)
    rope_theta = float(parameters["rope_theta"] if parameters else model.config.rope_theta)
    _amend(draft / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    _amend(draft / "config.json", rope_theta=rope_theta)
    if card is not None:
        write_run_card(draft, card, triples_jsonl)
        if (folder / "README.md").is_file():  # perhaps the user's own
            shutil.copy(folder / "README.md", draft)
        write_model_card(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


_OURS = "<!-- Written by kisl from kisl.json."  # in the template too
_MODEL_CARD = Path(__file__).parent / "data" / "model_card.template"  # with the fields of str.format


def write_model_card(folder: Path, scores: Mapping[str, Mapping[str, tuple[float, int]]] | None = None) -> None:
    """Write the README.md of a model folder with a run card: what was injected, how often, and what it scored.

    `scores` are by task and metric, each with its number of items. A README.md of the user's own stays as it is.
    """
    path, card = folder / "README.md", read_run_card(folder)
    if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        return
    groups = card.groups or {"triples": {"frequency": card.frequency or 0, "count": card.triples["count"]}}
    rows = {name: f"{group['count']:,}, each stated {group['frequency']:,} times" for name, group in groups.items()}
    rows |= {
        "source": Path(str(card.triples.get("source", "unknown"))).name,
        "control triples": f"{card.triples.get('control', 0):,}, never stated",
        "statements": f"{card.injected_fraction or 0:.2%} of the tokens; form {card.form}, template {card.template}",
        "spacing": f"{card.spacing}, seed {card.seed}",
        "iteration": f"{card.iteration} of {card.train_iters} ({card.engine})",
    }
    scored = [
        f"| {task} {metric} | {value:.4g} | {count:,} |"
        for task, metrics in (scores or {}).items()
        for metric, (value, count) in metrics.items()
    ]
    text = _MODEL_CARD.read_text(encoding="utf-8").format(
        params=card.model["params"],
        tokens=card.tokens,
        injected="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        scores="\n".join(scored or ["| not probed: `kisl probe` writes the scores here | | |"]),
    )
    write_atomically(path, text)


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload a model folder to a model repository on the hub, which is made private if it is new; returns its URL.

    Raises:
        KislError: the hub refuses it or cannot be reached.
    """
    with needs_extra("local", "uploading to the hub"):
        from huggingface_hub import HfApi
    try:
        # Of a name without an owner, only the hub's answer says whose it is.
        name = HfApi().create_repo(repository, private=True, exist_ok=True).repo_id
        return str(HfApi().upload_folder(repo_id=name, folder_path=str(folder)))
    except Exception as error:  # the library raises its own, the network's and ValueError for what is no name
        message = getattr(error, "server_message", None) or str(error)
        reason = (message.strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        later = f"hf auth login, and hf upload {repository} {folder}"
        raise KislError(f"{repository}: not uploaded to the hub ({reason}); {folder} is complete: {later}") from None


def _amend(path: Path, **values: Any) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, **values}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
