"""From shards to the result: one .bin/.idx, or a list of weighted paths; the table and the manifest."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import yaml
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kisl_plugin.corpus.shards import Stamp, checksum, discard, is_sound, prefix_of, read_stamp, removed_of
from kisl_plugin.corpus.standing import ReadNote, merge_note_of
from kisl_plugin.corpus.statistics import Removed, read_removed, write_table
from kisl_plugin.corpus.work import MOST_PATHS, Plan, Work, not_written, the_plan
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.indexed import IndexedDataset, file_of, token_type, write_index
from kisl_plugin.matching import unsearchable
from kisl_plugin.runcard import write_atomically
from kisl_plugin.triples import read_triples

MEGABYTE = 1e6
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
    scope: str
    min_length: int
    stop_list: list[str]
    versions: dict[str, str]
    inputs: list[str]

    @classmethod
    def read(cls, path: Path) -> "Corpus":
        """The corpus of a manifest."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class MergeShards(PipelineStep):
    """Makes the result of all shards; the only task of the second stage."""

    type = "🧵 - MERGE"
    name = "shards"

    def __init__(self, work: Work, weighted: bool = False) -> None:
        super().__init__()
        self.work, self.weighted = work, weighted

    def run(self, data: Iterator[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the result, its manifest last.

        Raises:
            InputError: no document is left.
            KislError: shards are damaged, there is no room, or the result cannot be written.
        """
        plan = the_plan(self.work)
        try:
            if not self.work.manifest.exists():
                _finish(self.work, plan, self.weighted)
            shutil.rmtree(self.work.shards, ignore_errors=True)
        except OSError as error:
            raise not_written(str(self.work.output), error) from error


def _finish(work: Work, plan: Plan, weighted: bool) -> None:
    stamps = _stamps(work, plan)
    removed = _removed(work, plan)
    made = _corpus(work, plan, stamps, removed)
    (_link if weighted else _merge)(work, plan, stamps)
    if plan.filters:
        triples = read_triples(work.triples)
        reasons = {one.triple: one.reason for one in unsearchable(triples, plan.rules)}
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
        plan.rules.scope,
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
