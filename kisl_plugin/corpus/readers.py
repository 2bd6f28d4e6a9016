"""The pieces that a corpus is read in: runs of a Parquet file's row groups, and other files whole."""

import codecs
import glob
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.progress import Progress

# A document, and what every format checks of one.

KEY = "text"
ID = "id"
LARGEST = 64 << 20


class TextDocument(NamedTuple):
    """A text of `size` bytes in UTF-8; `id` is its row's own, else "path:line" or "path#row".

    `row` is how many bytes of its piece it stands for: a line's, other keys included.
    """

    text: str
    id: str
    size: int
    row: int


def document_of(text: Any, given: Any, where: str, default: str, row: int | None = None) -> TextDocument:
    """The document of a row of `row` bytes (default: the text's); an id that is no string or number is passed over.

    Raises:
        InputError: the text is no string, cannot be written as UTF-8, or is above 64 MiB.
    """
    if not isinstance(text, str):
        raise InputError(f"{where}: {KEY} is {repr(text)[:40]}; expected a string")
    size = len(text) if text.isascii() else _encoded_size(text, where)
    if size > LARGEST:
        raise too_large(where, "a row is one document")
    return TextDocument(text, _id(given, default), size, size if row is None else row)


def too_large(where: str, why: str) -> InputError:
    """The error for a document that memory should not hold."""
    return InputError(
        f'{where}: above {LARGEST >> 20} MiB, and {why}; cut it into documents: .jsonl, one {{"{KEY}": …}} a line'
    )


def not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are no text."""
    return InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8")


def _id(given: Any, default: str) -> str:
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        return default
    # Half a character could not be written to any file.
    return str(given).encode("utf-8", "replace").decode()


def _encoded_size(text: str, where: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise InputError(f"{where}: {KEY} holds {half}, half of a character, which UTF-8 cannot hold") from None


# Parquet files of documents: their columns text and id, by row groups.

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
            if self.texts.null_count == 0 and max(sizes, default=0) <= LARGEST:
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


# Plain text and JSON lines, read as documents from open binary streams; the table of all formats.

PARQUET = ".parquet"
UNPACKED = 1 << 20

Reader = Callable[[IO[bytes], str], Iterator[TextDocument]]


def read_text(stream: IO[bytes], name: str) -> Iterator[TextDocument]:
    """One document: the whole file, as GPT-NeoX's own preprocess_data.py takes it."""
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
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
        while line := stream.readline(LARGEST + 1):
            number += 1
            if len(line) > LARGEST:
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


# Where text lies: on this machine, or behind a URL that fsspec opens; both as binary streams with a version.

STORAGE_BUFFER = 1 << 20
URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)://")
# What tells one state of a remote file from the next, the surest first: S3, the hub, web servers, others.
VERSIONS = ("ETag", "blob_id", "etag", "oid", "md5Hash", "LastModified", "mtime", "modified", "created")
# Those of Python's own errors that storage libraries raise too.
USUAL = (OSError, ImportError, ValueError, RuntimeError)


def is_remote(path: str) -> bool:
    """Whether `path` is a URL."""
    return URL.match(path) is not None


def protocol_of(path: str) -> str:
    """The `s3` of an s3:// URL."""
    found = URL.match(path)
    return found["protocol"].casefold() if found else "file"


@contextmanager
def open_file(path: str, *, exact: bool = False) -> Iterator[IO[bytes]]:
    """The file as a binary stream that can seek; a remote one is read ahead, unless `exact`.

    Raises:
        InputError: it is not there, or may not be read.
        KislError: the storage cannot be reached.
    """
    with errors_of(path):
        if is_remote(path):
            system, name = file_system(path)
            with system.open(name, "rb", cache_type="none" if exact else "readahead") as stream:
                # What fsspec opens has a readline that knows no limit.
                yield stream if exact else io.BufferedReader(stream, STORAGE_BUFFER)
        else:
            with Path(path).open("rb") as stream:
                yield stream


def size_and_version(path: str) -> tuple[int, str]:
    """The size in bytes, and what changes when the file does, as they are now."""
    with errors_of(path):
        if is_remote(path):
            system, name = file_system(path)
            system.invalidate_cache(name)
            return remote_state(system.info(name))
        return local_state(Path(path))


