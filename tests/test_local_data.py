"""The order of rows against GPT-NeoX's algorithm, written out here loop by loop."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import settings as run_settings
from tiny_world import write_yaml

import kisl_plugin.local.data
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset, IndexedWriter
from kisl_plugin.local.config import read_config
from kisl_plugin.local.data import PackedRows, read_data, split_documents


def corpus_of(folder: Path, sizes: list[int]) -> IndexedDataset:
    token = 0
    with IndexedWriter(folder / "text", 60_000) as writer:
        for size in sizes:
            writer.add(np.arange(token, token + size) % 60_000)
            token += size
    return IndexedDataset(folder / "text")


def rows_by_the_book(corpus: IndexedDataset, documents: np.ndarray, samples: int, length: int, seed: int) -> list:
    """GPT2Dataset with pack_impl "packed": epochs, doc_idx, sample_idx and shuffle_idx, one step at a time."""
    tokens = int(corpus.sizes[documents].sum())
    epochs = 1
    while (epochs * tokens - 1) // length < samples:
        epochs += 1
    random = np.random.RandomState(seed=seed)
    order = np.concatenate([documents] * epochs).astype(np.int32)
    random.shuffle(order)
    stream = np.concatenate([corpus.get(d) for d in order])
    count = (epochs * tokens - 1) // length
    shuffle = np.arange(count, dtype=np.uint32)
    random.shuffle(shuffle)
    return [stream[c * length : c * length + length + 1].tolist() for c in shuffle]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=3, max_size=30),
    length=st.integers(1, 25),
    samples=st.integers(1, 80),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=80, deadline=None)
def test_rows_come_in_the_order_of_gpt_neox(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], length: int, samples: int, seed: int
) -> None:
    corpus = corpus_of(tmp_path_factory.mktemp("rows"), sizes)
    documents = np.arange(len(sizes))[1:]
    if corpus.sizes[documents].sum() <= length:
        return
    rows = PackedRows(corpus, documents, samples, length, seed)
    expected = rows_by_the_book(corpus, documents, samples, length, seed)
    assert len(rows) == max(1, len(expected) - 1)
    assert [rows[i]["text"].tolist() for i in range(len(rows))] == expected[: len(rows)]


def test_the_split_is_that_of_gpt_neox() -> None:
    bounds = [(int(part[0]), int(part[-1]) + 1) for part in split_documents("969, 30, 1", 1000)]
    assert bounds == [(0, 969), (969, 999), (999, 1000)]
    assert [len(part) for part in split_documents("95/5", 200)] == [190, 10, 0]
    assert [len(part) for part in split_documents("100", 7)] == [7, 0, 0]


def test_a_split_that_is_too_small_says_so(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [5, 5])
    with pytest.raises(InputError, match="10 tokens in 2 documents; one row needs 65"):
        PackedRows(corpus, np.arange(2), 4, 64, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"train_iters": 400_000}, "times in a run of"), ({"kisl": {"triples": "none.csv", "frequency": 1}}, "none.csv")],
)
def test_what_is_to_be_said_or_refused_comes_before_the_rows_are_laid_out(
    changes: dict[str, object], message: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lay_out(*_: object) -> None:
        raise InputError("the rows")

    monkeypatch.setattr(kisl_plugin.local.data, "PackedRows", lay_out)
    config = read_config([write_yaml(tmp_path / "run.yml", run_settings(world, tmp_path / "out", **changes))])
    said: list[str] = []
    with pytest.raises(InputError) as caught:
        read_data(config, said.append)
    assert message in " ".join([*said, str(caught.value)])
