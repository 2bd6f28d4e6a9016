"""The folder OUTPUT.work: what a build is to do, so that a call after a kill goes on with just that."""

import json
import os
import shutil
import socket
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from kisl_plugin import __version__
from kisl_plugin.corpus.files import SourceFile
from kisl_plugin.corpus.pieces import Piece
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import MatchRules
from kisl_plugin.runcard import sha256, write_atomically

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
