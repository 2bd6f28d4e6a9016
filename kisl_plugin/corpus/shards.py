"""Shards and their stamps: what tells a finished shard from one that a kill or a bad disk left."""

import csv
import io
import json
import os
import shutil
import socket
import sys
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import yaml

from kisl_plugin import __version__
from kisl_plugin.corpus.readers import Piece, SourceFile
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import no_formula, sha256, write_atomically
from kisl_plugin.indexed import IndexedDataset, file_of, token_type, write_index
from kisl_plugin.matching import MatchRules, unsearchable
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple, read_triples

# What was removed: counted by triple and by relation, written as a table.

COLUMNS = ("triple", "subject", "relation_id", "object", "group", "removed", "unsearchable")


@dataclass
class Removed:
    """How many documents were removed, by triple (its index) and by relation; a document may state several."""

    documents: int = 0
    triples: Counter[int] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)

    def count(self, triples: Iterable[int], relations: Iterable[str]) -> None:
        """Count one document that states these."""
        self.documents += 1
        self.triples.update(set(triples))
        self.relations.update(set(relations))

    def add(self, other: "Removed") -> None:
        """Count the documents of another share too."""
        self.documents += other.documents
        self.triples.update(other.triples)
        self.relations.update(other.relations)

    def to_json(self) -> str:
        """As `read_removed` reads it."""
        return json.dumps({
            "documents": self.documents,
            "triples": sorted(self.triples.items()),
            "relations": dict(sorted(self.relations.items())),
        })  # fmt: skip


def read_removed(path: Path) -> Removed:
    """The counts of a file."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return Removed(values["documents"], Counter(dict(values["triples"])), Counter(values["relations"]))


def write_table(path: Path, triples: Sequence[Triple], removed: Removed, unsearchable: Mapping[int, str]) -> None:
    """A CSV with a row for each triple: the documents that state it, and why it cannot be searched, if so."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for index, triple in enumerate(triples):
        labels = map(no_formula, (triple.subject, triple.relation_id, triple.object, triple.group))
        rows.writerow((index, *labels, removed.triples[index], unsearchable.get(index, "")))
    write_atomically(path, table.getvalue())


def first_unsearchable(path: Path, count: int) -> list[str]:
    """The first `count` triples of a table that cannot be searched, each with the reason."""
    with path.open(encoding="utf-8", newline="") as stream:
        found = (row for row in csv.DictReader(stream) if row["unsearchable"])
        return [
            f"{row['subject']} · {row['relation_id']} · {row['object']}: {row['unsearchable']}"
            for row in islice(found, count)
        ]


# The folder OUTPUT.work: what a build is to do, so that a call after a kill goes on with just that.

SCHEMA = 1
LOCK = "lock"
NO_TRIPLES = "none"
MOST_PATHS = 254  # that GPT-NeoX blends


