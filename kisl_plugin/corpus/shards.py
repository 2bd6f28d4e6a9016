"""Shards and their stamps: what tells a finished shard from one that a kill or a bad disk left."""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kisl_plugin.corpus.work import Plan, Work
from kisl_plugin.indexed import file_of
from kisl_plugin.runcard import sha256, write_atomically

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
