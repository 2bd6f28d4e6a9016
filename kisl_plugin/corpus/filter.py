"""The work of a task, from its pieces to a shard; and the filter as a step of datatrove, for any pipeline."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers.disk_base import DiskWriter

from kisl_plugin.corpus.inputs import Piece, TextDocument, read_piece
from kisl_plugin.corpus.shards import BuildPaths, Stamp, load_plan
from kisl_plugin.corpus.tokenizer import BatchEncoder
from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import read_triples

__all__ = ["FactFilter", "make_shard"]

BATCH_DOCUMENTS, BATCH_CHARACTERS = 1024, 1 << 20
_FIRST_DOCUMENTS = 16  # of a task: its first batch is encoded by both libraries
_FILTERED_TOGETHER = 256  # documents, of any size
_NOTE_SECONDS = 1.0


def make_shard(
    paths: BuildPaths, threads: int, skip_bad_documents: bool, folder: Path, _: object, rank: int, *__: object
) -> None:
    """Make the shard of task `rank`: read its pieces, remove what states a fact, and tokenise the other documents.

    Each document of the shard is followed by <|endoftext|>; the removed ones are written beside it, and the stamp last.
    A shard with a valid stamp is kept, and nothing is read.

    It is a whole pipeline of datatrove: between steps documents pass one by one, with statistics that take as long as
    the tokenizer. datatrove passes the last three arguments.

    `threads`: of the tokenizer, unless the environment says otherwise. `folder`: where relative paths of inputs begin.
    """
    with suppress(OSError):  # where the folder is missing, so is the file of a relative path
        os.chdir(folder)
    plan = load_plan(paths)
    if Stamp.read(paths, plan, rank):
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    encoder = encoder_of(paths.tokenizer, plan.id)
    removed = paths.removed(rank)
    removed.unlink(missing_ok=True)
    documents = tokens = empty = 0
    bad: list[InputError] = []
    batches = _batches(plan.shares[rank], paths.read_bytes(rank), bad.append if skip_bad_documents else None)
    with IndexedWriter(paths.shard(rank), plan.vocab_size) as writer:
        for number, batch in enumerate(batches):
            texts = [document.text for document in batch]
            if plan.filters:
                facts = _facts_of(paths.triples, plan.rules)(texts)
                rows = (
                    {"id": document.id, "text": document.text, "triples": stated}
                    for document, stated in zip(batch, facts, strict=True)
                    if stated
                )
                if lines := b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows):
                    removed.parent.mkdir(exist_ok=True)
                    with removed.open("ab") as stream:
                        stream.write(lines)
                texts = [text for text, stated in zip(texts, facts, strict=True) if not stated]
            kept = [text for text in texts if text and not text.isspace()]
            ids, ends = encoder.encode(kept, number)
            writer.extend(ids, ends, encoder.eod)
            documents, tokens = documents + len(kept), tokens + len(kept) + len(ids)
            empty += len(texts) - len(kept)
    write_atomically(paths.bad(rank), "".join(f"{error}\n" for error in bad))
    Stamp(plan.id, documents, tokens, empty).write(paths, rank)


def _batches(
    share: Sequence[Piece], note: Path, note_bad: Callable[[InputError], object] | None
) -> Iterator[list[TextDocument]]:
    """The documents of a share; how many bytes have been read is written to the file `note`."""
    read, due = 0, 0.0
    batch, characters, most = list[TextDocument](), 0, min(_FIRST_DOCUMENTS, BATCH_DOCUMENTS)
    for piece in share:
        end = read + piece.size
        for document in read_piece(piece, note_bad):
            batch.append(document)
            characters += len(document.text)
            read = min(read + document.size, end)
            if len(batch) == most or characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters, most = [], 0, BATCH_DOCUMENTS
                if time.monotonic() >= due:
                    note.write_text(str(read), encoding="utf-8")
                    due = time.monotonic() + _NOTE_SECONDS
        read = end
    if batch:
        yield batch
    note.write_text(str(read), encoding="utf-8")


class FactFilter(BaseFilter):
    """Removes the documents that state one of `triples`, a source of `read_triples`; for any datatrove pipeline.

    A removed document gets `metadata["triples"]`, a list of {triple (its index), subject, relation_id, object,
    subject_span, object_span, rule}, spans being character offsets into its text, and goes to `exclusion_writer`.
    Each process reads the triples once; their matcher is never pickled.
    """

    name = "🔎 facts under test"

    def __init__(
        self,
        triples: Path | str,
        rules: MatchRules | None = None,
        exclusion_writer: DiskWriter | None = None,
    ) -> None:
        super().__init__(exclusion_writer, _FILTERED_TOGETHER)
        self.triples, self.rules = triples, rules or MatchRules()

    def filter(self, doc: Document) -> bool:
        """Whether a document is kept."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool]:
        """Whether each is kept; those that are not get their triples."""
        facts = _facts_of(self.triples, self.rules)([document.text for document in batch])
        for document, stated in zip(batch, facts, strict=True):
            if stated:
                document.metadata["triples"] = stated
        return [not stated for stated in facts]


_Facts = Callable[[Sequence[str]], list[list[dict[str, Any]]]]
"""For each text the triples that it states, as they are written with a removed document."""


def _facts_of(triples: Path | str, rules: MatchRules) -> _Facts:
    # Triples that are no file are bundled with the package, and do not change.
    path = Path(triples)
    return _cached_facts(str(triples), path.stat().st_mtime_ns if path.exists() else 0, rules)


@lru_cache(maxsize=1)
def _cached_facts(source: str, changed: int, rules: MatchRules) -> _Facts:
    triples = read_triples(source)
    matcher = matcher_of(triples, rules)

    def facts(texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        return [
            [
                {
                    "triple": match.triple,
                    "subject": triples[match.triple].subject,
                    "relation_id": triples[match.triple].relation_id,
                    "object": triples[match.triple].object,
                    "subject_span": match.subject,
                    "object_span": match.object,
                    "rule": match.rule,
                }
                for match in matches
            ]
            for matches in matcher(texts)
        ]

    return facts


@lru_cache(maxsize=1)
def encoder_of(path: Path, plan_id: str) -> BatchEncoder:
    """The encoder of a build, made once in a process."""
    return BatchEncoder(path)