@dataclass(frozen=True)
class Work:
    """Where the parts of a build of `output` lie."""

    output: Path

    @property
    def folder(self) -> Path:
        """Everything that is gone when the build is done."""
        return file_of(self.output, ".work")

    @property
    def plan(self) -> Path:
        """The plan; where it stands, the triples and the tokenizer stand too."""
        return self.folder / "plan.json"

    @property
    def triples(self) -> Path:
        """The triples as they were when the build began."""
        return self.folder / "triples.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer as it was when the build began."""
        return self.folder / "tokenizer.json"

    @property
    def shards(self) -> Path:
        """A shard for each task: .bin, .idx, the counts of what was removed, and the stamp."""
        return self.folder / "shards"

    @property
    def notes(self) -> Path:
        """How many bytes each task has read."""
        return self.folder / "read"

    @property
    def damaged(self) -> Path:
        """Is there when shards were found damaged on the disk; they are made again."""
        return self.folder / "damaged"

    @property
    def excluded(self) -> Path:
        """The removed documents, a file a task."""
        return file_of(self.output, ".excluded")

    @property
    def manifest(self) -> Path:
        """What was made; written last."""
        return file_of(self.output, ".json")


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of the result, and how the work is cut into tasks."""

    files: tuple[SourceFile, ...]
    pieces: tuple[Piece, ...]
    tasks: int
    triples: str
    triples_sha256: str
    rules: MatchRules
    tokenizer: str
    tokenizer_sha256: str
    vocab_size: int
    versions: Mapping[str, str]

    def share(self, rank: int) -> Sequence[Piece]:
        """The pieces of a task: shares of all tasks one after another are all pieces in their order."""
        start, stop = self._cuts[rank]
        return self.pieces[start:stop]

    @property
    def filters(self) -> bool:
        """Whether documents are removed at all."""
        return self.triples != NO_TRIPLES

    @cached_property
    def _cuts(self) -> list[tuple[int, int]]:
        """Runs of pieces of about the same size, none of them empty."""
        cuts, start, left = [], 0, sum(piece.size for piece in self.pieces)
        for tasks in range(self.tasks, 0, -1):
            stop, held = start + 1, self.pieces[start].size
            while len(self.pieces) - stop >= tasks and held + self.pieces[stop].size / 2 <= left / tasks:
                held += self.pieces[stop].size
                stop += 1
            if tasks == 1:
                stop = len(self.pieces)
            cuts.append((start, stop))
            start, left = stop, left - held
        return cuts

    def to_json(self) -> str:
        """The plan as plan.json holds it."""
        values = {"schema": SCHEMA, "sha256": self.digest, **asdict(self)}
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    @cached_property
    def digest(self) -> str:
        """A stamp names its plan by this, and a plan that is no longer as it was written is found by it."""
        return sha256(json.dumps(asdict(self)))


def plan_of(values: Mapping[str, Any]) -> Plan:
    """The plan that plan.json's `values` are."""
    kept = {key: value for key, value in values.items() if key not in ("schema", "sha256")}
    rules = {**kept["rules"], "stop_list": tuple(kept["rules"]["stop_list"])}
    return Plan(
        **{
            **kept,
            "files": tuple(SourceFile(**file) for file in kept["files"]),
            "pieces": tuple(map(Piece.from_dict, kept["pieces"])),
            "rules": MatchRules(**rules),
        }
    )


def read_plan(work: Work) -> Plan | None:
    """The plan of a build that was begun; None where there is none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        values = json.loads(work.plan.read_text(encoding="utf-8"))
        plan = plan_of(values)
        if plan.digest != values["sha256"]:
            raise ValueError("it is not as it was written")
        return plan
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{work.plan}: cannot be read ({type(error).__name__}: {error}); --force starts the build anew"
        ) from None


def the_plan(work: Work) -> Plan:
    """The plan that a task works by.

    Raises:
        KislError: it is gone.
    """
    plan = read_plan(work)
    if plan is None:
        raise KislError(f"{work.plan}: is gone; was the build started anew, or its folder deleted?")
    return plan


def write_plan(work: Work, plan: Plan, triples_jsonl: str, tokenizer_json: str) -> None:
    """Begin a build: the plan is written last, and as a whole."""
    for folder in (work.shards, work.notes):
        folder.mkdir(parents=True, exist_ok=True)
    write_sources(work, triples_jsonl, tokenizer_json)
    write_atomically(work.plan, plan.to_json())


def write_sources(work: Work, triples_jsonl: str, tokenizer_json: str) -> None:
    """What tasks read beside the texts; a call that goes on writes it anew, whatever became of it on the disk."""
    write_atomically(work.triples, triples_jsonl)
    write_atomically(work.tokenizer, tokenizer_json)


def difference(old: Plan, new: Plan) -> tuple[str, object, object] | None:
    """What decides the bytes and is not the same, with both values; None if nothing is."""
    pairs: list[tuple[str, object, object]] = [
        (f"{name} version", old.versions.get(name), new.versions.get(name)) for name in new.versions
    ]
    pairs += [
        *_differing_files(old.files, new.files),
        ("--triples", f"{old.triples} ({old.triples_sha256[:12]})", f"{new.triples} ({new.triples_sha256[:12]})"),
        ("--tokenizer", old.tokenizer_sha256[:12], new.tokenizer_sha256[:12]),
        *((f"--{key.replace('_', '-')}", value, asdict(new.rules)[key]) for key, value in asdict(old.rules).items()),
    ]
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _differing_files(old: Sequence[SourceFile], new: Sequence[SourceFile]) -> Iterator[tuple[str, object, object]]:
    for before, now in zip(old, new, strict=False):
        if before.path != now.path:
            yield "--input", before.path, now.path
        if before.version != now.version:
            yield f"the version of {before.path}", before.version, now.version
    yield "--input", f"{len(old)} files", f"{len(new)} files"


def versions() -> dict[str, str]:
    """The releases that decide which documents are removed and which tokens the others become."""
    try:
        tokenizers = version("tokenizers")
    except PackageNotFoundError:  # reading the tokenizer says what to install
        tokenizers = ""
    return {"kisl-plugin": __version__, "tokenizers": tokenizers, "Unicode": unicodedata.unidata_version}


@contextmanager
def claimed(work: Work) -> Iterator[None]:
    """Keep other builds out of the folder while this one works in it; where a file system has no locks, hope.

    Raises:
        KislError: another build is at work there, or the folder cannot be written.
    """
    import fcntl

    with _lock(work) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise KislError(
                f"{work.output}: another build is at work there ({stream.read().strip() or 'starting'}); wait for it"
            ) from None
        except OSError:
            pass
        if not _is_there(work, stream):
            raise KislError(f"{work.output}: another build has just ended there; call again")
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        try:
            yield
        finally:
            if work.folder.exists() and not work.plan.exists():
                remove(work)


def _lock(work: Work) -> TextIO:
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        return (work.folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise KislError(f"{work.output}: cannot be written ({error.strerror or error})") from None


def _is_there(work: Work, stream: TextIO) -> bool:
    """Whether the lock is still the folder's: a build that ends takes its folder away."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), (work.folder / LOCK).stat())
    except FileNotFoundError:
        return False


