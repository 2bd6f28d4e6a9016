"""The audit's tasks: each counts its share of the documents and leaves its counts in the working folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from kisl_plugin.corpus.audit_counting import Counts, DocumentCounter, Searches
from kisl_plugin.corpus.audit_reading import Corpora, Share
from kisl_plugin.corpus.executors import Stage
from kisl_plugin.corpus.executors.local import LocalRunner
from kisl_plugin.matching import MatchRules
from kisl_plugin.progress import Progress
from kisl_plugin.tokenizer import read_tokenizer
from kisl_plugin.triples import read_triples

ARRAYS = ("statement_documents", "statement_occurrences", "match_documents")
NUMBERS = ("documents", "tokens", "long_documents")


@dataclass(frozen=True)
class Work:
    """What all tasks need to know: `looked` of `total` documents are looked at; `triples` is a file in `folder`."""

    folder: Path
    prefixes: tuple[Path, ...]
    tokenizer: Path
    triples: Path
    forms: tuple[str, ...]
    rules: MatchRules
    total: int
    looked: int
    workers: int


class CountDocuments(PipelineStep):
    """A task's whole pipeline: no documents come into it, none go out."""

    name = "count documents"
    type = "kisl"

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Count share `rank` of `world_size`."""
        yield from data or ()
        work = self._work
        if work.workers > 1:  # else each would decode with as many threads as there are cores
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        corpora, searches = _opened(work)
        counter = DocumentCounter(searches)
        tokens = corpora.count_into(counter, Share(work.total, work.looked, rank, world_size).documents())
        _save(work.folder, rank, counter.counts(tokens))


def run_tasks(work: Work, tasks: int) -> Counts:
    """Count all shares, with progress; the sum is the same for any number of tasks.

    Raises:
        KislError: a task failed.
    """
    stage = Stage("audit", [CountDocuments(work)], tasks, work.folder / "audit")
    progress = Progress("auditing, documents", work.looked)
    try:
        LocalRunner(work.workers).run([stage], lambda: progress.update(work.looked * stage.done() // tasks))
    finally:
        progress.close()
        _opened.cache_clear()
    counts = [_load(work.folder, rank) for rank in range(tasks)]
    return sum(counts[1:], start=counts[0])


@lru_cache(maxsize=1)
def _opened(work: Work) -> tuple[Corpora, Searches]:
    """Opened once in each process: searching for many triples takes a while to prepare."""
    tokenizer, eod = read_tokenizer(work.tokenizer)
    return Corpora(work.prefixes, tokenizer, eod), Searches(read_triples(work.triples), work.forms, work.rules)


def _save(folder: Path, rank: int, counts: Counts) -> None:
    """Most triples are never found: only the others' counts are kept."""
    table = np.stack([getattr(counts, name) for name in ARRAYS])
    found = np.flatnonzero(table.any(axis=0))
    numbers = [getattr(counts, name) for name in NUMBERS]
    np.savez(folder / f"{rank:05d}.npz", found=found, table=table[:, found], numbers=numbers, triples=table.shape[1])


def _load(folder: Path, rank: int) -> Counts:
    with np.load(folder / f"{rank:05d}.npz") as saved:
        table = np.zeros((len(ARRAYS), int(saved["triples"])), dtype=np.int64)
        table[:, saved["found"]] = saved["table"]
        return Counts(*table, *saved["numbers"].tolist())
