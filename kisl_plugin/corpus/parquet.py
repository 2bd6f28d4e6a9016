"""Parquet files of documents: their columns text and id, by row groups."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from kisl_plugin.corpus import documents
from kisl_plugin.corpus.documents import ID, KEY, TextDocument, document_of, not_utf8
from kisl_plugin.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

TEXTS = ("string", "large_string", "string_view")
BATCH_BYTES, BATCH_ROWS = 8_000_000, 1000
BUFFER = 1 << 20


@dataclass
class _Row:
    """The last row that was read; it outlives the error."""

    number: int = 0


def read_parquet(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """All rows of a file."""
    return read_row_groups(stream, name, 0, None)


def row_group_sizes(stream: IO[bytes], name: str) -> list[int]:
    """The bytes of each row group's column text before compression, as the file's footer has them.

    Raises:
        InputError: pyarrow is not installed, the file is no Parquet file, or its column text is none of strings.
    """
    with _opened(stream, name, _Row(), False) as table:
        _check_columns(table.schema_arrow, name)
        return _text_sizes(table.metadata)


def read_row_groups(
    stream: IO[bytes], name: str, start: int, stop: int | None, *, at_once: bool = False
) -> Iterator[TextDocument]:
    """The documents of row groups start … stop-1 (to the last one if `stop` is None), numbered as in the whole file.

    Only the columns text and id are read: some megabytes at a time, or, where storage is slow to answer, packed as they
    are `at_once`.

    Raises:
        InputError: as row_group_sizes, and for a row whose text is null, no UTF-8, or too large.
    """
    row = _Row()
    with _opened(stream, name, row, at_once) as table:
        columns = _check_columns(table.schema_arrow, name)
        groups = range(table.num_row_groups)[start:stop]
        row.number = sum(table.metadata.row_group(group).num_rows for group in range(start))
        batches = table.iter_batches(
            batch_size=_rows_a_batch(table.metadata, groups), row_groups=groups, columns=columns, use_threads=False
        )
        for batch in batches:
            texts, *ids = (_decoded(batch.column(column)) for column in columns)
            rows = _Rows(name, row.number, texts, ids[0] if ids else None)
            row.number += batch.num_rows
            yield from rows.documents()


@dataclass(frozen=True)
class _Rows:
    """Rows `before`+1 … of a file: their texts, and their ids if it has any."""

    name: str
    before: int
    texts: "pa.Array"
    ids: "pa.Array | None"

    def documents(self) -> Iterator[TextDocument]:
        """All at once; one by one only where one of them is bad, so that the error can name it."""
        import pyarrow.compute as pc

        try:
            sizes = pc.binary_length(self._strings()).to_pylist()
            if self.texts.null_count == 0 and max(sizes, default=0) <= documents.LARGEST:
                return map(TextDocument, self.texts.to_pylist(), self._all_ids(), sizes, sizes)
        except UnicodeDecodeError:
            pass
        return map(self._document, range(len(self.texts)))

    def _strings(self) -> "pa.Array":
        # Not every release knows the lengths of views, or of nulls.
        return self.texts if str(self.texts.type) in TEXTS[:2] else self.texts.cast("large_string")

    def _all_ids(self) -> Iterable[str]:
        first = self.before + 1
        defaults = map(f"{self.name}#{{}}".format, range(first, first + len(self.texts)))
        if self.ids is None:
            return defaults
        given = self.ids.to_pylist()
        return [default if one is None else str(one) for one, default in zip(given, defaults, strict=True)]

    def _document(self, index: int) -> TextDocument:
        number = self.before + 1 + index
        where = f"{self.name}: row {number}"
        try:
            text = self.texts[index].as_py()
        except UnicodeDecodeError as error:
            raise not_utf8(where, error) from None
        try:
            given = self.ids[index].as_py() if self.ids is not None else None
        except UnicodeDecodeError:
            given = None
        return document_of(text, given, where, f"{self.name}#{number}")


@contextmanager
def _opened(stream: IO[bytes], name: str, row: _Row, at_once: bool) -> "Iterator[pq.ParquetFile]":
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{name}: Parquet needs pyarrow; pip install 'kisl-plugin[corpus]'") from None
    try:
        with pq.ParquetFile(stream, buffer_size=0 if at_once else BUFFER, pre_buffer=at_once) as table:
            yield table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage's, not pyarrow's
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{name}: cannot be read as Parquet after row {row.number} ({reason})") from None


def _decoded(column: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def _check_columns(schema: "pa.Schema", name: str) -> list[str]:
    """The columns to read: text, and id if it is one of strings or numbers."""
    for column in (KEY, ID):
        if schema.names.count(column) > 1:
            raise InputError(f"{name}: column {column!r} is there twice; keep one")
    if KEY not in schema.names:
        raise InputError(f"{name}: no column {KEY!r}; its columns are {', '.join(map(repr, schema.names))}")
    kind = _values(schema.field(KEY).type)
    if str(kind) not in (*TEXTS, "null"):
        raise InputError(f"{name}: column {KEY!r} is of type {kind}; expected string")
    return [KEY, ID] if ID in schema.names and _is_id(_values(schema.field(ID).type)) else [KEY]


def _values(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_id(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return str(kind) in TEXTS or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _text_sizes(metadata: "pq.FileMetaData") -> list[int]:
    column = next(n for n in range(metadata.num_columns) if metadata.schema.column(n).path == KEY)
    return [metadata.row_group(n).column(column).total_uncompressed_size for n in range(metadata.num_row_groups)]


def _rows_a_batch(metadata: "pq.FileMetaData", groups: Sequence[int]) -> int:
    rows: int = sum(metadata.row_group(group).num_rows for group in groups)
    sizes = _text_sizes(metadata)
    held = sum(sizes[group] for group in groups)
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, held)))
