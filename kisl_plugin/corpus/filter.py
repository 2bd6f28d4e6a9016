"""The steps of a task as datatrove blocks: read pieces, remove what states a fact, tokenise into a shard."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers import JsonlWriter
from datatrove.pipeline.writers.disk_base import DiskWriter
from datatrove.utils.typeshelper import StatHints

from kisl_plugin.corpus import shards
from kisl_plugin.corpus.readers import read_piece
from kisl_plugin.corpus.shards import (
    ReadNote,
    Removed,
    Work,
    not_written,
    note_of,
    prefix_of,
    read_stamp,
    the_plan,
    write_stamp,
)
from kisl_plugin.files import write_atomically
from kisl_plugin.hookspecs import Match, Matcher
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import Triple, read_triples

# Batches of documents that memory holds, and texts → documents of tokens.

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_CHARACTERS = 4_000_000


class HoldsText(Protocol):
    """A document of any kind."""

    @property
    def text(self) -> str:
        """Its text."""


D = TypeVar("D", bound=HoldsText)


def batches(documents: Iterable[D], most: int) -> Iterator[list[D]]:
    """Runs of at most `most` documents, and of few where they are long."""
    batch: list[D] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document.text)
        if len(batch) >= most or held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def write_documents(texts: Sequence[str], tokenizer: "Tokenizer", eod: int, writer: IndexedWriter) -> int:
    """Append the texts, encoded without special tokens, each with its end of document; the number of tokens."""
    tokens = 0
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        ids = [*encoding.ids, eod]
        writer.add(ids)
        tokens += len(ids)
    return tokens


# The steps of a task as datatrove blocks: read pieces, remove what states a fact, tokenise into a shard.

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_DOCUMENTS = 1000

Documents = Iterator[Document]


class ReadPieces(PipelineStep):
    """Reads a task's share of the pieces that a plan names, and notes how far it is."""

    type = "📖 - READER"
    name = "pieces"

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work, self.folder = work, Path.cwd()

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> Documents:
        """The documents of task `rank`, empty ones too."""
        with suppress(OSError):  # without the folder a relative path is told not to be there
            os.chdir(self.folder)
        note = ReadNote(note_of(self.work, rank))
        for piece in the_plan(self.work).share(rank):
            for document in read_piece(piece):
                yield Document(text=document.text, id=document.id)
                note.read(piece, document.row)
            note.done(piece.size)


