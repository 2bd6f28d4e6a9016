"""GPT-NeoX's cached index maps, checked against the corpus that they are used with.

The cache's file name holds the number of samples, seq_length, seed and packing; not the split, and not the corpus. A
map that was made for another split, or before the corpus changed, is reused without a word.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError

BLOCK = 4_000_000
IntArray = NDArray[np.integer[Any]]


@contextmanager
def checked_maps() -> Iterator[None]:
    """Within it, GPT-NeoX refuses an index map that does not belong to the documents it is asked for.

    Raises:
        InputError: names the files, and what differs.
    """
    from megatron.data import gpt2_dataset

    build = gpt2_dataset._build_index_mappings
    gpt2_dataset._build_index_mappings = _checked(build)
    try:
        yield
    finally:
        gpt2_dataset._build_index_mappings = build


def _checked(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_index_mappings(
        name: str, data_prefix: str, documents: IntArray, sizes: IntArray, *rest: Any, **named: Any
    ) -> Any:
        maps = build(name, data_prefix, documents, sizes, *rest, **named)
        # Every process of a node reads the same files.
        if int(os.environ.get("LOCAL_RANK", "0")):
            return maps
        _, samples, epochs, seq_length, seed, packing = rest[:6]
        allow_chopped = named.get("allow_chopped", True)
        wrong = (
            _wrong_in_packed(*maps, documents, sizes, samples, epochs, seq_length, seed)
            if packing == "packed"
            else _wrong_in_overflowing(*maps, documents, sizes, samples, seq_length, seed, allow_chopped)
        )
        if wrong:
            raise InputError(
                f"{data_prefix}_{name}_indexmap_{samples}ns_{seq_length}sl_{seed}s_{packing}pi*.npy: a cached index "
                f"map of another corpus or split ({wrong}); GPT-NeoX would use it for this one: delete these files"
            )
        return maps

    return build_index_mappings


def _wrong_in_packed(
    doc_idx: IntArray,
    sample_idx: IntArray,
    shuffle_idx: IntArray,
    documents: IntArray,
    sizes: IntArray,
    samples: int | None,
    epochs: int | None,
    seq_length: int,
    seed: int,
) -> str | None:
    tokens = int(sizes[documents].sum(dtype=np.int64))
    epochs = epochs or _epochs(tokens, seq_length, samples or 0)
    if len(doc_idx) != epochs * len(documents):
        return f"it has {len(doc_idx)} documents, the split {epochs} × {len(documents)}"
    expected = np.tile(np.asarray(documents, dtype=doc_idx.dtype), epochs)
    np.random.RandomState(seed).shuffle(expected)
    if not np.array_equal(doc_idx, expected):
        return "its documents are in another order than the seed gives"
    rows = (epochs * tokens - 1) // seq_length
    if len(sample_idx) != rows + 1 or len(shuffle_idx) != rows:
        return f"it has {len(shuffle_idx)} rows, the corpus {rows}"
    return _wrong_cut(doc_idx, sample_idx, sizes, seq_length)


def _wrong_cut(doc_idx: IntArray, sample_idx: IntArray, sizes: IntArray, seq_length: int) -> str | None:
    """Row i must begin i × seq_length tokens after the first."""
    total, document = 0, 0
    for first in range(0, len(sample_idx), BLOCK):
        cuts = np.asarray(sample_idx[first : first + BLOCK], dtype=np.int64)
        last = int(cuts[-1, 0])
        lengths = sizes[doc_idx[document:last]].astype(np.int64)
        before = total + np.concatenate([[0], np.cumsum(lengths)])
        begins = before[cuts[:, 0] - document] + cuts[:, 1]
        wrong = np.flatnonzero(begins != (first + np.arange(len(cuts))) * seq_length)
        if len(wrong):
            return f"row {first + int(wrong[0])} begins elsewhere: the documents have other lengths"
        total, document = int(before[-1]), last
    return None


def _epochs(tokens: int, seq_length: int, samples: int) -> int:
    """GPT-NeoX's `_num_epochs`: the fewest with (epochs × tokens - 1) // seq_length >= samples."""
    return max(1, -(-(samples * seq_length + 1) // tokens))


def _wrong_in_overflowing(
    doc_idx: IntArray,
    sample_idx: IntArray,
    shuffle_idx: IntArray,
    documents: IntArray,
    sizes: IntArray,
    samples: int,
    seq_length: int,
    seed: int,
    allow_chopped: bool,
) -> str | None:
    rng = np.random.RandomState(seed)
    rng.shuffle(np.arange(samples))
    order = np.arange(len(documents))
    rng.shuffle(order)
    if not allow_chopped:
        order = order[sizes[order] <= seq_length + 1]
    shared = min(len(order), len(doc_idx))
    if not np.array_equal(doc_idx[:shared], order[:shared]):
        return "its documents are in another order than the seed gives"
    if len(shuffle_idx) != samples or len(sample_idx) != samples + 1:
        return f"it has {len(shuffle_idx)} rows, the run {samples}"
    return _wrong_packing(doc_idx, np.asarray(sample_idx)[:, 0], sizes, seq_length)


def _wrong_packing(doc_idx: IntArray, firsts: IntArray, sizes: IntArray, seq_length: int) -> str | None:
    """A row holds as many whole documents as fit, one at least."""
    lengths = sizes[doc_idx].astype(np.int64)
    before = np.concatenate([[0], np.cumsum(lengths)])
    held = np.diff(before[firsts])
    several = np.diff(firsts) > 1
    too_long = several & (held > seq_length + 1)
    next_fits = held[:-1] + lengths[firsts[1:-1]] <= seq_length + 1
    wrong = np.flatnonzero(too_long | np.append(next_fits, False))
    return f"row {int(wrong[0])} is packed otherwise: the documents have other lengths" if len(wrong) else None