def empty(work: Work) -> None:
    """Take away what the folder holds but its lock; the plan last, since without it there is nothing to go on with."""
    for path in work.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, work.plan.name):
            path.unlink()
    work.plan.unlink(missing_ok=True)


def remove(work: Work) -> None:
    """Take the folder away."""
    empty(work)
    (work.folder / LOCK).unlink(missing_ok=True)
    work.folder.rmdir()


def not_written(what: str, error: OSError) -> KislError:
    """The error of a full disk, and of others; what is finished stays."""
    return KislError(
        f"{what}: cannot be written ({error.strerror or error}); mend that, and the same command without --force goes "
        "on from here"
    )


# How far a build has come: its tasks note what they have read, and the caller shows the sum.

MEGABYTE = 1_000_000
NOTE_SECONDS = 1.0


class ReadNote:
    """A file that says how many bytes (as pieces count them) a task has done; rewritten now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._read = 0
        self._due = 0.0

    def read(self, piece: Piece, size: int) -> None:
        """`size` bytes more were read of `piece`."""
        self._read += size
        if time.monotonic() >= self._due:
            self._write(self._before + min(piece.size, self._read))

    def done(self, size: int) -> None:
        """That much is done for good."""
        self._before, self._read = self._before + size, 0
        self._write(self._before)

    def _write(self, size: int) -> None:
        self._due = time.monotonic() + NOTE_SECONDS
        with suppress(OSError):  # a full disk is told by what must be written
            self._path.write_text(str(size), encoding="utf-8")


def note_of(work: Work, rank: int) -> Path:
    """Where a task notes what it has read."""
    return work.notes / f"{rank:05d}"


def merge_note_of(work: Work) -> Path:
    """Where the merge notes what it has copied."""
    return work.notes / "merge"


class BuildProgress:
    """Shows, each time it is called, the sum of the tasks' notes, and then the merge's."""

    def __init__(self, work: Work, plan: Plan) -> None:
        self._work, self._tasks = work, plan.tasks
        self._total = sum(piece.size for piece in plan.pieces)
        # While tasks run sys.stderr is a log file.
        self._stream = sys.stderr
        self._reading = self._progress("building the corpus", self._total)
        self._merging: Progress | None = None
        self._all_read = False
        self._before = self.read()

    def __call__(self) -> None:
        """Show how far it is."""
        copied = _size_in(merge_note_of(self._work))
        if not self._all_read:
            # The merge comes after all tasks, and takes their stamps away.
            self._show_reading(self._tasks if copied else self._finished())
        if copied and self._merging is None:
            self._merging = self._progress("merging the shards", shards_size(self._work))
        if copied and self._merging:
            # The last update is always written, and there is one last only.
            self._merging.update(min(copied // MEGABYTE, self._merging.total - 1))

    def finish(self) -> None:
        """Show that all is done, which may have been between two looks."""
        if not self._all_read:
            self._show_reading(self._tasks)

    def read(self) -> int:
        """Bytes that the tasks have done, as pieces count them."""
        return sum(_size_in(note_of(self._work, rank)) for rank in range(self._tasks))

    def line(self) -> str:
        """How far it is, at once."""
        return f"{self.read() // MEGABYTE:,} of {self._total // MEGABYTE:,} MB of text read"

    def fresh(self) -> int:
        """Bytes of text that were read since this began."""
        return self.read() - self._before

    def close(self) -> None:
        """End the line."""
        (self._merging or self._reading).close()

    def _finished(self) -> int:
        return sum(1 for _ in self._work.shards.glob("[0-9]*[0-9].json"))

    def _show_reading(self, finished: int) -> None:
        self._all_read = finished == self._tasks
        last = self._reading.total - 1
        done = last + 1 if self._all_read else min(self.read() // MEGABYTE, last)
        self._reading.update(done, f"{finished:,} of {self._tasks:,} tasks done")
        if self._all_read:
            self._reading.close()

    def _progress(self, label: str, size: int) -> Progress:
        return Progress(f"{label}, MB", max(1, size // MEGABYTE), stream=self._stream)


def shards_size(work: Work) -> int:
    """Bytes of all tokens in the shards."""
    return sum(path.stat().st_size for path in work.shards.glob("*.bin"))


def _size_in(note: Path) -> int:
    try:
        return int(note.read_text(encoding="utf-8") or 0)
    except (OSError, ValueError):
        return 0


# Shards and their stamps: what tells a finished shard from one that a kill or a bad disk left.

BLOCK = 8 << 20


@dataclass(frozen=True)
class Stamp:
    """Of a finished shard; `files` maps each file's path from OUTPUT's folder to its size and CRC-32.

    `tokens` counts the ends of documents too.
    """

    plan: str
    documents: int
    tokens: int
    empty: int
    files: dict[str, tuple[int, int]]


def prefix_of(work: Work, rank: int) -> Path:
    """A shard's files without their endings."""
    return work.shards / f"{rank:05d}"


