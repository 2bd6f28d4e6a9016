"""Training a byte-level BPE tokenizer for GPT-NeoX's HFTokenizer, and encoding large amounts of text with one."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.corpus.inputs import MEGABYTE, Piece, read_piece
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import write_atomically
from kisl_plugin.hookspecs import IntArray
from kisl_plugin.huggingface import EOD_TOKEN, PADDING, read_tokenizer
from kisl_plugin.progress import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["BatchDecoder", "BatchEncoder", "check_keeps_text", "sample_texts", "train_tokenizer"]

_SMALLEST_VOCABULARY = 256 + 2  # every byte, and the two special tokens
_CHECKED_EVERY, _CHECKED_TEXTS = 16, 16  # batches that are encoded, and texts that are decoded by both libraries
# The bytes for which characters stand in the tokens of a byte-level tokenizer: those of Latin-1 that can be printed for
# themselves, the other bytes have the characters from 256 on.
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTE_OF = {chr(byte): byte for byte in _PRINTED} | {
    chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in _PRINTED)
}


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


def sample_texts(
    pieces: Sequence[Piece], sample: int, note_bad: Callable[[InputError], object] | None = None
) -> Iterator[str]:
    """The texts of about `sample` bytes of `pieces`, with progress in megabytes.

    Every piece gives its first documents, in proportion to its size; all of them where the pieces are not larger.
    Those that cannot be read are left out where `note_bad` takes their errors.

    Raises:
        InputError, KislError: as read_piece.
    """
    whole = sum(piece.size for piece in pieces)
    documents = size = passed = 0
    with closing(Progress("training the tokenizer, MB", max(1, min(sample, whole) // MEGABYTE))) as progress:
        for piece in pieces:
            passed += piece.size
            for document in read_piece(piece, note_bad):
                # A long document, perhaps of the piece before, has reached the share of all pieces until here.
                if sample < whole and size * whole >= sample * passed:
                    break
                documents, size = documents + 1, size + document.size
                # The last update is always written, and there must be only one.
                progress.update(min(size // MEGABYTE, progress.total - 1), f"{documents:,} documents")
                yield document.text
        progress.update(progress.total, f"{documents:,} documents")


def check_keeps_text(tokenizer: "Tokenizer", path: Path) -> None:
    """Check that a tokenizer always encodes a text in the same way, and all of it.

    Raises:
        InputError: it has BPE dropout; or it has no token for some byte, so that characters would be lost.
    """
    from tokenizers import pre_tokenizers

    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if model.get("dropout"):
        raise InputError(f"{path}: BPE dropout {model['dropout']}: ids would be random; set dropout to null")
    needed = set[str]()
    if '"ByteLevel"' in json.dumps([content["pre_tokenizer"], content["normalizer"]]):
        needed = set(pre_tokenizers.ByteLevel.alphabet())
    elif model.get("byte_fallback"):
        needed = {f"<0x{byte:02X}>" for byte in range(256)}
    missing = len(needed - tokenizer.get_vocab().keys())
    if missing or not needed:
        reason = f"{missing} of the 256 bytes have no token" if needed else "it has neither ByteLevel nor byte_fallback"
        raise InputError(
            f"{path}: loses characters: {reason}; a tokenizer that keeps all: kisl corpus tokenizer --output FILE"
        )


class BatchEncoder:
    """Encodes batches of texts as the tokenizers library does: with fastokens where that takes the tokenizer.

    fastokens is some fifty times as fast. `reason`: why it is not used; empty if it is. `eod` is the id of
    <|endoftext|>; where a text contains that name, or another special token's, it is encoded as text.

    Raises:
        InputError: as read_tokenizer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokenizer, self.eod = read_tokenizer(path)
        self._tokenizer.encode_special_tokens = True
        self.reason = ""
        try:
            from fastokens import Tokenizer

            self._fast: Any = Tokenizer.from_json_str(self._tokenizer.to_str())
        except ImportError:
            self.reason = "fastokens is not installed"
        except ValueError as error:
            self.reason = f"fastokens does not take it ({' '.join(str(error).split())})"

    def encode(self, texts: Sequence[str], number: int = 0) -> tuple[NDArray[np.uint32], IntArray]:
        """The ids of all texts, uint32 [tokens], and where each text's end, int64 [texts].

        `number` is the batch's: all texts of batch 0, and one of every 16th, are encoded by both libraries.

        Raises:
            InputError: a text contains the end of document, or the two libraries do not agree.
        """
        if self.reason:
            ids, ends = self._by_tokenizers(texts)
        else:
            flat, offsets = self._fast.encode_batch_flat(texts, split_special_tokens=True)
            ids, ends = np.frombuffer(flat, dtype="<u4"), np.frombuffer(offsets, dtype="<u8")[1:].astype(np.int64)
            if number % _CHECKED_EVERY == 0 and texts:
                count = 1 if number else len(texts)
                if not np.array_equal(ids[: ends[count - 1]], self._by_tokenizers(texts[:count])[0]):
                    raise InputError(
                        f"{self._path}: fastokens gives other ids than the tokenizers library; pip uninstall fastokens "
                        "to go on without it, and please report it with the versions of both"
                    )
        if (ids == self.eod).any():
            raise InputError(
                f"{self._path}: {EOD_TOKEN} in a text would end a document there; give its entry in added_tokens "
                '"special": true, so that it is encoded as text'
            )
        return ids, ends

    def _by_tokenizers(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], IntArray]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ends = np.cumsum([len(encoding) for encoding in encodings], dtype=np.int64)
        return np.fromiter(chain.from_iterable(one.ids for one in encodings), dtype=np.uint32), ends


