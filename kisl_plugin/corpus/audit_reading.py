"""Tokenised corpora as texts again: which documents are looked at, and what they say."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.corpus.audit_counting import DocumentCounter, Part
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.roles import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS, BATCH_DOCUMENTS = 1 << 18, 1000
LONG_TOKENS = 1 << 20
CARRIED_CHARACTERS = 10_000
_CHARACTER_BYTES = 4


@dataclass(frozen=True)
class Share:
    """The documents that a task looks at: of `total` documents `looked`, spread evenly; of these its own run."""

    total: int
    looked: int
    task: int
    tasks: int

    def documents(self) -> IntArray:
        """Their numbers, ascending."""
        begin, end = (self.looked * t // self.tasks for t in (self.task, self.task + 1))
        return (2 * np.arange(begin, end, dtype=np.int64) + 1) * self.total // (2 * self.looked)


class Corpora:
    """Several corpora one after the other, in one tokenizer's tokens."""

    def __init__(self, prefixes: Sequence[Path], tokenizer: "Tokenizer", eod: int) -> None:
        self._prefixes, self._tokenizer, self._eod = prefixes, tokenizer, eod
        self._corpora = [IndexedDataset(prefix) for prefix in prefixes]
        self._ends = np.cumsum([len(corpus) for corpus in self._corpora])
        self._vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def tokens(self) -> int:
        """Tokens in all, ends of documents included."""
        return sum(int(corpus.sizes.sum(dtype=np.int64)) for corpus in self._corpora)

    def count_into(self, counter: DocumentCounter, numbers: IntArray) -> int:
        """Have the documents of these numbers counted; returns how many tokens they have.

        What stands between two end-of-document tokens is a document, wherever the .idx file ends one.

        Raises:
            InputError: a token is none of the tokenizer's.
        """
        tokens = 0
        pieces: list[NDArray[Any]] = []
        held = 0
        for piece, size in self._pieces(numbers):
            tokens += size
            if len(piece) > LONG_TOKENS:
                counter.add_long(parts_of(piece, self._decode))
            elif len(piece):
                pieces.append(piece)
                held += len(piece)
            if held >= BATCH_TOKENS or len(pieces) == BATCH_DOCUMENTS:
                counter.add(self._texts(pieces))
                pieces, held = [], 0
        if pieces:
            counter.add(self._texts(pieces))
        return tokens

    def _pieces(self, numbers: IntArray) -> Iterator[tuple[NDArray[Any], int]]:
        """What stands between ends of documents, and how many tokens it has with its own end."""
        where = np.searchsorted(self._ends, numbers, side="right")
        for at, run in groupby(zip(where.tolist(), numbers.tolist(), strict=True), key=lambda pair: pair[0]):
            corpus, first = self._corpora[at], int(self._ends[at]) - len(self._corpora[at])
            for _, number in run:
                tokens = corpus.get(number - first)
                self._check(tokens, at, number - first)
                begin = 0
                for end in np.flatnonzero(tokens == self._eod).tolist():
                    yield tokens[begin:end], end + 1 - begin
                    begin = end + 1
                yield tokens[begin:], len(tokens) - begin

    def _check(self, tokens: NDArray[Any], at: int, document: int) -> None:
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._vocab_size:
            raise InputError(
                f"{self._prefixes[at]}.bin: document {document} holds the token {int(tokens.max())}; the tokenizer has "
                f"0 … {self._vocab_size - 1}: pass the --tokenizer that the corpus was made with"
            )

    def _texts(self, pieces: Sequence[NDArray[Any]]) -> list[str]:
        return list(self._tokenizer.decode_batch([p.tolist() for p in pieces], skip_special_tokens=False))

    def _decode(self, tokens: NDArray[Any]) -> str:
        return self._texts([tokens])[0]


def parts_of(tokens: NDArray[Any], decode: Callable[[NDArray[Any]], str]) -> Iterator[Part]:
    """A long document in parts that end between words; each begins with the last words of the one before."""
    carried, rest, begin = "", "", 0
    while begin < len(tokens):
        end, fresh = _next_characters(tokens, begin, decode)
        text = carried + rest + fresh
        cut = len(text) if end == len(tokens) else _between_words(text, len(carried))
        if cut > len(carried):
            yield Part(text[:cut], len(carried))
            carried = _last_words(text[:cut])
        rest, begin = text[cut:], end


def _next_characters(tokens: NDArray[Any], begin: int, decode: Callable[[NDArray[Any]], str]) -> tuple[int, str]:
    """Where the next LONG_TOKENS or a few less end with a whole character, and their text."""
    most = min(begin + LONG_TOKENS, len(tokens))
    for end in range(most, max(begin, most - _CHARACTER_BYTES), -1):
        text = decode(tokens[begin:end])
        if end == len(tokens) or not text.endswith("\ufffd"):
            return end, text
    return most, decode(tokens[begin:most])


def _between_words(text: str, carried: int) -> int:
    """Where the last word begins; not in the carried text, and text that has no spaces is cut anywhere."""
    cut = max(text.rfind(" ", carried), text.rfind("\n", carried)) + 1
    return cut or (carried if len(text) - carried <= CARRIED_CHARACTERS else len(text))


def _last_words(text: str) -> str:
    tail = text[-CARRIED_CHARACTERS:]
    return tail if len(tail) == len(text) else tail[tail.find(" ") + 1 :]
