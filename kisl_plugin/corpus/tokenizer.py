"""Train a byte-level BPE tokenizer for GPT-NeoX's HFTokenizer."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import write_atomically
from kisl_plugin.huggingface import EOD_TOKEN, PADDING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SMALLEST = 256 + 2  # every byte, and the two special tokens


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> "Tokenizer":
    """Train on `texts` and write `path`, a tokenizer.json. A pure function of texts and size: same bytes every time.

    The vocabulary has `vocab_size` tokens, `<|endoftext|>` (id 0), `<|padding|>` (id 1) and the 256 bytes among them;
    fewer where the texts hold no more pairs to merge.

    Raises:
        InputError: the tokenizers library is missing, or `vocab_size` is below 258.
        KislError: `path` cannot be written.
    """
    if vocab_size < SMALLEST:
        raise InputError(
            f"{path}: a vocabulary of {vocab_size}; {SMALLEST} are needed for the bytes and special tokens"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with needs_extra("corpus", f"{path}: training a tokenizer"):
            tokenizer = _trained(texts, vocab_size)
        write_atomically(path, _as_older_releases_write_it(tokenizer))
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None
    return tokenizer


def _as_older_releases_write_it(tokenizer: "Tokenizer") -> str:
    """With merges as "a b": releases before 0.20, as GPT-NeoX pins one, read no other form; newer ones read both."""
    content = json.loads(tokenizer.to_str())
    merges = content["model"]["merges"]
    # No token of a byte-level vocabulary holds a space.
    content["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return json.dumps(content, indent=2, ensure_ascii=False)


def _trained(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOD_TOKEN, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
