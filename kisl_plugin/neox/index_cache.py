"""The files that a training run reads: which are not there yet, and the one command that makes each."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import Yamls

# GPT-NeoX's cached index maps, checked against the corpus that they are used with.
#
# The cache's file name holds the number of samples, seq_length, seed and packing; not the split, and not the corpus. A
# map that was made for another split, or before the corpus changed, is reused without a word.

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


@dataclass(frozen=True)
class Asked:
    """What rows are wanted of which documents: the arguments of GPT-NeoX's `_build_index_mappings`."""

    documents: IntArray
    sizes: IntArray
    samples: int
    epochs: int | None
    seq_length: int
    seed: int
    packing: str
    allow_chopped: bool


@dataclass(frozen=True)
class Maps:
    """GPT-NeoX's three arrays: the order of documents, where rows begin in it [n, 2], and the order of rows."""

    doc_idx: IntArray
    sample_idx: IntArray
    shuffle_idx: IntArray


def _checked(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_index_mappings(
        name: str, data_prefix: str, documents: IntArray, sizes: IntArray, *rest: Any, **named: Any
    ) -> Any:
        maps = build(name, data_prefix, documents, sizes, *rest, **named)
        # Every process of a node reads the same files.
        if int(os.environ.get("LOCAL_RANK", "0")):
            return maps
        _, samples, epochs, seq_length, seed, packing = rest
        chopped = named.get("allow_chopped", True)
        asked = Asked(documents, sizes, samples, epochs, seq_length, seed, packing, chopped)
        wrong = what_is_wrong(Maps(*maps), asked)
        if wrong:
            raise InputError(
                f"{data_prefix}_{name}_indexmap_{asked.samples}ns_{asked.seq_length}sl_{asked.seed}s_"
                f"{asked.packing}pi*.npy: a cached index map of another corpus or split ({wrong}); GPT-NeoX would use "
                "it for this one: delete these files"
            )
        return maps

    return build_index_mappings


def what_is_wrong(maps: Maps, asked: Asked) -> str | None:
    """How the maps differ from those that GPT-NeoX would make anew, in a few words; None where they do not."""
    return _wrong_in_packed(maps, asked) if asked.packing == "packed" else _wrong_in_overflowing(maps, asked)


def _wrong_in_packed(maps: Maps, asked: Asked) -> str | None:
    tokens = int(asked.sizes[asked.documents].sum(dtype=np.int64))
    epochs = asked.epochs or _epochs(tokens, asked.seq_length, asked.samples)
    if len(maps.doc_idx) != epochs * len(asked.documents):
        return f"it has {len(maps.doc_idx)} documents, the split {epochs} × {len(asked.documents)}"
    expected = np.tile(np.asarray(asked.documents, dtype=maps.doc_idx.dtype), epochs)
    np.random.RandomState(asked.seed).shuffle(expected)
    if not np.array_equal(maps.doc_idx, expected):
        return "its documents are in another order than the seed gives"
    rows = (epochs * tokens - 1) // asked.seq_length
    if len(maps.sample_idx) != rows + 1 or len(maps.shuffle_idx) != rows:
        return f"it has {len(maps.shuffle_idx)} rows, the corpus {rows}"
    return _wrong_cut(maps, asked)


def _wrong_cut(maps: Maps, asked: Asked) -> str | None:
    """Row i must begin i × seq_length tokens after the first."""
    total, document = 0, 0
    for first in range(0, len(maps.sample_idx), BLOCK):
        cuts = np.asarray(maps.sample_idx[first : first + BLOCK], dtype=np.int64)
        last = int(cuts[-1, 0])
        lengths = asked.sizes[maps.doc_idx[document:last]].astype(np.int64)
        before = total + np.concatenate([[0], np.cumsum(lengths)])
        begins = before[cuts[:, 0] - document] + cuts[:, 1]
        wrong = np.flatnonzero(begins != (first + np.arange(len(cuts))) * asked.seq_length)
        if len(wrong):
            return f"row {first + int(wrong[0])} begins elsewhere: the documents have other lengths"
        total, document = int(before[-1]), last
    return None


def _epochs(tokens: int, seq_length: int, samples: int) -> int:
    """GPT-NeoX's `_num_epochs`: the fewest with (epochs × tokens - 1) // seq_length >= samples."""
    return max(1, -(-(samples * seq_length + 1) // tokens))


def _wrong_in_overflowing(maps: Maps, asked: Asked) -> str | None:
    rng = np.random.RandomState(asked.seed)
    rng.shuffle(np.arange(asked.samples))
    order = np.arange(len(asked.documents))
    rng.shuffle(order)
    if not asked.allow_chopped:
        order = order[asked.sizes[order] <= asked.seq_length + 1]
    shared = min(len(order), len(maps.doc_idx))
    if not np.array_equal(maps.doc_idx[:shared], order[:shared]):
        return "its documents are in another order than the seed gives"
    if len(maps.shuffle_idx) != asked.samples or len(maps.sample_idx) != asked.samples + 1:
        return f"it has {len(maps.shuffle_idx)} rows, the run {asked.samples}"
    return _wrong_packing(maps.doc_idx, np.asarray(maps.sample_idx)[:, 0], asked)


def _wrong_packing(doc_idx: IntArray, firsts: IntArray, asked: Asked) -> str | None:
    """A row holds as many whole documents as fit, one at least."""
    lengths = asked.sizes[doc_idx].astype(np.int64)
    before = np.concatenate([[0], np.cumsum(lengths)])
    held = np.diff(before[firsts])
    several = np.diff(firsts) > 1
    too_long = several & (held > asked.seq_length + 1)
    next_fits = held[:-1] + lengths[firsts[1:-1]] <= asked.seq_length + 1
    wrong = np.flatnonzero(too_long | np.append(next_fits, False))
    return f"row {int(wrong[0])} is packed otherwise: the documents have other lengths" if len(wrong) else None


# The files that a training run reads: which are not there yet, and the one command that makes each.

DEMO = "kisl demo --only-data"
# The others take vocab_file for a name.
READ_FROM_FILES = ("hftokenizer", "gpt2bpetokenizer", "spmtokenizer")
TRIPLE_FILES = (".jsonl", ".csv", ".tsv", ".parquet")
DATA_KEYS = ("train_data_paths", "valid_data_paths", "test_data_paths")


def missing_files(yamls: Yamls) -> list[str]:
    """One line for each file that is not there: the key, the path, and the command that makes it."""
    values = yamls.values
    found = []
    vocabulary = values.get("vocab_file")
    is_file = str(values.get("tokenizer_type", "GPT2BPETokenizer")).lower() in READ_FROM_FILES
    if is_file and isinstance(vocabulary, str) and not Path(vocabulary).exists():
        made = f"kisl corpus tokenizer --input TEXT --output {vocabulary}"
        found.append(f"the tokenizer (vocab_file: {vocabulary}) · {_command(vocabulary, made)}")
    for key, prefix in _prefixes(values):
        if not all(Path(f"{prefix}{ending}").is_file() for ending in (".bin", ".idx")):
            made = (
                f"kisl corpus build --input TEXT --triples {_triples(values)} --tokenizer {vocabulary} "
                f"--output {prefix}"
            )
            found.append(f"the corpus ({key}: {prefix}.bin and .idx) · {_command(prefix, made)}")
    triples = _triples(values)
    if Path(triples).suffix.lower() in TRIPLE_FILES and not Path(triples).exists():
        found.append(f"the triples (kisl.triples: {triples}) · {_command(triples, 'a file of yours')}")
    return found


def _prefixes(values: Any) -> Iterator[tuple[str, str]]:
    if isinstance(values.get("data_path"), str):
        yield "data_path", values["data_path"]
    for key in DATA_KEYS:
        paths = values.get(key)
        for path in paths if isinstance(paths, list) else []:
            yield key, str(path)


def _triples(values: Any) -> str:
    section = values.get("kisl")
    return str(section.get("triples", "none")) if isinstance(section, dict) else "none"


def _command(path: str, otherwise: str) -> str:
    """What `kisl demo` makes stands in a folder of its name."""
    return DEMO if "kisl-demo" in Path(path).parts else otherwise