class FactFilter(BaseFilter):
    """Removes the documents that state one of `triples`, a source of `read_triples`; for any datatrove pipeline.

    A removed document gets `metadata["triples"]`, a list of {triple (its index), subject, relation_id, object,
    subject_span, object_span, rule}, spans being character offsets into its text, and goes to `exclusion_writer`.
    `counts`, a folder, gets a file for each task: how many documents were removed, by triple and by relation.
    The triples are read once in each process, and their matcher is never pickled.
    """

    name = "🔎 facts under test"

    def __init__(
        self,
        triples: Path | str,
        rules: MatchRules | None = None,
        exclusion_writer: DiskWriter | None = None,
        counts: Path | None = None,
        batch_size: int = BATCH_DOCUMENTS,
    ) -> None:
        super().__init__(exclusion_writer, batch_size)
        self.triples, self.rules, self.counts = str(triples), rules or MatchRules(), counts

    def filter(self, doc: Document) -> bool:
        """Whether a document is kept."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool]:
        """Whether each is kept; those that are not get their triples."""
        triples, matcher = _facts(self.triples, _changed(self.triples), self.rules)
        found = matcher([document.text for document in batch])
        for document, matches in zip(batch, found, strict=True):
            if matches:
                document.metadata["triples"] = [_stated(match, triples[match.triple]) for match in matches]
        return [not matches for matches in found]

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        """The documents that state nothing, in batches that memory holds.

        Raises:
            KislError: the removed documents cannot be written.
        """
        removed = Removed()
        try:
            with self.exclusion_writer or nullcontext():
                for batch in batches(data, self.batch_size):
                    with self.track_time("batch"):
                        kept = self.filter_batch(batch)
                    self._remove([one for one, stays in zip(batch, kept, strict=True) if not stays], removed, rank)
                    self.stat_update(StatHints.forwarded, value=sum(kept), unit="batch")
                    yield from (one for one, stays in zip(batch, kept, strict=True) if stays)
            if self.counts:
                self.counts.mkdir(parents=True, exist_ok=True)
                write_atomically(self.counts / f"{rank:05d}.removed.json", removed.to_json())
        except OSError as error:
            raise not_written("the removed documents", error) from error

    def _remove(self, documents: Sequence[Document], removed: Removed, rank: int) -> None:
        self.stat_update(StatHints.dropped, value=len(documents), unit="batch")
        for document in documents:
            stated = document.metadata["triples"]
            removed.count((one["triple"] for one in stated), (one["relation_id"] for one in stated))
            if self.exclusion_writer:
                self.exclusion_writer.write(document, rank)


class Exclusions(JsonlWriter):
    """Writes removed documents to a file a task: id, text, and the triples that they state."""

    name = "🐿 Exclusions"

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), "${rank}.jsonl", compression=None)

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        return {"id": document.id, "text": document.text, "triples": document.metadata["triples"]}


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
                shards.finish(self.work, plan, self.weighted)
            shutil.rmtree(self.work.shards, ignore_errors=True)
        except OSError as error:
            raise not_written(str(self.work.output), error) from error


class TokenizeShard(PipelineStep):
    """Tokenises documents into a shard of GPT-NeoX's format, each with its end; the last step of a task.

    `threads` of the tokenizers library work at once, unless the environment says otherwise.
    """

    type = "🔢 - TOKENIZER"
    name = "shard"

    def __init__(self, work: Work, threads: int = 1) -> None:
        super().__init__()
        self.work, self.threads = work, threads

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> None:
        """Write the shard and its stamp; nothing is read where it is finished already.

        Raises:
            KislError: it cannot be written.
        """
        plan = the_plan(self.work)
        if read_stamp(self.work, plan, rank):
            return
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if self.threads > 1 else "false")
        os.environ.setdefault("RAYON_NUM_THREADS", str(self.threads))
        encoder, eod = _tokenizer(str(self.work.tokenizer), _changed(str(self.work.tokenizer)))
        try:
            with IndexedWriter(prefix_of(self.work, rank), plan.vocab_size) as writer:
                documents, tokens, empty = self._write(data, encoder, eod, writer)
            write_stamp(self.work, plan, rank, documents, tokens, empty)
        except OSError as error:
            raise not_written(str(prefix_of(self.work, rank)), error) from error

    def _write(self, data: Documents, encoder: "Tokenizer", eod: int, writer: IndexedWriter) -> tuple[int, int, int]:
        documents = tokens = empty = 0
        for batch in batches(data, BATCH_DOCUMENTS):
            texts = [document.text for document in batch if document.text and not document.text.isspace()]
            with self.track_time("batch"):
                written = write_documents(texts, encoder, eod, writer)
            documents, tokens, empty = documents + len(texts), tokens + written, empty + len(batch) - len(texts)
            self.stat_update("tokens", value=written, unit="batch")
        return documents, tokens, empty


def _changed(path: str) -> int:
    """When a file was changed; 0 for the name of triples that come from elsewhere."""
    return Path(path).stat().st_mtime_ns if Path(path).exists() else 0


@lru_cache(maxsize=1)
def _facts(source: str, changed: int, rules: MatchRules) -> tuple[list[Triple], Matcher]:
    triples = read_triples(source)
    return triples, matcher_of(triples, rules)


@lru_cache(maxsize=1)
def _tokenizer(path: str, changed: int) -> "tuple[Tokenizer, int]":
    return read_tokenizer(Path(path))


def _stated(match: Match, triple: Triple) -> dict[str, Any]:
    return {
        "triple": match.triple,
        "subject": triple.subject,
        "relation_id": triple.relation_id,
        "object": triple.object,
        "subject_span": match.subject,
        "object_span": match.object,
        "rule": match.rule,
    }
