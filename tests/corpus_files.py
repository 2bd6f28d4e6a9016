"""Files of documents, as other programs write them."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kisl_plugin.corpus.inputs import TextDocument, cut_into_pieces, find_files, read_piece


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)).encode()
    path.write_bytes(packed(data, path.suffix))
    return path


def write_parquet(path: Path, texts: Sequence[str], rows: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": [str(n) for n in range(len(texts))], "text": pa.array(texts, pa.string())})
    pq.write_table(table, path, row_group_size=rows)
    return path


def write_texts(path: Path, texts: Sequence[str]) -> Path:
    return (write_parquet if path.suffix == ".parquet" else write_jsonl)(path, texts)


def packed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return pa.compress(data, "zstd", asbytes=True) if suffix == ".zst" else data


def read_lazily(*inputs: str | Path) -> Iterator[TextDocument]:
    for piece in cut_into_pieces(find_files(inputs)):
        yield from read_piece(piece)


def read_all(*inputs: str | Path) -> list[TextDocument]:
    return list(read_lazily(*inputs))


def texts_of(*inputs: str | Path) -> list[str]:
    return [document.text for document in read_all(*inputs)]
