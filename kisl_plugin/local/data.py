"""What a run of the embedded engine reads: GPT-NeoX's order of rows, with the statements inserted."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from kisl_plugin.errors import InputError
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.injection import InjectedDataset, Rows
from kisl_plugin.local.config import LocalConfig
from kisl_plugin.neox_config import missing_files, missing_files_error
from kisl_plugin.plan import InjectionPlan, describe_passes, make_plan, read_settings

__all__ = ["PackedRows", "RunData", "read_data", "split_documents"]


class PackedRows:
    """Rows of seq_length + 1 tokens, each sharing one token with the next cut, in GPT-NeoX's order.

    Documents are shuffled over all epochs, laid end to end, cut every seq_length tokens, and the cuts shuffled. Source:
    megatron/data/gpt2_dataset.py and data_utils.py, rebuilt in NumPy. Both shuffles use one legacy RandomState(seed),
    whose stream NumPy has promised to keep.

    Args:
        corpus: the documents.
        documents: int array, which of them belong to this split.
        samples: how many rows the run will read; decides the number of epochs.
        seq_length: tokens of a row, without the last target.
        seed: GPT-NeoX's `seed`.

    Raises:
        InputError: the split has too few tokens for one row.
    """

    def __init__(
        self, corpus: IndexedDataset, documents: NDArray[Any], samples: int, seq_length: int, seed: int
    ) -> None:
        tokens = int(corpus.sizes[documents].sum(dtype=np.int64))
        if tokens <= seq_length:
            raise InputError(
                f"the split has {tokens} tokens in {len(documents)} documents; one row needs {seq_length + 1}"
            )
        self._corpus = corpus
        epochs = max(1, -(-(samples * seq_length + 1) // tokens))
        random = np.random.RandomState(seed=seed)
        self.doc_idx = np.tile(np.asarray(documents, dtype=np.int32), epochs)
        random.shuffle(self.doc_idx)
        # sample_idx[c] is where cut c begins: (place in doc_idx, offset in that document), int64 [cuts + 1, 2].
        sizes = corpus.sizes[self.doc_idx]
        ends = np.cumsum(sizes, dtype=np.int64)
        begins = np.arange((epochs * tokens - 1) // seq_length + 1, dtype=np.int64) * seq_length
        place = np.searchsorted(ends, begins, side="right")
        place[0] = 0
        self.sample_idx = np.stack((place, begins - ends[place] + sizes[place]), axis=1)
        self.shuffle_idx = np.arange(len(self.sample_idx) - 1, dtype=np.uint32)
        random.shuffle(self.shuffle_idx)

    def __len__(self) -> int:
        # GPT-NeoX counts one row less than it has.
        return max(1, len(self.shuffle_idx) - 1)

    def __getitem__(self, i: int) -> dict[str, NDArray[np.int64]]:
        cut = int(self.shuffle_idx[i])
        (first, offset), (last, end) = self.sample_idx[cut].tolist(), self.sample_idx[cut + 1].tolist()
        get, order = self._corpus.get, self.doc_idx
        if first == last:
            return {"text": get(order[first], offset, end - offset + 1).astype(np.int64)}
        inner = [get(order[d]) for d in range(first + 1, last)]
        parts = [get(order[first], offset), *inner, get(order[last], 0, end + 1)]
        return {"text": np.concatenate(parts).astype(np.int64)}


def split_documents(split: str, count: int) -> list[NDArray[np.int32]]:
    """The documents of train, validation and test by GPT-NeoX's `split`, such as "969, 30, 1"."""
    shares = [float(part) for part in split.replace("/", ",").split(",")]
    shares = [*shares, 0.0, 0.0, 0.0][:3]
    ends = [0]
    for share in shares:
        ends.append(ends[-1] + round(share / sum(shares) * float(count)))
    excess = ends[-1] - count
    ends = [0, *(end - excess for end in ends[1:])]
    return [np.arange(a, b, dtype=np.int32) for a, b in pairwise(ends)]


@dataclass(frozen=True)
class RunData:
    """`train` row i is what the run's sample i is trained on; `valid` is None where `split` holds nothing out."""

    tokenizer: Tokenizer
    eod: int
    corpus: IndexedDataset
    train: Rows
    valid: PackedRows | None
    plan: InjectionPlan | None


def read_data(config: LocalConfig, say: Callable[[str], object] | None = None) -> RunData:
    """Open the tokenizer and the corpus, and lay out the run's rows.

    What is wrong, and what `say` takes (that the corpus is read many times), comes first: the rows of many passes take
    a minute.

    Raises:
        InputError: a file is missing or bad, or the injection does not fit.
    """
    section = config["kisl"]
    settings = None if section is None else read_settings(section, config.where, config["seed"])
    missing = missing_files(config.values)
    if missing:
        raise missing_files_error(config.where, missing)
    tokenizer, eod = read_tokenizer(Path(config["vocab_file"]))
    corpus = IndexedDataset(Path(config["data_path"]))
    train_documents, valid_documents, _ = split_documents(config["split"], len(corpus))

    def rows(documents: NDArray[np.int32], samples: int, name: str) -> PackedRows:
        try:
            return PackedRows(corpus, documents, samples, config["seq_length"], config["seed"])
        except InputError as error:
            raise InputError(f"{config['data_path']}: {name} (split {config['split']!r}): {error}") from None

    warning = describe_passes(int(corpus.sizes.sum(dtype="int64")), config.samples * config["seq_length"])
    if warning and say:
        say(warning)
    plan = None
    if settings is not None:
        try:
            plan = make_plan(
                settings,
                lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
                config.samples,
                config["seq_length"],
            )
        except InputError as error:
            raise InputError(f"{config.where}: kisl: {error}") from None
    train: Rows = rows(train_documents, config.samples, "train")
    if plan is not None:
        train = InjectedDataset(train, [statement.tokens for statement in plan.statements], plan.schedule, eod)
    evaluations = config["train_iters"] // config["eval_interval"] + 1
    held_out = evaluations * config["eval_iters"] * config.batch
    valid = rows(valid_documents, held_out, "validation") if len(valid_documents) and held_out else None
    return RunData(tokenizer, eod, corpus, train, valid, plan)
