"""Which documents a file contains, by its ending. Reading is strict: a bad document is an error with file and line.

datatrove's readers skip what they cannot read with a warning, which would make the corpus depend on it.
"""

import codecs
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple

from kisl_plugin.errors import InputError, needs_extra

__all__ = ["READERS", "ending_of"]

LARGEST_DOCUMENT = 64 << 20
BATCH_BYTES, BATCH_ROWS = 8_000_000, 1000
BUFFER = 1 << 20
_STRINGS = ("string", "large_string", "string_view", "null")


class TextDocument(NamedTuple):
    """A text of `size` bytes in UTF-8; `id` is its row's own id, else "path:line" or "path#row"."""

    text: str
    id: str
    size: int


def _document(text: Any, row_id: Any, where: str, default_id: str) -> TextDocument:
    """The document of a row; an id that is no string or number is ignored.

    Raises:
        InputError: the text is no string, is not valid Unicode, or is larger than 64 MiB.
    """
    if not isinstance(text, str):
        raise InputError(f"{where}: text is {repr(text)[:40]}; expected a string")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InputError(f"{where}: text contains {half}, half of a surrogate pair, which UTF-8 cannot hold") from None
    if size > LARGEST_DOCUMENT:
        raise _too_large(where, "row")
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int, float)):
        row_id = default_id
    # Half a surrogate pair could not be written to any file.
    return TextDocument(text, str(row_id).encode("utf-8", "replace").decode(), size)


def _too_large(where: str, unit: str) -> InputError:
    return InputError(
        f"{where}: larger than {LARGEST_DOCUMENT >> 20} MiB, and a {unit} is one document; split it into documents: "
        '.jsonl, one {"text": …} a line'
    )


def _not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8")


def read_text(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """One document: the whole file, as GPT-NeoX's preprocess_data.py reads it."""
    data = stream.read(LARGEST_DOCUMENT + 1)
    if len(data) > LARGEST_DOCUMENT:
        raise _too_large(name, ".txt file")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{name}:{data[: error.start].count(10) + 1}", error) from None
    yield _document(text, None, name, f"{name}:1")


def read_jsonl(stream: IO[bytes], name: str, compression: str | None = None) -> Iterator[TextDocument]:
    """The keys `text` and `id` of every line that is not blank; `compression` is gzip or zstd, of several members too.

    Raises:
        InputError: a line is not a JSON object with a valid text, or the compressed file is cut short or damaged.
    """
    if compression:
        with needs_extra("corpus", name):
            import pyarrow as pa
        if not stream.read(1):
            raise InputError(f"{name}: the file is empty; expected {compression} data")
        stream.seek(0)
        stream = io.BufferedReader(pa.input_stream(stream, compression=compression), BUFFER)
    number = 0
    while line := _read_line(stream, f"{name}:{number + 1}"):
        number += 1
        where = f"{name}:{number}"
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError as error:
            raise _not_utf8(where, error) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error}); expected one object a line") from None
        if not isinstance(row, dict) or "text" not in row:
            content = f"keys {', '.join(map(repr, row))}" if isinstance(row, dict) else repr(row)[:40]
            raise InputError(f"{where}: {content}; expected an object with the key 'text'")
        yield _document(row["text"], row.get("id"), where, where)


def _read_line(stream: IO[bytes], where: str) -> bytes:
    try:
        line = stream.readline(LARGEST_DOCUMENT + 1)
    except OSError as error:
        if error.errno is not None:  # the storage's error, not pyarrow's
            raise
        raise InputError(f"{where}: the file is cut short or damaged near here ({error}); download it again") from None
    if len(line) > LARGEST_DOCUMENT:
        raise _too_large(where, "line")
    return line


def read_parquet(stream: IO[bytes], name: str, start: int = 0, stop: int | None = None) -> Iterator[TextDocument]:
    """The columns `text` and `id` of row groups start … stop-1, a few megabytes at a time; row 1 is the file's first.

    Raises:
        InputError: pyarrow is missing, the file is not Parquet or is damaged, or a row's text is not valid.
    """
    number = 0
    with open_parquet(stream, name, lambda: number) as table:
        groups = range(table.num_row_groups)[start:stop]
        number = sum(table.metadata.row_group(group).num_rows for group in range(start))
        sizes, rows = text_sizes(table), sum(table.metadata.row_group(group).num_rows for group in groups)
        batch_rows = BATCH_BYTES * rows // max(1, sum(sizes[group] for group in groups))
        columns = ["text", "id"] if "id" in table.schema_arrow.names else ["text"]
        for batch in table.iter_batches(
            batch_size=max(1, min(BATCH_ROWS, batch_rows)), row_groups=groups, columns=columns, use_threads=False
        ):
            texts, *ids = (_values(batch.column(column)) for column in columns)
            row_ids = ids[0] if ids else iter(lambda: None, 0)
            for text, row_id in zip(texts, row_ids, strict=False):
                number += 1
                yield _document(text, row_id, f"{name}: row {number}", f"{name}#{number}")


def _values(column: Any) -> Iterator[Any]:
    """A column's values. One that is not UTF-8 raises when its turn comes, after all values before it."""
    try:
        yield from column.to_pylist()
    except UnicodeDecodeError:
        yield from (value.as_py() for value in column)


@contextmanager
def open_parquet(stream: IO[bytes], name: str, rows_read: Callable[[], int]) -> Iterator[Any]:
    """The open file, whose column `text` was checked; pyarrow's errors become one line."""
    with needs_extra("corpus", name):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(stream, buffer_size=BUFFER) as table:
            schema = table.schema_arrow
            for column in ("text", "id"):
                if schema.names.count(column) > 1:
                    raise InputError(f"{name}: there are several columns {column!r}; expected one")
            if "text" not in schema.names:
                raise InputError(f"{name}: no column 'text'; the columns are {', '.join(map(repr, schema.names))}")
            kind = schema.field("text").type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if str(kind) not in _STRINGS:
                raise InputError(f"{name}: column 'text' is of type {kind}; expected string")
            yield table
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{name}: row {rows_read() + 1}", error) from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage's error, not pyarrow's
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{name}: cannot be read as Parquet after row {rows_read()} ({reason})") from None


def text_sizes(table: Any) -> list[int]:
    """The bytes of each row group's texts before compression, from the file's footer."""
    footer = table.metadata
    column = next(n for n in range(footer.num_columns) if footer.schema.column(n).path == "text")
    return [footer.row_group(n).column(column).total_uncompressed_size for n in range(footer.num_row_groups)]


READERS: dict[str, Callable[[IO[bytes], str], Iterator[TextDocument]]] = {
    ".txt": read_text,
    ".jsonl": read_jsonl,
    ".jsonl.gz": partial(read_jsonl, compression="gzip"),
    ".jsonl.zst": partial(read_jsonl, compression="zstd"),
    ".parquet": read_parquet,
}
ENDINGS = ", ".join(READERS)


def ending_of(path: str) -> str:
    """The ending of READERS that `path` has, else an empty string."""
    return next((ending for ending in READERS if path.casefold().endswith(ending)), "")
