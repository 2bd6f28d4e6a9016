import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset, IndexedWriter


@given(
    documents=st.lists(st.lists(st.integers(0, 60_000), max_size=20), min_size=1, max_size=20),
    vocabulary=st.sampled_from([65_000, 100_000]),
)
@settings(max_examples=40, deadline=None)
def test_documents_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocabulary: int
) -> None:
    prefix = tmp_path_factory.mktemp("corpus") / "my.text"
    with IndexedWriter(prefix, vocabulary) as writer:
        for document in documents:
            writer.add(document)
    corpus = IndexedDataset(prefix)
    assert [corpus.get(i).tolist() for i in range(len(corpus))] == documents
    assert corpus.dtype == (np.uint16 if vocabulary < 65_500 else np.int32)
    for i, document in enumerate(documents):
        assert corpus.get(i, 1, 2).tolist() == document[1:3] or len(document) < 3


@given(
    documents=st.lists(st.lists(st.integers(1, 999), max_size=5), max_size=6), vocabulary=st.sampled_from([1000, 10**5])
)
@settings(max_examples=40, deadline=None)
def test_documents_that_are_appended_together_are_those_appended_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], vocabulary: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    with IndexedWriter(folder / "one", vocabulary) as one, IndexedWriter(folder / "together", vocabulary) as together:
        for document in documents:
            one.add([*document, 0])
        tokens = np.array([token for document in documents for token in document], dtype=np.uint32)
        together.extend(tokens, np.cumsum([len(document) for document in documents], dtype=np.int64), 0)
    for ending in (".bin", ".idx"):
        assert (folder / f"together{ending}").read_bytes() == (folder / f"one{ending}").read_bytes()


def test_the_bytes_are_those_of_gpt_neox(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "text", 1000) as writer:
        writer.add([7, 8, 9])
        writer.add([5, 0])
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 2, 3)
    index += struct.pack("<2i", 3, 2) + struct.pack("<2q", 0, 6) + struct.pack("<3q", 0, 1, 2)
    assert (tmp_path / "text.idx").read_bytes() == index
    assert (tmp_path / "text.bin").read_bytes() == struct.pack("<5H", 7, 8, 9, 5, 0)


def test_a_writer_that_failed_leaves_no_index(tmp_path: Path) -> None:
    def half_a_corpus() -> None:
        with IndexedWriter(tmp_path / "text", 1000) as writer:
            writer.add([1])
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        half_a_corpus()
    with pytest.raises(InputError, match=r"text.idx: no such file"):
        IndexedDataset(tmp_path / "text")


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "text", 1000) as writer:
        writer.add([1, 2, 3])
    whole = (tmp_path / "text.bin").read_bytes()
    (tmp_path / "text.bin").write_bytes(whole[:-2])
    with pytest.raises(InputError, match=r"text.bin: 2 tokens; expected 3, the number in text.idx"):
        IndexedDataset(tmp_path / "text")
    (tmp_path / "text.bin").write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"text.bin: 5 bytes are not a whole number of uint16 tokens"):
        IndexedDataset(tmp_path / "text")
    (tmp_path / "text.bin").write_bytes(whole)
    (tmp_path / "text.idx").write_bytes((tmp_path / "text.idx").read_bytes()[:-3])
    with pytest.raises(InputError, match="bytes after the header"):
        IndexedDataset(tmp_path / "text")
    (tmp_path / "text.idx").write_bytes(b"TNTIDX\x00\x00 and more than a header's worth of bytes")
    with pytest.raises(InputError, match="not an index of GPT-NeoX's mmap format"):
        IndexedDataset(tmp_path / "text")