class BatchDecoder:
    """Decodes batches of texts as the tokenizers library does; byte-level tokenizers by a table of their tokens' bytes.

    `eod` is the id of <|endoftext|>, `vocab_size` the largest id plus one.

    Raises:
        InputError: as read_tokenizer, or pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        with needs_extra("corpus", "decoding tokens"):
            import pyarrow
        self._tokenizer, self.eod = read_tokenizer(path)
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        decoder = json.loads(self._tokenizer.to_str())["decoder"] or {}
        self._table: Any = None
        self._array = pyarrow.array
        if decoder.get("type") == "ByteLevel":
            table = [b""] * self.vocab_size
            for token, number in vocabulary.items():
                if all(char in _BYTE_OF for char in token):
                    table[number] = bytes(_BYTE_OF[char] for char in token)
                else:  # an added token, which stands for itself
                    table[number] = token.encode()
            self._table = pyarrow.array(table, pyarrow.large_binary())

    def decode(self, tokens: NDArray[Any], begins: IntArray, ends: IntArray, check: bool = False) -> list[str]:
        """The texts of tokens begins[i] … ends[i] - 1, special tokens among them by name.

        With `check` some are decoded by the library too; where they differ, it decodes all texts from then on.
        """
        if self._table is not None:
            decoded = self._table.take(self._array(tokens))
            _, offsets, data = decoded.buffers()
            places, view = np.frombuffer(offsets, dtype=np.int64), memoryview(data or b"")
            pairs = zip(places[begins].tolist(), places[ends].tolist(), strict=True)
            texts = [str(view[begin:end], "utf-8", "replace") for begin, end in pairs]
            few = _CHECKED_TEXTS if check else 0
            if texts[:few] == self._by_tokenizers(tokens, begins[:few], ends[:few]):
                return texts
            self._table = None
        return self._by_tokenizers(tokens, begins, ends)

    def _by_tokenizers(self, tokens: NDArray[Any], begins: IntArray, ends: IntArray) -> list[str]:
        batch = [tokens[begin:end].tolist() for begin, end in zip(begins, ends, strict=True)]
        texts: list[str] = self._tokenizer.decode_batch(batch, skip_special_tokens=False)
        return texts
