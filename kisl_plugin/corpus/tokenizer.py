"""Training a byte-level BPE tokenizer for GPT-NeoX's HFTokenizer."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.corpus.inputs import MEGABYTE, Piece, read_piece
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import write_atomically
from kisl_plugin.huggingface import EOD_TOKEN, PADDING
from kisl_plugin.progress import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["sample_texts", "train_tokenizer"]

_SMALLEST_VOCABULARY = 256 + 2  # every byte, and the two special tokens


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> "Tokenizer":
    """Train on `texts` and write `path`, a tokenizer.json. The same texts and size give the same bytes.

    The vocabulary has `vocab_size` tokens, among them `<|endoftext|>` (id 0), `<|padding|>` (id 1) and the 256 bytes;
    fewer where the texts contain no more pairs to merge.

    Raises:
        InputError: the tokenizers library is missing, or `vocab_size` is below 258.
        KislError: `path` cannot be written.
    """
    if vocab_size < _SMALLEST_VOCABULARY:
        raise InputError(
            f"{path}: vocabulary size {vocab_size}; must be at least {_SMALLEST_VOCABULARY}, for 256 bytes and two "
            "special tokens"
        )
    with needs_extra("corpus", "training a tokenizer"):
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

    # Merges are written as "a b": tokenizers before 0.20, which GPT-NeoX pins, reads no other form; newer ones read
    # both. No token of a byte-level vocabulary contains a space.
    content = json.loads(tokenizer.to_str())
    merges = content["model"]["merges"]
    content["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False))
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None
    return tokenizer


def sample_texts(pieces: Sequence[Piece], sample: int) -> Iterator[str]:
    """The texts of about `sample` bytes of `pieces`, with progress in megabytes.

    Every piece gives its first documents, in proportion to its size; all of them where the pieces are not larger.

    Raises:
        InputError, KislError: as read_piece.
    """
    whole = sum(piece.size for piece in pieces)
    documents = size = passed = 0
    with closing(Progress("training the tokenizer, MB", max(1, min(sample, whole) // MEGABYTE))) as progress:
        for piece in pieces:
            passed += piece.size
            for document in read_piece(piece):
                # A long document, perhaps of the piece before, has reached the share of all pieces until here.
                if sample < whole and size * whole >= sample * passed:
                    break
                documents, size = documents + 1, size + document.size
                # The last update is always written, and there must be only one.
                progress.update(min(size // MEGABYTE, progress.total - 1), f"{documents:,} documents")
                yield document.text
        progress.update(progress.total, f"{documents:,} documents")