def local_state(path: Path) -> tuple[int, str]:
    """The size and the version of a file of this machine: time of its last change, and size."""
    state = path.stat()
    return state.st_size, f"{state.st_mtime_ns}-{state.st_size}"


def remote_state(info: Mapping[str, Any]) -> tuple[int, str]:
    """The size and the version of a file as its storage describes it."""
    size = int(info.get("size") or 0)
    known = next((info[key] for key in VERSIONS if info.get(key)), "")
    # A listing may give seconds where the file's own entry gives a date.
    known = known.timestamp() if isinstance(known, datetime) else str(known).strip('"')
    return size, f"{known}-{size}"


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the name it has there.

    Raises:
        InputError: fsspec, or what it needs for this protocol, is not installed, or knows no such protocol.
    """
    try:
        import fsspec
    except ImportError:
        raise InputError(f"{url}: URLs need fsspec; pip install 'kisl-plugin[corpus]'") from None
    if "::" in url:
        raise InputError(f"{url}: chained URLs (::) are not read; name the file itself")
    with errors_of(url):
        system, name = fsspec.url_to_fs(url)
    return system, name


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """What goes wrong with a file, in one line; every storage library raises errors of its own.

    Python's TypeError and the like pass: they are nobody's input.
    """
    try:
        yield
    except KislError:
        raise
    except Exception as error:
        if is_remote(path) and (type(error).__module__ != "builtins" or isinstance(error, USUAL)):
            raise _remote_error(path, error) from error
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        raise


def _remote_error(path: str, error: Exception) -> KislError:
    protocol, reason = protocol_of(path), _first_line(error)
    if isinstance(error, ImportError):
        extra = {"s3": "corpus,s3", "s3a": "corpus,s3", "hf": "corpus"}.get(protocol)
        install = f"pip install 'kisl-plugin[{extra}]'" if extra else reason
        return InputError(f"{path}: what reads {protocol}:// is not installed; {install}")
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file or folder ({reason}), or not for you to see{_login(protocol)}")
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return InputError(f"{path}: no access ({reason}){_login(protocol)}")
    if isinstance(error, ValueError):
        return InputError(f"{path}: {reason}; expected a path, hf://datasets/OWNER/NAME/… or s3://BUCKET/…")
    return KislError(f"{path}: cannot be reached or read ({reason}); try again")


def _login(protocol: str) -> str:
    return {
        "s3": "; credentials come from AWS_PROFILE or AWS_ACCESS_KEY_ID; public buckets need FSSPEC_S3_ANON=true",
        "hf": "; data sets are hf://datasets/OWNER/NAME/…, private and gated ones need hf auth login, or HF_TOKEN",
    }.get(protocol, "")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}…"


# The text files that a corpus is made from: local paths, folders, globs, and the same as URLs.

ENDINGS = ", ".join(READERS)
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.*-]*)+")
HUB = "hf://datasets/"
BUILT = (".work", ".excluded")


@dataclass(frozen=True)
class SourceFile:
    """A file that is read, `size` bytes long; its `version` is another once its content is."""

    path: str
    size: int
    version: str


def find_files(inputs: Sequence[str | Path]) -> list[SourceFile]:
    """The files of `inputs`, in their order; a folder or a glob stands for the readable files it leads to, by name.

    Raises:
        InputError: nothing is there, an ending is not known, a file would be read twice, or a URL may not be read.
        KislError: a storage cannot be reached.
    """
    files = [file for given in inputs for file in _files_of(str(given).removeprefix("file://"))]
    seen: set[str] = set()
    for file in files:
        key = file.path if is_remote(file.path) else str(Path(file.path).resolve())
        if key in seen:
            raise InputError(f"{file.path}: given twice; its documents would be in the corpus twice: name it once")
        seen.add(key)
    return files


def _files_of(given: str) -> list[SourceFile]:
    with errors_of(given):
        return _remote_files(given) if is_remote(given) else _local_files(given)


def _local_files(given: str) -> list[SourceFile]:
    path = Path(given)
    if not given:
        raise InputError("--input is empty; expected a file, a folder, a glob or a URL")
    if path.is_file():
        if not ending_of(given):
            raise InputError(f"{given}: the ending is not known; expected {ENDINGS}")
        return [_local_file(path)]
    if not path.exists() and glob.has_magic(given):
        roots = [Path(found) for found in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207 (absolute ones)
    elif path.is_dir():
        roots = [path]
    else:
        raise InputError(f"{given}: no such file or folder; {_hint(given)}")
    found = {file: None for root in roots for file in _below(root)}
    _refuse_built(found, given)
    if not found:
        where = "below this folder" if path.is_dir() else "that this pattern fits"
        raise InputError(f"{given}: no file {where} ends in {ENDINGS}")
    return [_local_file(file) for file in found]


def _below(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root] if ending_of(root.name) else []
    return sorted(folder / name for folder, names in _folders(root) for name in names if ending_of(name))


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder once, those that links lead to as well, with the names of its files."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # which of two names of a folder is met first is no chance
        yield Path(folder), names


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); its documents would be left out unsaid")


def _refuse_built(found: Iterable[Path], given: str) -> None:
    """A folder holds what an earlier build left there: its documents would be in the corpus twice."""
    for path in found:
        if path.parent.suffix in BUILT and path.parent.suffix not in given:
            raise InputError(
                f"{path}: lies in what a build calls its folder; if a build of these texts left it, name the texts "
                f"themselves: --input '{given.rstrip('/')}/*.jsonl'; if not, name {path.parent}"
            )


def _local_file(path: Path) -> SourceFile:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        known = sys.getfilesystemencoding()
        raise InputError(
            f"{os.fsencode(path)!r}: a file name that is not {known} cannot be written down; rename it"
        ) from None
    with errors_of(str(path)):
        size, version = local_state(path)
    if not path.is_file():  # whoever opens a pipe waits for ever
        raise InputError(f"{path}: is no regular file; expected text that can be read again")
    return SourceFile(str(path), size, version)


def _hint(given: str) -> str:
    if HUB_NAME.fullmatch(given) and not ending_of(given) and not Path(given.split("/")[0]).exists():
        return f"a data set of the Hugging Face hub is {HUB}{given}"
    return f"--input takes text files ({ENDINGS}), folders of them, globs, and URLs (hf://datasets/…, s3://…)"


def _remote_files(url: str) -> list[SourceFile]:
    system, name = file_system(url)
    if glob.has_magic(name):
        return _remote_matches(system, name, url)
    info = system.info(name)
    if info["type"] != "directory":
        if not ending_of(url):
            raise InputError(f"{url}: the ending is not known; expected {ENDINGS}")
        return [SourceFile(system.unstrip_protocol(name), *remote_state(info))]
    return _readable(system, system.find(name, detail=True), url, "below this folder")


def _remote_matches(system: Any, pattern: str, url: str) -> list[SourceFile]:
    found: dict[str, Any] = {}
    for name, info in sorted(system.glob(pattern, detail=True).items()):
        found.update(system.find(name, detail=True) if info["type"] == "directory" else {name: info})
    return _readable(system, found, url, "that this pattern fits")


def _readable(system: Any, infos: dict[str, Any], url: str, where: str) -> list[SourceFile]:
    files = [
        SourceFile(system.unstrip_protocol(name), *remote_state(info))
        for name, info in sorted(infos.items())
        if info["type"] == "file" and ending_of(name)
    ]
    if not files:
        raise InputError(f"{url}: no file {where} ends in {ENDINGS}")
    return files


# Where results are to lie: told before hours of work whether they can.

# A URL of which Path has left one slash.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def refuse_url(output: Path) -> None:
    """A Path makes a local folder `s3:` of a URL.

    Raises:
        InputError: `output` is a URL.
    """
    if _URL.match(str(output)):
        raise InputError(
            f"{output}: is a URL; results are written to a disk of this machine: give a path, and copy them afterwards"
        )


def check_writable(path: Path) -> None:
    """Whether a file can be written there. Its folder is made.

    Raises:
        InputError: `path` is no file's name.
        KislError: its folder cannot be made or written to.
    """
    refuse_url(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None


# The pieces that a corpus is read in: runs of a Parquet file's row groups, and other files whole.

PIECE = 128_000_000
AT_ONCE = 2 * PIECE
READERS_AT_ONCE = 16
PACKED, PACKING = (".jsonl.gz", ".jsonl.zst"), 3  # text packs to about a third
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Piece:
    """A file, or its Parquet row groups start … stop-1; `size` is about the bytes of its text, for balance."""

    file: str
    size: int
    start: int | None
    stop: int | None
    version: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Piece":
        """What to_dict made."""
        return cls(**values)


def cut_into_pieces(files: Sequence[SourceFile]) -> list[Piece]:
    """The pieces of `files`, in their order; of a Parquet file only the footer is read, of many files at once.

    Raises:
        InputError: a Parquet file cannot be read, or has no column text of strings.
        KislError: a storage cannot be reached.
    """
    progress = Progress("reading what the files hold", len(files))
    pieces: list[Piece] = []
    pool = ThreadPoolExecutor(READERS_AT_ONCE)
    try:
        for done, cut in enumerate(pool.map(_cut, files)):
            pieces.extend(cut)
            progress.update(done)
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return pieces


def read_piece(piece: Piece) -> Iterator[TextDocument]:
    """The documents of a piece, in the order of its file.

    Raises:
        InputError: a document cannot be read (it names the line or row), or the file has changed since it was cut.
        KislError: the storage cannot be reached.
    """
    _check_version(piece)
    at_once = is_remote(piece.file) and piece.start is not None and piece.size <= AT_ONCE
    with open_file(piece.file, exact=at_once) as stream:
        if piece.start is None:
            yield from READERS[ending_of(piece.file)](stream, piece.file)
        else:
            yield from read_row_groups(stream, piece.file, piece.start, piece.stop, at_once=at_once)
    _check_version(piece)


def read_documents(pieces: Sequence[Piece], label: str, sample: int | None = None) -> Iterator[TextDocument]:
    """The documents of `pieces`, empty ones too, with progress in megabytes.

    With `sample`, about that many bytes: each piece gives its first documents, as many as its size asks for.

    Raises:
        InputError, KislError: as read_piece.
    """
    share = min(1.0, sample / total_size(pieces)) if sample is not None else 1.0
    total = max(1, round(share * total_size(pieces)) // MEGABYTE)
    progress = Progress(f"{label}, MB", total)
    documents = 0
    try:
        for document, at in _sampled(pieces, share):
            documents += 1
            # The last update is always written, and there is one last only.
            progress.update(min(int(at) // MEGABYTE, total - 1), f"{documents:,} documents")
            yield document
        progress.update(total, f"{documents:,} documents")
    finally:
        progress.close()


def total_size(pieces: Sequence[Piece]) -> int:
    """About the bytes of their text, 1 at least."""
    return max(1, sum(piece.size for piece in pieces))


def _sampled(pieces: Sequence[Piece], share: float) -> Iterator[tuple[TextDocument, float]]:
    """Of each piece the documents that make up its share, each with how far all of it is, in bytes."""
    taken = 0
    goal = 0.0
    for piece in pieces:
        at, goal = goal, goal + share * piece.size
        if share < 1 and taken >= goal:  # a long document of the piece before
            continue
        for document in read_piece(piece):
            taken += document.size
            at = min(at + document.size, goal)
            yield document, at
            if share < 1 and taken >= goal:
                break


def _cut(file: SourceFile) -> list[Piece]:
    if ending_of(file.path) != PARQUET:
        packed = ending_of(file.path) in PACKED
        return [Piece(file.path, file.size * (PACKING if packed else 1), None, None, file.version)]
    with open_file(file.path, exact=True) as stream:
        sizes = row_group_sizes(stream, file.path)
    return [Piece(file.path, sum(sizes[a:b]), a, b, file.version) for a, b in _runs(sizes)]


def _runs(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Row groups start … stop-1 of about PIECE bytes, one run at least."""
    start = held = 0
    for group, size in enumerate(sizes):
        if group > start and held + size > PIECE:
            yield start, group
            start, held = group, 0
        held += size
    yield start, len(sizes)


def _check_version(piece: Piece) -> None:
    version = size_and_version(piece.file)[1]
    if version != piece.version:
        raise InputError(
            f"{piece.file}: has changed since the plan was made (version {version}, then {piece.version}); "
            "start anew with --force, or put the old file back"
        )