def removed_of(work: Work, rank: int) -> Path:
    """The counts of what a task removed."""
    return file_of(prefix_of(work, rank), ".removed.json")


def excluded_of(work: Work, rank: int) -> Path:
    """The documents that a task removed; none where it removed none."""
    return work.excluded / f"{rank:05d}.jsonl"


def write_stamp(work: Work, plan: Plan, rank: int, documents: int, tokens: int, empty: int) -> None:
    """Say that a shard is finished."""
    prefix = prefix_of(work, rank)
    files = [file_of(prefix, ".bin"), file_of(prefix, ".idx"), removed_of(work, rank), excluded_of(work, rank)]
    seen = {
        path.relative_to(work.output.parent).as_posix(): (path.stat().st_size, checksum(path))
        for path in files
        if path.exists()
    }
    stamp = Stamp(plan.digest, documents, tokens, empty, seen)
    write_atomically(_stamp(work, rank), json.dumps({"sha256": _digest(stamp), **asdict(stamp)}) + "\n")


def read_stamp(work: Work, plan: Plan, rank: int) -> Stamp | None:
    """The stamp of a shard whose files have the sizes that it names; None where the shard is to be made."""
    try:
        values = json.loads(_stamp(work, rank).read_text(encoding="utf-8"))
        digest = values.pop("sha256")
        stamp = Stamp(**{**values, "files": {name: (size, crc) for name, (size, crc) in values["files"].items()}})
        sizes = {name: (work.output.parent / name).stat().st_size for name in stamp.files}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    fits = (stamp.plan, _digest(stamp)) == (plan.digest, digest) and all(
        sizes[name] == size for name, (size, _) in stamp.files.items()
    )
    return stamp if fits else None


