"""How often triples occur in a tokenised corpus, and whether a run's rows contain each statement as often as planned.

In a corpus a statement is any wording that kisl itself would inject or ask (all templates, questions with their
answer), as whole words. A document is what stands between two end-of-document tokens, wherever the index ends one.
Processes count shares of the corpus; the sum does not depend on their number.

In a run a statement is found by its tokens. The rows are laid out from the keys of the run's YAML as both engines lay
them out; no engine is needed.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.corpus.tokenizer import BatchDecoder
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.hookspecs import IntArray, manager
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedDataset, file_of
from kisl_plugin.injection import Rows
from kisl_plugin.local.config import LocalConfig
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.matching import MatchRules, count_whole_words, fold, matcher_of, unsearchable
from kisl_plugin.neox_config import read_yamls
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import verbalizer_of

__all__ = ["CorpusAudit", "RowAudit", "audit_corpus", "audit_rows"]

_FORMS = ("statement", "question")
_SHARE_TOKENS = 1 << 23
_BATCH_DOCUMENTS = 256
_CACHED_TRIPLES, _TRIED_TRIPLES = 100_000, 1000
_REPORTED_PROBLEMS, _UPDATE_ROWS = 3, 256


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


# The rows of a run.


@dataclass(frozen=True)
class RowAudit:
    """What the rows of a run contain; arrays are int64 [K], one entry for each of `triples`.

    Attributes:
        planned: F where all rows were checked, else what the schedule says of the checked ones.
        actual: injected statements in the checked rows.
        natural: statements that these rows contain because the background does.
        rows, checked: rows of the run, and how many were checked.
        wrong_rows: rows that do not contain what the schedule says.
        error: the first rows, else the first triple, that are not as planned, in one line; empty if all are.
    """

    triples: tuple[Triple, ...]
    planned: IntArray
    actual: IntArray
    natural: IntArray
    rows: int
    checked: int
    wrong_rows: int
    error: str


def audit_rows(config: LocalConfig, data: RunData, rows: int | None = None) -> RowAudit:
    """Check all rows of a run, `data` of `config`, or `rows` of them spread evenly, against the plan.

    A statement beyond the plan is natural where the background that the row was made from contains it.

    Raises:
        InputError: the run has no section `kisl`.
    """
    if data.plan is None:
        raise InputError(f"{config.where}: kisl is missing; expected a section that plans statements")
    plan, length, eod = data.plan, config["seq_length"] + 1, data.eod
    # Owner (a triple's index), text and tokens: the plan's statements, numbered as there, then those of the control.
    index = {triple: k for k, triple in enumerate(plan.triples)}
    statements = [(index[one.triple], one.text, one.tokens) for one in plan.statements]
    verbalizer, injected_triples = verbalizer_of(plan.settings.form), {owner for owner, _, _ in statements}
    for k in sorted(set(index.values()) - injected_triples):
        for template in plan.settings.templates:
            text = verbalizer.text(plan.triples[k], template)
            ids = data.tokenizer.encode(text, add_special_tokens=False).ids
            statements.append((k, text, np.array(ids, dtype=np.int64)))
    # Where a control triple has the same statement as an injected one, the injected one counts.
    numbers = {tokens.tobytes(): n for n, (_, _, tokens) in reversed([*enumerate(statements)])}

    def natural_in(row: NDArray[np.int64], number: int) -> int:
        """How often a statement's tokens follow one another in a row of the background, anywhere."""
        tokens = statements[number][2]
        if len(tokens) > len(row):
            return 0
        windows = np.lib.stride_tricks.sliding_window_view(row, len(tokens))
        return int((windows == tokens).all(axis=1).sum())

    samples = plan.schedule.samples
    checked = min(rows or samples, samples)
    planned, actual, natural = counts = np.zeros((3, len(statements)), dtype=np.int64)
    wrong_rows, problems = 0, list[str]()
    background: Rows | None = None  # row i of the run was made from its row i modulo their number
    progress = Progress("checking rows", checked)
    for done in range(checked):
        if done % _UPDATE_ROWS == 0:
            progress.update(done)
        i = (2 * done + 1) * samples // (2 * checked)
        row = data.train[i]["text"]
        scheduled = Counter(plan.schedule.triples_in(i).tolist())
        # A statement is a document of its own: an end of document on either side.
        pieces = (row[a + 1 : b].tobytes() for a, b in pairwise(np.flatnonzero(row == eod).tolist()))
        injected = Counter(numbers[piece] for piece in pieces if piece in numbers)
        own: Counter[int] = Counter()
        if extra := injected - scheduled:
            if background is None:
                background = read_data(replace(config, values={**config.values, "kisl": None})).train
            bare = background[i % len(background)]["text"]
            own = Counter({n: min(times, natural_in(bare, n)) for n, times in extra.items()})
            injected -= own
        for array, counter in ((planned, scheduled), (actual, injected), (natural, own)):
            for number, times in counter.items():
                array[number] += times
        if injected != scheduled or len(row) != length:
            wrong_rows += 1
            pairs = [(statements[n][1], scheduled[n], injected[n]) for n in sorted(injected | scheduled)]
            pairs.append(("tokens of the row", length, len(row)))
            problems += [f"row {i:,}: {what!r} planned {n}, found {times}" for what, n, times in pairs if n != times]
    progress.update(checked)
    progress.close()
    if checked == samples:  # what the run's F demands, not what the schedule says
        planned[: len(plan.statements)] = [statement.frequency for statement in plan.statements]
    per_triple = np.zeros((3, len(plan.triples)), dtype=np.int64)
    for (owner, _, _), column in zip(statements, counts.T, strict=True):
        per_triple[:, owner] += column
    planned, actual, natural = per_triple
    error, others = "", np.flatnonzero(planned != actual).tolist()
    if wrong_rows:
        error = f"{wrong_rows:,} rows do not contain what was planned: {'; '.join(problems[:_REPORTED_PROBLEMS])}"
    elif others:
        k, triple = others[0], plan.triples[others[0]]
        error = (
            f"{len(others):,} triples are not stated as often as planned, although each row is as scheduled: "
            f"{triple.subject} {triple.relation_id} {triple.object}: planned {planned[k]}, found {actual[k]}"
        )
    return RowAudit(tuple(plan.triples), planned, actual, natural, samples, checked, wrong_rows, error)
