"""Where documents come from: files, folders and URLs are found, cut into pieces, read, and refused if they change.

Reading is strict: a bad document is an error with file and line, where datatrove's readers skip it with a warning. A
Parquet file is cut by row groups, so that the work does not depend on how large the files are; datatrove's split work
by file.
"""

import codecs
import glob
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import IO, Any, NamedTuple

from kisl_plugin.errors import InputError, KislError, needs_extra

__all__ = ["MEGABYTE", "URL", "Piece", "TextDocument", "check_writable", "cut_into_pieces", "find_files", "read_piece"]

MEGABYTE = 1_000_000
PIECE_BYTES = 128 * MEGABYTE
LARGEST_DOCUMENT = 64 << 20
_BATCH_ROWS = 100
_BUFFER = 1 << 20
_STRINGS = ("string", "large_string", "string_view", "null")
_FOOTERS_AT_ONCE = 16
URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*):/")  # a Path leaves one of two slashes
_LIBRARIES = {"s3": ("s3fs", "corpus,s3"), "s3a": ("s3fs", "corpus,s3"), "hf": ("huggingface_hub", "corpus")}
_ACCESS = {
    "s3": "; credentials come from AWS_PROFILE or AWS_ACCESS_KEY_ID; public buckets need FSSPEC_S3_ANON=true",
    "hf": "; expected hf://datasets/OWNER/NAME/…; private and gated data sets need hf auth login or HF_TOKEN",
}
# What tells one state of a file from the next, the most reliable first: S3, the hub, web servers, local files.
_VERSIONS = ("ETag", "blob_id", "etag", "oid", "md5Hash", "LastModified", "mtime", "modified", "created")


@dataclass(frozen=True)
class Piece:
    """A file, or its Parquet row groups start … stop-1; `size` is about the bytes of its text, for balance.

    The `version` is another once the file's content is. `text` is the key or column of the documents' texts.
    """

    file: str
    version: str
    size: int
    start: int | None = None
    stop: int | None = None
    text: str = "text"


class TextDocument(NamedTuple):
    """A text of `size` bytes in UTF-8; `id` is its row's own id, else "path:line" or "path#row"."""

    text: str
    id: str
    size: int


def _document(text: Any, row_id: Any, where: str, default_id: str, number: int, column: str) -> TextDocument:
    """The document of a row, whose text is from `column`; an id that is no string or number is ignored.

    The row's `number` follows `where` in messages, and `default_id` where the row has no id of its own. In place of a
    value that could not be decoded stands its error.

    Raises:
        InputError: the text is no string, is not valid Unicode, or is larger than 64 MiB.
    """
    for value in (text, row_id):
        if isinstance(value, UnicodeDecodeError):
            raise _not_utf8(f"{where}{number}", value)
    if not isinstance(text, str):
        raise InputError(f"{where}{number}: {column} is {repr(text)[:40]}; expected a string")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InputError(
            f"{where}{number}: {column} contains {half}, half of a surrogate pair, which UTF-8 cannot hold"
        ) from None
    if size > LARGEST_DOCUMENT:
        raise _too_large(f"{where}{number}", "row")
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int, float)):
        row_id = f"{default_id}{number}"
    row_id = str(row_id)
    if not row_id.isascii():  # half a surrogate pair could not be written to any file
        row_id = row_id.encode("utf-8", "replace").decode()
    return TextDocument(text, row_id, size)


def _too_large(where: str, unit: str) -> InputError:
    return InputError(
        f"{where}: larger than {LARGEST_DOCUMENT >> 20} MiB, and a {unit} is one document; split it into documents: "
        '.jsonl, one {"text": …} a line'
    )


def _not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8")


Documents = Iterator[TextDocument | InputError]
"""Of a reader: documents, and in place of each bad one its error."""


def read_text(stream: IO[bytes], name: str, column: str) -> Documents:
    """One document: the whole file, as GPT-NeoX's preprocess_data.py reads it."""
    data = stream.read(LARGEST_DOCUMENT + 1)
    try:
        if len(data) > LARGEST_DOCUMENT:
            raise _too_large(name, ".txt file")
        yield _document(data.decode("utf-8-sig").replace("\r\n", "\n"), None, f"{name}:", f"{name}:", 1, column)
    except UnicodeDecodeError as error:
        yield _not_utf8(f"{name}:{data[: error.start].count(10) + 1}", error)
    except InputError as error:
        yield error