def is_sound(work: Work, stamp: Stamp, known: Mapping[Path, int] | None = None) -> bool:
    """Whether every byte of a shard is as it was written. Reads the files whose checksum is not `known`."""
    seen = known or {}
    paths = {work.output.parent / name: crc for name, (_, crc) in stamp.files.items()}
    return all((seen[path] if path in seen else checksum(path)) == crc for path, crc in paths.items())


def holds_nothing(work: Work, plan: Plan) -> bool:
    """Whether no finished shard keeps a document, so that nothing is lost without them."""
    stamps = (read_stamp(work, plan, rank) for rank in range(plan.tasks))
    return not any(stamp.documents for stamp in stamps if stamp)


def discard(work: Work, rank: int) -> None:
    """Have a shard made again."""
    _stamp(work, rank).unlink(missing_ok=True)


def checksum(path: Path, told: Callable[[bytes], object] = lambda _: None) -> int:
    """The CRC-32 of a file; `told` gets its blocks as they are read."""
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            crc = zlib.crc32(block, crc)
            told(block)
    return crc


def _digest(stamp: Stamp) -> str:
    """What tells that a stamp's own numbers are as they were written."""
    return sha256(json.dumps(asdict(stamp)))


def _stamp(work: Work, rank: int) -> Path:
    return file_of(prefix_of(work, rank), ".json")


# From shards to the result: one .bin/.idx, or a list of weighted paths; the table and the manifest.

WEIGHTED = """\
# To be put in the place of data_path and split. Weights are the shards' tokens; the last shard (of several) is held
# out, since GPT-NeoX wants paths for validation and test too.
"""


@dataclass(frozen=True)
class Corpus:
    """What a build made, as OUTPUT.json holds it; the same whatever the number of tasks and workers.

    `tokens` counts the end-of-document tokens too. `left_out` documents state a triple, by `relations` (a document may
    state triples of several); `empty` ones hold nothing but white space. `unsearchable` triples could not be looked
    for: OUTPUT.triples.csv tells why.
    """

    documents: int
    tokens: int
    left_out: int
    empty: int
    relations: dict[str, int]
    unsearchable: int
    vocab_size: int
    tokenizer: str
    tokenizer_sha256: str
    triples: str
    triples_sha256: str
    match: str
    min_length: int
    stop_list: list[str]
    versions: dict[str, str]
    inputs: list[str]

    @classmethod
    def read(cls, path: Path) -> "Corpus":
        """The corpus of a manifest."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def finish(work: Work, plan: Plan, weighted: bool) -> None:
    """Make the result of all shards, its manifest last."""
    stamps = _stamps(work, plan)
    removed = _removed(work, plan)
    made = _corpus(work, plan, stamps, removed)
    (_link if weighted else _merge)(work, plan, stamps)
    if plan.filters:
        triples = read_triples(work.triples)
        reasons = unsearchable(triples, plan.rules)
        write_table(file_of(work.output, ".triples.csv"), triples, removed, reasons)
    write_atomically(work.manifest, json.dumps(asdict(made), indent=2, ensure_ascii=False) + "\n")


def _stamps(work: Work, plan: Plan) -> list[Stamp]:
    found = [read_stamp(work, plan, rank) for rank in range(plan.tasks)]
    refuse_damaged(work, [rank for rank, stamp in enumerate(found) if stamp is None])
    return [stamp for stamp in found if stamp]


def _removed(work: Work, plan: Plan) -> Removed:
    total, unreadable = Removed(), []
    for rank in range(plan.tasks) if plan.filters else ():
        try:
            total.add(read_removed(removed_of(work, rank)))
        except (ValueError, KeyError, TypeError):
            unreadable.append(rank)
    refuse_damaged(work, unreadable)
    return total


def refuse_damaged(work: Work, ranks: Sequence[int]) -> None:
    """Have shards made again that are not as they were written.

    Raises:
        KislError: there are such.
    """
    if ranks:
        for rank in ranks:
            discard(work, rank)
        work.damaged.touch()
        listed = ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")
        raise KislError(f"{work.shards}: shards {listed} are damaged on the disk; the same command makes them again")


def _corpus(work: Work, plan: Plan, stamps: Sequence[Stamp], removed: Removed) -> Corpus:
    documents = sum(stamp.documents for stamp in stamps)
    empty = sum(stamp.empty for stamp in stamps)
    if not documents:
        raise InputError(
            f"{work.output}: no document is left: {removed.documents:,} state a triple, {empty:,} are empty; a .txt "
            "file is one document, a .jsonl file has one a line"
        )
    triples = read_triples(work.triples) if plan.filters else []
    return Corpus(
        documents,
        sum(stamp.tokens for stamp in stamps),
        removed.documents,
        empty,
        dict(sorted(removed.relations.items())),
        len(unsearchable(triples, plan.rules)),
        plan.vocab_size,
        plan.tokenizer,
        plan.tokenizer_sha256,
        plan.triples,
        plan.triples_sha256,
        plan.rules.match,
        plan.rules.min_length,
        list(plan.rules.stop_list),
        dict(plan.versions),
        [file.path for file in plan.files],
    )


def _merge(work: Work, plan: Plan, stamps: Sequence[Stamp]) -> None:
    _check_room(work, stamps)
    data, index = file_of(work.output, ".bin.part"), file_of(work.output, ".idx.part")
    note = ReadNote(merge_note_of(work))
    with data.open("wb") as stream:
        damaged = [rank for rank, stamp in enumerate(stamps) if not _is_copied(work, rank, stamp, stream, note)]
        stream.flush()
        os.fsync(stream.fileno())
    if damaged:
        data.unlink()
        refuse_damaged(work, damaged)
    sizes = [IndexedDataset(prefix_of(work, rank)).sizes for rank in range(plan.tasks)]
    write_index(index, token_type(plan.vocab_size), sizes)
    # The index last: where it stands, so do all its documents.
    data.replace(file_of(work.output, ".bin"))
    index.replace(file_of(work.output, ".idx"))


def _is_copied(work: Work, rank: int, stamp: Stamp, target: BinaryIO, note: ReadNote) -> bool:
    """Append a shard's tokens; False where a file of the shard is not what was written."""
    tokens = file_of(prefix_of(work, rank), ".bin")

    def take(block: bytes) -> None:
        target.write(block)
        note.done(len(block))

    crc = checksum(tokens, take)
    return is_sound(work, stamp, {tokens: crc})


