"""How often triples occur in a tokenised corpus.

A statement is any wording that kisl itself would inject or ask (all templates, questions with their answer), as whole
words. A document is what stands between two end-of-document tokens, wherever the index ends one. Processes count shares
of the corpus; the sum does not depend on their number.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from kisl_plugin.corpus.tokenizer import BatchDecoder
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.hookspecs import IntArray, manager
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedDataset, file_of
from kisl_plugin.matching import MatchRules, count_whole_words, fold, matcher_of, unsearchable
from kisl_plugin.neox_config import read_yamls
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import verbalizer_of

__all__ = ["CorpusAudit", "audit_corpus"]

_FORMS = ("statement", "question")
_SHARE_TOKENS = 1 << 23
_BATCH_DOCUMENTS = 256
_CACHED_TRIPLES, _TRIED_TRIPLES = 100_000, 1000


@dataclass(frozen=True)
class CorpusAudit:
    """What a corpus contains of `triples`; arrays are int64 [K], one entry for each of them.

    Attributes:
        prefixes: the .bin/.idx files that were read, without their endings.
        documents, tokens: what was read; tokens include the ends of documents.
        statement_documents: documents that contain a statement of the triple.
        statement_occurrences: how often they contain one, in all.
        pair_documents: documents that contain subject and object, as the matcher `pair` finds them.
        unsearchable: triples, by index, that `pair` cannot find, or not everywhere, with the reason.
        without_templates: relations that have no templates, so that their triples have no statements to search for.
    """

    prefixes: tuple[Path, ...]
    triples: tuple[Triple, ...]
    documents: int
    tokens: int
    statement_documents: IntArray
    statement_occurrences: IntArray
    pair_documents: IntArray
    unsearchable: Mapping[int, str]
    without_templates: frozenset[str]


def audit_corpus(
    paths: Sequence[Path],
    triples: Sequence[Triple],
    tokenizer: Path | None = None,
    *,
    workers: int = 1,
) -> CorpusAudit:
    """Count how often triples occur in corpora, taken together.

    Args:
        paths: each the common beginning of a .bin and an .idx file, or a YAML with `data_path` or `train_data_paths`.
        triples: what is counted.
        tokenizer: the tokenizer.json; without it the one that `kisl corpus build` noted in PREFIX.json.
        workers: processes.

    Raises:
        InputError: a corpus or the tokenizer is missing or bad, or they do not belong together.
        KislError: a process was killed.
    """
    prefixes, tokenizer = _find_corpora(paths, tokenizer)
    encoder, _ = read_tokenizer(tokenizer)
    texts = [text for triple in triples[:_TRIED_TRIPLES] for text in _wordings(triple)]
    encodings = encoder.encode_batch(texts, add_special_tokens=False)
    decoded = encoder.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
    if texts and not any(fold(text) == fold(back) for text, back in zip(texts, decoded, strict=True)):
        example = f"{texts[0]!r} becomes {decoded[0]!r}"
        raise InputError(f"{tokenizer}: returns no statement unchanged: {example}; none can be counted in its tokens")
    shares: list[_Share] = []
    for prefix in prefixes:
        ends = np.cumsum(IndexedDataset(prefix).sizes, dtype=np.int64)
        cuts = np.searchsorted(ends, np.arange(_SHARE_TOKENS, ends[-1] if len(ends) else 0, _SHARE_TOKENS))
        shares += [(prefix, *bounds) for bounds in pairwise(np.unique([0, *cuts, len(ends)]).tolist())]
    if not shares:
        raise InputError(f"{', '.join(map(str, paths))}: no documents; nothing can be counted")
    documents = tokens = 0
    counts = np.zeros((3, len(triples)), dtype=np.int64)
    with closing(Progress("auditing, shares of the corpus", len(shares))) as progress:
        for done, counted in enumerate(_count_all(shares, (tokenizer, triples), workers), start=1):
            documents, tokens, counts = documents + counted[0], tokens + counted[1], counts + counted[2]
            progress.update(done)
    bare = frozenset(relation for relation in {one.relation_id for one in triples} if not _has_templates(relation))
    stated, occurrences, pairs = counts
    reasons = unsearchable(triples, MatchRules())
    return CorpusAudit(prefixes, tuple(triples), documents, tokens, stated, occurrences, pairs, reasons, bare)


def _find_corpora(paths: Sequence[Path], tokenizer: Path | None) -> tuple[tuple[Path, ...], Path]:
    """The corpora without endings, and the tokenizer that they were made with, as far as their PREFIX.json says."""
    prefixes: list[Path] = []
    manifests: dict[Path, Mapping[str, Any]] = {}
    for path in paths:
        named = path.with_suffix("") if path.suffix in (".yml", ".yaml", ".bin", ".idx") else path
        own = [named]
        if path.suffix in (".yml", ".yaml"):  # what a run with this YAML trains on
            values = read_yamls([path]).values
            listed = values.get("train_data_paths") or [values.get("data_path")]
            if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
                raise InputError(f"{path}: train_data_paths is {listed!r}; expected a list of corpora, or data_path")
            own = list(map(Path, listed))
        prefixes += own
        is_noted = False
        for prefix in (named, *own):
            file = file_of(prefix, ".json")
            try:
                manifest = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
            except (OSError, ValueError) as error:
                raise InputError(f"{file}: cannot be read as JSON ({error})") from None
            if isinstance(manifest, dict) and manifest.keys() >= {"tokenizer", "tokenizer_sha256"}:
                manifests[prefix], is_noted = manifest, True
        if tokenizer is None and not is_noted:
            raise InputError(f"{path}: no {named}.json names the tokenizer of the corpus; pass --tokenizer FILE")
    chosen = tokenizer or Path(next(iter(manifests.values()))["tokenizer"])
    digest = sha256(read_tokenizer(chosen)[0].to_str())
    for prefix, manifest in manifests.items():
        if manifest["tokenizer_sha256"] != digest:
            raise InputError(
                f"{chosen}: is not the tokenizer that {prefix} was made with (sha256 {digest}, expected "
                f"{manifest['tokenizer_sha256']}); pass the right one with --tokenizer"
            )
    return tuple(dict.fromkeys(prefixes)), chosen


def _has_templates(relation: str) -> bool:
    return manager().hook.kisl_templates(relation_id=relation) is not None


def _wordings(triple: Triple) -> list[str]:
    """Every wording of a triple: all templates, questions with their answer; none where the relation has none."""
    forms = map(verbalizer_of, _FORMS) if _has_templates(triple.relation_id) else ()
    return [form.text(triple, template) for form in forms for template in range(form.count(triple.relation_id))]


@lru_cache(_CACHED_TRIPLES)
def _folded_wordings(triple: Triple) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(map(fold, _wordings(triple))))


def _hides_a_label(relation: str) -> bool:
    """Whether subject or object is no word of its own in some wording, so that `pair` does not find it."""
    sample = Triple("xSUBJECTx", relation, "xOBJECTx")
    labels = fold(sample.subject), fold(sample.object)
    return not all(count_whole_words(label, wording) for wording in _folded_wordings(sample) for label in labels)


_Share = tuple[Path, int, int]
"""A corpus, and the first and the last (exclusive) of its documents; together about _SHARE_TOKENS tokens."""
_Counts = tuple[int, int, IntArray]
"""Documents, tokens, and for each triple the three counts of a CorpusAudit, int64 [3, K]."""


class _ShareCounter:
    """Counts the statements and matches of triples in shares of corpora.

    A text is searched only for the statements of triples whose subject and object it contains: one search for all
    wordings of 10^6 triples would take 20 GB. Triples whose wordings may hide a label (those of plugins, in scripts
    without spaces) are searched for one by one.
    """

    def __init__(self, tokenizer: Path, triples: Sequence[Triple]) -> None:
        self._decoder = BatchDecoder(tokenizer)
        self._triples = triples
        self._pairs = matcher_of(triples)
        hiding = {relation for relation in {triple.relation_id for triple in triples} if _hides_a_label(relation)}
        self._everywhere = {k for k, triple in enumerate(triples) if triple.relation_id in hiding}

    def count(self, share: _Share) -> _Counts:
        """Count in one share.

        Raises:
            InputError: a token is not one of the tokenizer's.
        """
        prefix, first, last = share
        corpus, most = IndexedDataset(prefix), self._decoder.vocab_size - 1
        counts = np.zeros((3, len(self._triples)), dtype=np.int64)
        documents = all_tokens = 0
        for start in range(first, last, _BATCH_DOCUMENTS):
            stop = min(start + _BATCH_DOCUMENTS, last)
            tokens = np.concatenate([corpus.get(number) for number in range(start, stop)])
            sizes = corpus.sizes[start:stop].astype(np.int64)
            ends = np.cumsum(sizes)
            if len(outside := np.flatnonzero((tokens < 0) | (tokens > most))):
                document = start + int(np.searchsorted(ends, outside[0], side="right"))
                raise InputError(
                    f"{prefix}.bin: document {document} contains the token {tokens[outside[0]]}; the tokenizer has "
                    f"0 … {most}: pass the --tokenizer that the corpus was made with"
                )
            # Texts end where the index ends a document, and before each end-of-document token.
            breaks = np.flatnonzero(tokens == self._decoder.eod)
            begins = np.sort(np.concatenate([ends - sizes, breaks + 1]))
            stops = np.sort(np.concatenate([ends, breaks]))
            texts = self._decoder.decode(tokens, begins[begins < stops], stops[begins < stops], start == first)
            documents, all_tokens = documents + len(texts), all_tokens + len(tokens)
            for text, matches in zip(texts, self._pairs(texts), strict=True):
                pairs = [match.triple for match in matches]
                candidates = self._everywhere.union(pairs)
                folded = fold(text) if candidates else b""
                for k in candidates:
                    times = sum(count_whole_words(wording, folded) for wording in _folded_wordings(self._triples[k]))
                    counts[:2, k] += (times > 0, times)
                counts[2, pairs] += 1
        return documents, all_tokens, counts


_counter: _ShareCounter  # one in each worker process: preparing the search for many triples takes a while


def _start_worker(tokenizer: Path, triples: Sequence[Triple]) -> None:
    global _counter
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once, without a traceback
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else each decodes with as many threads as there are cores
    _counter = _ShareCounter(tokenizer, triples)


def _count_share(share: _Share) -> _Counts:
    return _counter.count(share)


def _count_all(shares: Sequence[_Share], search: tuple[Path, Sequence[Triple]], workers: int) -> Iterator[_Counts]:
    """The counts of all shares, in the order in which they are finished."""
    workers = min(workers, len(shares))
    if workers == 1:
        yield from map(_ShareCounter(*search).count, shares)
        return
    # Spawned, not forked: the tokenizers library has started threads here.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, search)
    try:
        for future in as_completed([pool.submit(_count_share, share) for share in shares]):
            yield future.result()
    except BrokenProcessPool:
        raise KislError("a worker process was killed, perhaps for want of memory; use fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)
