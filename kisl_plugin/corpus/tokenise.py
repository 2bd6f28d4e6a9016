"""Batches of documents that memory holds, and texts → documents of tokens."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from kisl_plugin.indexed import IndexedWriter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_CHARACTERS = 4_000_000


class HoldsText(Protocol):
    """A document of any kind."""

    @property
    def text(self) -> str:
        """Its text."""


D = TypeVar("D", bound=HoldsText)


def batches(documents: Iterable[D], most: int) -> Iterator[list[D]]:
    """Runs of at most `most` documents, and of few where they are long."""
    batch: list[D] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document.text)
        if len(batch) >= most or held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def write_documents(texts: Sequence[str], tokenizer: "Tokenizer", eod: int, writer: IndexedWriter) -> int:
    """Append the texts, encoded without special tokens, each with its end of document; the number of tokens."""
    tokens = 0
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        ids = [*encoding.ids, eod]
        writer.add(ids)
        tokens += len(ids)
    return tokens
