"""Plain text and JSON lines, read as documents from open binary streams; the table of all formats."""

import codecs
import io
import json
from collections.abc import Callable, Iterator
from typing import IO

from kisl_plugin.corpus import documents
from kisl_plugin.corpus.documents import ID, KEY, TextDocument, document_of, not_utf8, too_large
from kisl_plugin.corpus.parquet import read_parquet
from kisl_plugin.errors import InputError

PARQUET = ".parquet"
UNPACKED = 1 << 20

Reader = Callable[[IO[bytes], str], Iterator[TextDocument]]


def read_text(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """One document: the whole file, as GPT-NeoX's own preprocess_data.py takes it."""
    data = stream.read(documents.LARGEST + 1)
    if len(data) > documents.LARGEST:
        raise too_large(name, "a .txt file is one document")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise not_utf8(f"{name}:{data[: error.start].count(10) + 1}", error) from None
    yield document_of(text, None, name, f"{name}:1")


def read_jsonl(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """The keys `text` and `id` of every line that is not blank."""
    for where, line in _lines(stream, name):
        yield _document_of(line, where)


def read_jsonl_gz(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """The lines of a gzip file of one or more members."""
    return _read_packed(stream, name, "gzip")


def read_jsonl_zst(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """The lines of a Zstandard file of one or more frames."""
    return _read_packed(stream, name, "zstd")


def ending_of(path: str) -> str:
    """The ending of READERS that `path` has, else an empty string."""
    return next((ending for ending in READERS if path.casefold().endswith(ending)), "")


def _read_packed(stream: IO[bytes], name: str, packing: str) -> Iterator[TextDocument]:
    try:
        import pyarrow as pa
    except ImportError:
        raise InputError(f"{name}: {packing} needs pyarrow; pip install 'kisl-plugin[corpus]'") from None
    if not stream.read(1):
        raise InputError(f"{name}: an empty file is no {packing} file; it was cut short: fetch or make it anew")
    stream.seek(0)
    with pa.input_stream(stream, compression=packing) as unpacked:
        yield from read_jsonl(io.BufferedReader(unpacked, UNPACKED), name)


def _lines(stream: IO[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with its file and number."""
    number = 0
    try:
        while line := stream.readline(documents.LARGEST + 1):
            number += 1
            if len(line) > documents.LARGEST:
                raise too_large(f"{name}:{number}", "a line is one document")
            if line.strip():
                yield f"{name}:{number}", line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except OSError as error:
        if error.errno is not None:  # the storage's, not pyarrow's
            raise
        raise InputError(
            f"{name}:{number + 1}: the file is cut short or damaged here or soon after ({error}); fetch or make it anew"
        ) from None


def _document_of(line: bytes, where: str) -> TextDocument:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise not_utf8(where, error) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict) or KEY not in row:
        seen = f"keys {', '.join(map(repr, row))}" if isinstance(row, dict) else repr(row)[:40]
        raise InputError(f"{where}: {seen}; expected an object with the key {KEY!r}")
    return document_of(row[KEY], row.get(ID), where, where, len(line))


READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl_gz,
    ".jsonl.zst": read_jsonl_zst,
    PARQUET: read_parquet,
}