def read_jsonl(stream: IO[bytes], name: str, column: str, compression: str | None = None) -> Documents:
    """The keys `column` and `id` of every line that is not blank; `compression` is gzip or zstd, several members too.

    Raises:
        InputError: the compressed file is cut short or damaged.
    """
    if compression:
        with needs_extra("corpus", name):
            import pyarrow as pa
        if not stream.read(1):
            raise InputError(f"{name}: the file is empty; expected {compression} data")
        stream.seek(0)
        stream = io.BufferedReader(pa.input_stream(stream, compression=compression), _BUFFER)
    for number in count(1):
        where = f"{name}:{number}"
        try:
            line = stream.readline(LARGEST_DOCUMENT + 1)
        except OSError as error:
            if error.errno is not None:  # the storage's error, not pyarrow's
                raise
            if "too much memory" in str(error):  # zstd's word for a window above 128 MB
                advice = "it was compressed with zstd --long; compress it without: zstd -d --long=31 -c FILE | zstd"
                raise InputError(f"{name}: {error}: {advice}") from None
            raise InputError(
                f"{where}: the file is cut short or damaged near here ({error}); download it again"
            ) from None
        if not line:
            return
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            if len(line) > LARGEST_DOCUMENT:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LARGEST_DOCUMENT)
                raise _too_large(where, "line")
            row = json.loads(line.decode())
            if not isinstance(row, dict) or column not in row:
                content = f"keys {', '.join(map(repr, row))}" if isinstance(row, dict) else repr(row)[:40]
                raise InputError(f"{where}: {content}; expected an object with the key {column!r}; see --text-column")
            yield _document(row[column], row.get("id"), f"{name}:", f"{name}:", number, column)
        except UnicodeDecodeError as error:
            yield _not_utf8(where, error)
        except InputError as error:
            yield error
        except (ValueError, RecursionError) as error:
            yield InputError(f"{where}: not JSON ({error}); expected one object a line")


def read_parquet(stream: IO[bytes], name: str, column: str, start: int = 0, stop: int | None = None) -> Documents:
    """The columns `column` and `id` of row groups start … stop-1, some rows at a time; row 1 is the file's first.

    Raises:
        InputError: pyarrow is missing, or the file is not Parquet or is damaged.
    """
    with _open_parquet(stream, name, column) as table:
        groups = range(table.num_row_groups)[start:stop]
        number = sum(table.metadata.row_group(group).num_rows for group in range(start))
        columns = [column, "id"] if "id" in table.schema_arrow.names else [column]
        where, default_id = f"{name}: row ", f"{name}#"
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
            for row in zip(*(_values_of(batch.column(each)) for each in columns), strict=True):
                number += 1
                try:
                    yield _document(row[0], row[-1] if len(row) > 1 else None, where, default_id, number, column)
                except InputError as error:
                    yield error


def _values_of(column: Any) -> list[Any]:
    """The values of an Arrow array, an error in place of a string that is not UTF-8."""

    def value(scalar: Any) -> Any:
        try:
            return scalar.as_py()
        except UnicodeDecodeError as error:
            return error

    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [value(scalar) for scalar in column]
    return values


