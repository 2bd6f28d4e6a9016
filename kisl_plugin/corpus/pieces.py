"""The pieces that a corpus is read in: runs of a Parquet file's row groups, and other files whole."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from kisl_plugin.corpus.documents import TextDocument
from kisl_plugin.corpus.files import SourceFile
from kisl_plugin.corpus.formats import PARQUET, READERS, ending_of
from kisl_plugin.corpus.parquet import read_row_groups, row_group_sizes
from kisl_plugin.corpus.storage import is_remote, open_file, size_and_version
from kisl_plugin.errors import InputError
from kisl_plugin.progress import Progress

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
