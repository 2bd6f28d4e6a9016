"""Plain text, JSON lines and Parquet, read as documents; each comes with the bytes of its file read so far."""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from kisl_plugin.errors import InputError

KEY = "text"
LARGEST = 64 << 20
ROWS = 1000

Documents = Iterator[tuple[str, int]]


def read_text(path: Path) -> Documents:
    """One document: the whole file, as GPT-NeoX's own preprocess_data.py takes it."""
    size = path.stat().st_size
    if size > LARGEST:
        raise _too_large(str(path), "a .txt file is one document")
    data = path.read_bytes()
    try:
        yield data.decode("utf-8-sig").replace("\r\n", "\n"), size
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{path}:{data[: error.start].count(10) + 1}", error) from None


def read_jsonl(path: Path) -> Documents:
    """The key `text` of every line."""
    with path.open("rb") as stream:
        for where, line in _lines(path, stream):
            yield _text_of(line, where), stream.tell()


def read_jsonl_gz(path: Path) -> Documents:
    """The key `text` of every line of a gzip file."""
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream:
        if not path.stat().st_size:
            raise InputError(f"{path}: an empty file is no gzip file; it was cut short: fetch or make it anew")
        for where, line in _lines(path, stream):
            yield _text_of(line, where), packed.tell()


def read_parquet(path: Path) -> Documents:
    """The column `text`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'kisl-plugin[corpus]'") from None
    size = path.stat().st_size
    row = 0
    try:
        with pq.ParquetFile(path) as table:
            columns = table.schema_arrow.names
            if KEY not in columns:
                raise InputError(f"{path}: no column {KEY!r}; its columns are {', '.join(map(repr, columns))}")
            for batch in table.iter_batches(batch_size=ROWS, columns=[KEY]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield _checked(value, f"{path}: row {row}"), size * row // table.metadata.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as Parquet after row {row} ({reason})") from None


def _lines(path: Path, stream: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with its file and number."""
    number = 0
    try:
        while line := stream.readline(LARGEST + 1):
            number += 1
            if len(line) > LARGEST:
                raise _too_large(f"{path}:{number}", "a line is one document")
            if line.strip():
                yield f"{path}:{number}", line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}:{number + 1}: the gzip file is cut short or damaged here ({error}); fetch or make it anew"
        ) from None


def _text_of(line: bytes, where: str) -> str:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict) or KEY not in row:
        seen = f"keys {', '.join(map(repr, row))}" if isinstance(row, dict) else repr(row)[:40]
        raise InputError(f"{where}: {seen}; expected an object with the key {KEY!r}")
    return _checked(row[KEY], where)


def _checked(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"{where}: {KEY} is {repr(text)[:40]}; expected a string")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InputError(f"{where}: {KEY} holds {half}, half of a character, which UTF-8 cannot hold") from None
    if size > LARGEST:
        raise _too_large(where, "a row is one document")
    return text


def _not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8")


def _too_large(where: str, why: str) -> InputError:
    return InputError(
        f'{where}: above {LARGEST >> 20} MiB, and {why}; cut it into documents: .jsonl, one {{"{KEY}": …}} a line'
    )


READERS: dict[str, Callable[[Path], Documents]] = {
    ".txt": read_text,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl_gz,
    ".parquet": read_parquet,
}
