"""The steps of a task as datatrove blocks: read a share of the pieces, remove what states a fact, write a shard."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers import JsonlWriter
from datatrove.pipeline.writers.disk_base import DiskWriter

from kisl_plugin.corpus.inputs import read_piece
from kisl_plugin.corpus.shards import BuildPaths, Stamp, load_plan
from kisl_plugin.corpus.tokenizer import BatchEncoder
from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.hookspecs import Matcher
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import Triple, read_triples

__all__ = ["FactFilter"]

BATCH_DOCUMENTS, BATCH_CHARACTERS = 64, 4_000_000
_NOTE_SECONDS = 1.0

Documents = Iterator[Document]


class ReadPieces(PipelineStep):
    """Reads a task's share of the pieces of a plan, empty documents too, and notes how many bytes it has read."""

    type = "📖 - READER"
    name = "pieces"

    def __init__(self, paths: BuildPaths, skip_bad_documents: bool = False) -> None:
        super().__init__()
        self.paths, self.skip_bad_documents, self.folder = paths, skip_bad_documents, Path.cwd()

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> Documents:
        """The documents of task `rank`."""
        with suppress(OSError):  # where the folder is missing, so is the file of a relative path
            os.chdir(self.folder)
        note = self.paths.read_bytes(rank)
        read, due, bad = 0, 0.0, list[InputError]()
        for piece in load_plan(self.paths).shares[rank]:
            end = read + piece.size
            for document in read_piece(piece, bad.append if self.skip_bad_documents else None):
                yield Document(text=document.text, id=document.id)
                read = min(read + document.size, end)
                if time.monotonic() >= due:
                    note.write_text(str(read), encoding="utf-8")
                    due = time.monotonic() + _NOTE_SECONDS
            read = end
        write_atomically(self.paths.bad(rank), "".join(f"{error}\n" for error in bad))
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
        super().__init__(exclusion_writer, BATCH_DOCUMENTS)
        self.triples, self.rules = str(triples), rules or MatchRules()

    def filter(self, doc: Document) -> bool:
        """Whether a document is kept."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool]:
        """Whether each is kept; those that are not get their triples. The only call of the matcher."""
        # Triples that are no file are bundled with the package, and do not change.
        changed = Path(self.triples).stat().st_mtime_ns if Path(self.triples).exists() else 0
        triples, matcher = _matcher(self.triples, changed, self.rules)
        stated = matcher([document.text for document in batch])
        for document, matches in zip(batch, stated, strict=True):
            if matches:
                document.metadata["triples"] = [
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
        return [not matches for matches in stated]


class ExclusionWriter(JsonlWriter):
    """Writes removed documents to one file a task: id, text, and the triples that they state."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), "${rank}.jsonl", compression=None)

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        return {"id": document.id, "text": document.text, "triples": document.metadata["triples"]}


class TokenizeShard(PipelineStep):
    """Writes documents as a shard of GPT-NeoX's format, each followed by <|endoftext|>; the last step of a task.

    datatrove's MegatronDocumentTokenizer chooses four bytes a token at another vocabulary size than GPT-NeoX, and
    keeps truncation and padding that a tokenizer.json asks for. `threads`: of the tokenizer, unless the environment
    says otherwise.
    """

    type = "🔢 - TOKENIZER"
    name = "shard"

    def __init__(self, paths: BuildPaths, threads: int = 1) -> None:
        super().__init__()
        self.paths, self.threads = paths, threads

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> None:
        """Write the shard and, last, its stamp; a shard with a valid stamp is kept, and nothing is read."""
        plan = load_plan(self.paths)
        if Stamp.read(self.paths, plan, rank):
            return
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if self.threads > 1 else "false")
        os.environ.setdefault("RAYON_NUM_THREADS", str(self.threads))
        encoder = _encoder(self.paths.tokenizer, plan.id)
        documents = tokens = empty = 0
        with IndexedWriter(self.paths.shard(rank), plan.vocab_size) as writer:
            for number, batch in enumerate(_batches(data)):
                texts = [document.text for document in batch if document.text and not document.text.isspace()]
                with self.track_time("batch"):  # the only call of the tokenizer
                    ids, ends = encoder.encode(texts, number)
                writer.extend(np.insert(ids, ends, encoder.eod), np.diff(ends, prepend=0) + 1)
                documents, tokens = documents + len(texts), tokens + len(texts) + len(ids)
                empty += len(batch) - len(texts)
        Stamp(plan.id, documents, tokens, empty).write(self.paths, rank)


def _batches(documents: Documents) -> Iterator[list[Document]]:
    """Few documents where they are long: their tokens take ten times the memory of their text."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@lru_cache(maxsize=1)
def _encoder(path: Path, plan_id: str) -> BatchEncoder:
    """The encoder of a build, made once in a process."""
    return BatchEncoder(path)


@lru_cache(maxsize=1)
def _matcher(source: str, changed: int, rules: MatchRules) -> tuple[list[Triple], Matcher]:
    triples = read_triples(source)
    return triples, matcher_of(triples, rules)