def _check_room(work: Work, stamps: Sequence[Stamp]) -> None:
    needed = sum(size for stamp in stamps for name, (size, _) in stamp.files.items() if name.endswith((".bin", ".idx")))
    free = shutil.disk_usage(work.output.parent).free
    if free < needed:
        raise KislError(
            f"{work.output}.bin: the merge needs {needed / MEGABYTE:,.1f} MB beside the shards, "
            f"{free / MEGABYTE:,.1f} MB are free; make room and call the same command again, or add --weighted, which "
            "needs none"
        )


def _link(work: Work, plan: Plan, stamps: Sequence[Stamp]) -> None:
    """The shards as they are, and the lines of a YAML that trains on them."""
    refuse_damaged(work, [rank for rank, stamp in enumerate(stamps) if not is_sound(work, stamp)])
    tokens = {rank: stamp.tokens for rank, stamp in enumerate(stamps) if stamp.documents}
    if len(tokens) > MOST_PATHS + 1:
        raise KislError(
            f"{work.output}: {len(tokens)} shards, and GPT-NeoX blends at most {MOST_PATHS} paths; call again without "
            f"--weighted to merge them, or with --tasks {MOST_PATHS} --force to begin anew"
        )
    prefixes = {rank: work.output.with_name(f"{work.output.name}_{rank:05d}") for rank in tokens}
    for rank, prefix in prefixes.items():
        for ending in (".bin", ".idx"):
            _put(file_of(prefix_of(work, rank), ending), file_of(prefix, ending))
    *train, held_out = tokens if len(tokens) > 1 else [*tokens] * 2
    lines = {
        "train_data_paths": [str(prefixes[rank]) for rank in train],
        "train_data_weights": [tokens[rank] for rank in train],
        "valid_data_paths": [str(prefixes[held_out])],
        "test_data_paths": [str(prefixes[held_out])],
    }
    write_atomically(file_of(work.output, ".yml"), WEIGHTED + yaml.safe_dump(lines, sort_keys=False))


def _put(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # no links on this file system; a build that is killed now makes this shard again
        source.replace(target)