@contextmanager
def _open_parquet(stream: IO[bytes], name: str, text: str) -> Iterator[Any]:
    """The open file, whose column `text` was checked; pyarrow's errors become one line."""
    with needs_extra("corpus", name):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(stream, buffer_size=_BUFFER) as table:
            schema = table.schema_arrow
            for column in (text, "id"):
                if schema.names.count(column) > 1:
                    raise InputError(f"{name}: there are several columns {column!r}; expected one")
            if text not in schema.names:
                columns = ", ".join(map(repr, schema.names))
                raise InputError(f"{name}: no column {text!r}; the columns are {columns}: see --text-column")
            kind = schema.field(text).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if str(kind) not in _STRINGS:
                raise InputError(f"{name}: column {text!r} is of type {kind}; expected string")
            yield table
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage's error, not pyarrow's
            raise
        raise InputError(f"{name}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


_GZIP, _ZSTD = partial(read_jsonl, compression="gzip"), partial(read_jsonl, compression="zstd")
_READERS: dict[str, Callable[[IO[bytes], str, str], Documents]] = {
    ".txt": read_text,
    ".jsonl": read_jsonl,
    ".jsonl.gz": _GZIP,
    ".jsonl.zst": _ZSTD,
    ".parquet": read_parquet,
    ".ndjson": read_jsonl,
    ".ndjson.gz": _GZIP,
    ".ndjson.zst": _ZSTD,
    ".json.gz": _GZIP,
    ".json.zst": _ZSTD,
}
_ENDINGS = ", ".join(_READERS)


def _ending_of(path: str) -> str:
    """The ending of _READERS that `path` has, else an empty string."""
    return next((ending for ending in _READERS if path.casefold().endswith(ending)), "")


def _protocol(path: str) -> str:
    match = URL.match(path)
    return match["protocol"].casefold() if match else "file"


@contextmanager
def _one_line_errors(path: str) -> Iterator[None]:
    """Turn what goes wrong with a file into one line; every storage library raises errors of its own."""
    protocol = _protocol(path)
    try:
        yield
    except KislError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{path}: no such file or folder ({reason}){_ACCESS.get(protocol, '')}") from error
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            raise InputError(f"{path}: no access ({reason}){_ACCESS.get(protocol, '')}") from error
        if protocol == "file" and isinstance(error, OSError):
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        if isinstance(error, (ValueError, ImportError)):
            raise InputError(
                f"{path}: {reason}; expected a path, hf://datasets/OWNER/NAME/… or s3://BUCKET/…"
            ) from error
        if protocol == "file" or isinstance(error, TypeError):
            raise
        raise KislError(f"{path}: cannot be reached or read ({reason}); try again") from error


def _file_system(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the name it has there."""
    library, extra = _LIBRARIES.get(_protocol(path), ("fsspec", "corpus"))
    with needs_extra(extra, path):
        import fsspec

        import_module(library)
    if "::" in path and _protocol(path) != "file":
        raise InputError(f"{path}: chained URLs (::) are not supported; name the file itself")
    system, name = fsspec.url_to_fs(path)
    return system, name


def _whole_file(path: str, info: Mapping[str, Any], text: str) -> Piece:
    """A file as its storage describes it."""
    if info["type"] != "file":
        raise InputError(f"{path}: not a regular file; expected text that can be read again")
    size = int(info.get("size") or 0)
    version = next((info[key] for key in _VERSIONS if info.get(key)), "")
    # A listing may give seconds where the file's own entry gives a date.
    version = version.timestamp() if isinstance(version, datetime) else str(version).strip('"')
    return Piece(path, f"{version}-{size}", size, text=text)


@contextmanager
def _opened(path: str, by_line: bool) -> Iterator[IO[bytes]]:
    """The file as a binary stream: read ahead for lines, in the requested ranges only for Parquet."""
    with _one_line_errors(path):
        system, name = _file_system(path)
        with system.open(name, "rb", cache_type="readahead" if by_line else "none") as stream:
            # The readline of fsspec's files takes no limit.
            yield io.BufferedReader(stream, _BUFFER) if by_line else stream


def find_files(inputs: Sequence[str | Path], text: str = "text") -> list[Piece]:
    """The files of `inputs`, in their order; a folder or a pattern stands for its readable files, sorted by name.

    `text` is the key or column of the texts. Hidden files below a folder are left out, with a line on standard error.

    Raises:
        InputError: nothing is found, an ending is unknown, a file would be read twice, or access is denied.
        KislError: a storage cannot be reached.
    """
    files: dict[str, Piece] = {}
    for item in inputs:
        path = str(item).removeprefix("file://")
        with _one_line_errors(path):
            system, name = _file_system(path)
            if _protocol(path) == "file":
                infos = {file: system.info(file) for file in _local_paths(path)}
            else:
                infos = _remote_infos(system, name)
            if not infos:
                raise InputError(f"{path}: no file to read; expected names that end in {_ENDINGS}")
            for name, info in infos.items():
                file = _whole_file(name, info, text)
                key = name if URL.match(name) else os.path.realpath(name)
                if key in files:
                    raise InputError(f"{name}: is listed twice, its documents would be in the corpus twice")
                files[key] = file
    return list(files.values())


def _local_paths(path: str) -> list[str]:
    roots = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))  # noqa: PTH110, PTH207
    if not roots:
        raise FileNotFoundError(f"expected text files ({_ENDINGS}), folders, patterns or hf://datasets/OWNER/NAME/…")

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); its documents would be missing")

    paths: list[str] = []
    for root in roots:
        if not os.path.isdir(root):  # noqa: PTH112
            paths.append(root)
            continue
        below, visited = [], set()
        for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
            hidden = [name for name in (*folders, *names) if name.startswith(".")]  # .ipynb_checkpoints has copies
            if any(_ending_of(name) for name in hidden) or ".ipynb_checkpoints" in hidden:
                print(f"{folder}: hidden files are left out: {', '.join(sorted(hidden))}", file=sys.stderr)
            folders[:], names = ([n for n in some if n not in hidden] for some in (folders, names))
            folders.sort()  # which of two links to a folder is followed must not depend on the disk
            if (real := os.path.realpath(folder)) in visited:
                folders.clear()
            else:
                below += [os.path.join(folder, name) for name in names]  # noqa: PTH118
            visited.add(real)
        paths += sorted(below)
    readable = [file for file in dict.fromkeys(paths) if _ending_of(file)]
    for file in readable:
        ending = Path(file).parent.suffix
        if ending in (".work", ".excluded") and ending not in path:
            raise InputError(
                f"{file}: lies in a folder named like the output of a build, whose documents would be in the corpus "
                f"twice; to read it all the same: --input {Path(file).parent}"
            )
    return readable


def _remote_infos(system: Any, name: str) -> dict[str, Mapping[str, Any]]:
    matches = system.glob(name, detail=True) if glob.has_magic(name) else {name: system.info(name)}
    infos: dict[str, Any] = {}
    for match, info in matches.items():
        infos.update(system.find(match, detail=True) if info["type"] == "directory" else {match: info})
    return {
        system.unstrip_protocol(match): info
        for match, info in sorted(infos.items())
        if info["type"] == "file" and _ending_of(match)
    }


def cut_into_pieces(files: Sequence[Piece]) -> list[Piece]:
    """The pieces of whole `files`, in their order; of a Parquet file only the footer is read, of many files at once.

    Raises:
        InputError: a Parquet file cannot be read, or has no column text of strings.
        KislError: a storage cannot be reached.
    """
    pool = ThreadPoolExecutor(_FOOTERS_AT_ONCE)
    try:
        return [piece for pieces in pool.map(_cut, files) for piece in pieces]
    finally:
        pool.shutdown(cancel_futures=True)


def _cut(file: Piece) -> list[Piece]:
    ending = _ending_of(file.file)
    if ending != ".parquet":
        unpacked = 3 if ending.endswith((".gz", ".zst")) else 1  # text compresses to about a third
        return [replace(file, size=file.size * unpacked)]
    with _opened(file.file, by_line=False) as stream, _open_parquet(stream, file.file, file.text) as table:
        footer = table.metadata
        column = next(n for n in range(footer.num_columns) if footer.schema.column(n).path == file.text)
        # The bytes of each row group's texts before compression.
        sizes = [footer.row_group(n).column(column).total_uncompressed_size for n in range(footer.num_row_groups)]
    # Runs of row groups of at most PIECE_BYTES, or a single larger one; a file without row groups is one empty run.
    pieces = []
    start = size = 0
    for group, group_size in enumerate(sizes):
        if group > start and size + group_size > PIECE_BYTES:
            pieces.append(replace(file, size=size, start=start, stop=group))
            start, size = group, 0
        size += group_size
    return [*pieces, replace(file, size=size, start=start, stop=len(sizes))]


def read_piece(piece: Piece, note_bad: Callable[[InputError], object] | None = None) -> Iterator[TextDocument]:
    """The documents of a piece, in the order of its file; bad ones are left out where `note_bad` takes their errors.

    Raises:
        InputError: a document cannot be read (the error names its line or row), or the file has changed since it was
            cut.
        KislError: the storage cannot be reached.
    """
    _check_version(piece)
    ending = _ending_of(piece.file)
    with _opened(piece.file, by_line=ending != ".parquet") as stream:
        if piece.start is None:
            documents = _READERS[ending](stream, piece.file, piece.text)
        else:
            documents = read_parquet(stream, piece.file, piece.text, piece.start, piece.stop)
        for document in documents:
            if isinstance(document, TextDocument):
                yield document
            elif note_bad is None:
                raise document
            else:
                note_bad(document)
    _check_version(piece)


def _check_version(piece: Piece) -> None:
    with _one_line_errors(piece.file):
        system, name = _file_system(piece.file)
        system.invalidate_cache(name)
        version = _whole_file(piece.file, system.info(name), piece.text).version
    if version != piece.version:
        raise InputError(
            f"{piece.file}: has changed since the plan was made (version {version}, then {piece.version}); start again "
            "with --force, or put the old file back"
        )


def check_writable(path: Path) -> None:
    """Check before hours of work that a result can be written to `path`. Its folder is made.

    Raises:
        InputError: `path` is a URL, or no regular file.
        KislError: it, or its folder, cannot be written to.
    """
    if URL.match(str(path)):
        raise InputError(f"{path}: is a URL; results are written to this machine: give a path, then copy them")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None
