"""Texts → documents of tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kisl_plugin.indexed import IndexedWriter

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def write_documents(texts: Sequence[str], tokenizer: "Tokenizer", eod: int, writer: IndexedWriter) -> int:
    """Append the texts, encoded without special tokens, each with its end of document; the number of tokens."""
    tokens = 0
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        ids = [*encoding.ids, eod]
        writer.add(ids)
        tokens += len(ids)
    return tokens
