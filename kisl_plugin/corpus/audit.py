"""How often each triple's statements, and its subject and object together, occur in a tokenised corpus."""

import csv
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from kisl_plugin.corpus.executors import LocalRunner, Stage
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256, write_atomically
from kisl_plugin.hookspecs import IntArray, manager
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedDataset, file_of
from kisl_plugin.matching import (
    MatchRules,
    SpellingFinder,
    count_whole_words,
    fold,
    matcher_of,
    unsearchable,
)
from kisl_plugin.neox_config import read_yamls
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import templates_of, verbalizer_of

# Which .bin/.idx files an audit reads, and with which tokenizer.

YAML_ENDINGS = (".yml", ".yaml")
DATA_ENDINGS = (".bin", ".idx")


@dataclass(frozen=True)
class Files:
    """The corpora, and the tokenizer.json that they were made with."""

    prefixes: tuple[Path, ...]
    tokenizer: Path


def tokenizer_of(given: Sequence[Path], tokenizer: Path | None) -> Files:
    """Find the files. A corpus that `kisl corpus build` made names its tokenizer, which is checked.

    Raises:
        InputError: no tokenizer is known, or it is not the one that a corpus was made with.
    """
    manifests = {path: manifest for path in given if (manifest := _manifest(_without_ending(path))) is not None}
    if tokenizer is None:
        unknown = next((path for path in given if path not in manifests), None)
        if unknown is not None or not given:
            raise InputError(
                f"{unknown}: no {unknown}.json tells which tokenizer the corpus was made with; pass --tokenizer FILE"
            )
        tokenizer = Path(manifests[given[0]]["tokenizer"])
    digest = sha256(read_tokenizer(tokenizer)[0].to_str())
    for path, manifest in manifests.items():
        if manifest["tokenizer_sha256"] != digest:
            raise InputError(
                f"{tokenizer}: is not the tokenizer that {path} was made with (sha256 {digest}, the corpus has "
                f"{manifest['tokenizer_sha256']}); pass the right one with --tokenizer"
            )
    return Files(tuple(prefix for path in given for prefix in _prefixes(path)), tokenizer)


def _without_ending(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in (*YAML_ENDINGS, *DATA_ENDINGS) else path


def _prefixes(path: Path) -> list[Path]:
    """What a YAML trains on; of a build with --weighted, given by its prefix, all shards, the one held out too."""
    if path.suffix in YAML_ENDINGS:
        return _paths_of(path, ("train_data_paths",))
    prefix = _without_ending(path)
    shards = file_of(prefix, ".yml")
    if shards.is_file() and not file_of(prefix, ".idx").exists():
        return _paths_of(shards, ("train_data_paths", "valid_data_paths"))
    return [prefix]


def _paths_of(path: Path, keys: Sequence[str]) -> list[Path]:
    values = read_yamls([path]).values
    if "train_data_paths" not in values and isinstance(values.get("data_path"), str):
        return [Path(values["data_path"])]
    found: dict[Path, None] = {}
    for key in keys:
        paths = values.get(key)
        if not isinstance(paths, list) or not paths or not all(isinstance(one, str) for one in paths):
            raise InputError(f"{path}: {key} is {paths!r}; expected a list of corpora")
        found.update(dict.fromkeys(map(Path, paths)))
    return list(found)


def _manifest(prefix: Path) -> dict[str, Any] | None:
    """What `kisl corpus build` wrote beside the corpus; None where there is nothing of the kind."""
    path = file_of(prefix, ".json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    known = isinstance(manifest, dict) and all(isinstance(manifest.get(key), str) for key in _KEYS)
    return manifest if known else None


_KEYS = ("tokenizer", "tokenizer_sha256")


# The wordings of triples, and how often they stand in texts.

FORMS = ("statement", "question")
NAMED = MatchRules()
REMEMBERED = 100_000
_LABELS_APART = re.compile(r"(?<!\w)\{(subject|object)\}(?!\w)")


class Wordings:
    """Every wording of every triple: all templates of the forms, questions with their answer.

    Relations without templates, `without_templates`, have none.
    """

    def __init__(self, triples: Sequence[Triple], forms: Iterable[str] = FORMS) -> None:
        self._triples = triples
        self._verbalizers = {form: verbalizer_of(form) for form in forms}
        relations = {triple.relation_id for triple in triples}
        hook = manager().hook.kisl_templates
        self.without_templates = {r for r in relations if hook(relation_id=r) is None}
        self._apart = {r for r in relations - self.without_templates if self._keeps_labels_apart(r)}

    def of(self, triple: int) -> list[str]:
        """The texts, of which no two read the same."""
        its = self._triples[triple]
        if its.relation_id in self.without_templates:
            return []
        texts = (
            verbalizer.text(its, template)
            for verbalizer in self._verbalizers.values()
            for template in range(verbalizer.count(its.relation_id))
        )
        return list({fold(text): text for text in texts}.values())

    def names_both(self, triple: int) -> bool:
        """Whether each of its wordings has subject and object as words of their own, so that a matcher finds them."""
        return self._triples[triple].relation_id in self._apart

    def _keeps_labels_apart(self, relation_id: str) -> bool:
        if not self._verbalizers.keys() <= set(FORMS):
            return False
        templates = templates_of(relation_id)
        wordings = (*templates.statements, *(f"{question} {{object}}" for question in templates.questions))
        return all(set(_LABELS_APART.findall(wording)) == {"subject", "object"} for wording in wordings)


class StatementFinder:
    """Counts wordings as whole words, upper and lower case alike.

    A text is searched only for triples whose subject and object it names: a search for all wordings of 10^6 triples
    would take 20 GB. Triples of which that cannot be told are searched for everywhere.
    """

    def __init__(self, triples: Sequence[Triple], wordings: Wordings) -> None:
        self._wordings = wordings
        hidden = {one.triple for one in unsearchable(triples, NAMED)}
        self._everywhere = {k for k in range(len(triples)) if k in hidden or not wordings.names_both(k)}
        owners: dict[bytes, list[int]] = {}
        for k in sorted(self._everywhere):
            for text in wordings.of(k):
                owners.setdefault(fold(text), []).append(k)
        self._owners = list(owners.values())
        self._phrases = SpellingFinder(list(owners)) if owners else None
        self._patterns = lru_cache(REMEMBERED)(self._patterns_of)

    def count(self, texts: Sequence[str], named: Sequence[Sequence[int]]) -> list[Counter[int]]:
        """For each text how often it holds a wording of which triple; `named`: the triples it states by NAMED."""
        everywhere = self._phrases.mentions(texts) if self._phrases else [[] for _ in texts]
        return [
            Counter(k for phrase, _, _ in found for k in self._owners[phrase]) + self._count_named(text, near)
            for text, near, found in zip(texts, named, everywhere, strict=True)
        ]

    def _count_named(self, text: str, triples: Sequence[int]) -> Counter[int]:
        near = [triple for triple in triples if triple not in self._everywhere]
        folded = fold(text) if near else b""
        return Counter({k: sum(count_whole_words(phrase, folded) for phrase in self._patterns(k)) for k in near})

    def _patterns_of(self, triple: int) -> tuple[bytes, ...]:
        return tuple(map(fold, self._wordings.of(triple)))


# Counts, in texts, the statements of triples and the triples that a text names.


@dataclass(frozen=True)
class Counts:
    """What was found in `documents` documents of `tokens` tokens, ends of documents included; arrays are int64 [K].

    `statement_documents` hold a wording of the triple, `statement_occurrences` times in all; `match_documents` state it
    by the rules. `long_documents` were looked at in parts.
    """

    statement_documents: IntArray
    statement_occurrences: IntArray
    match_documents: IntArray
    documents: int = 0
    tokens: int = 0
    long_documents: int = 0

    @classmethod
    def zeros(cls, triples: int) -> "Counts":
        """Nothing found yet."""
        documents, occurrences, matched = np.zeros((3, triples), dtype=np.int64)
        return cls(documents, occurrences, matched)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Part:
    """A part of a text too long for one piece; its first `carried` characters were looked at with the one before."""

    text: str
    carried: int


class Searches:
    """How texts are searched, the same in every task: for the wordings of these forms, and by these rules."""

    def __init__(self, triples: Sequence[Triple], forms: Sequence[str], rules: MatchRules) -> None:
        self.triples = len(triples)
        self._statements = StatementFinder(triples, Wordings(triples, forms))
        self._named = matcher_of(triples, NAMED)
        self._match = self._named if rules == NAMED else matcher_of(triples, rules)

    def look(self, texts: Sequence[str]) -> list[tuple[Counter[int], set[int]]]:
        """For each text how often it holds a wording of which triple, and which triples it states by the rules."""
        named = self._named(texts)
        matches = named if self._match is self._named else self._match(texts)
        stated = self._statements.count(texts, [[match.triple for match in found] for found in named])
        return [(found, {match.triple for match in by}) for found, by in zip(stated, matches, strict=True)]


class DocumentCounter:
    """Adds documents up. Words are matched whole, upper and lower case alike, as `kisl corpus build` matches them."""

    def __init__(self, searches: Searches) -> None:
        self._searches = searches
        self._counts = Counts.zeros(searches.triples)
        self._documents = self._long = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count documents, each a text."""
        for stated, matched in self._searches.look(texts):
            self._add(stated, matched)

    def add_long(self, parts: Iterable[Part]) -> None:
        """Count one document that comes in parts."""
        stated: Counter[int] = Counter()
        matched: set[int] = set()
        for part in parts:
            (whole, by), (before, _) = self._searches.look([part.text, part.text[: part.carried]])
            stated += whole - before
            matched |= by
        self._long += 1
        self._add(stated, matched)

    def counts(self, tokens: int) -> Counts:
        """The counts of all that was added, which had `tokens` tokens."""
        return replace(self._counts, documents=self._documents, tokens=tokens, long_documents=self._long)

    def _add(self, stated: Counter[int], matched: set[int]) -> None:
        self._documents += 1
        for triple, times in stated.items():
            self._counts.statement_documents[triple] += 1
            self._counts.statement_occurrences[triple] += times
        for triple in matched:
            self._counts.match_documents[triple] += 1


# Tokenised corpora as texts again: which documents are looked at, and what they say.

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS, BATCH_DOCUMENTS = 1 << 18, 1000
LONG_TOKENS = 1 << 20
CARRIED_CHARACTERS = 10_000
_CHARACTER_BYTES = 4


@dataclass(frozen=True)
class Share:
    """The documents that a task looks at: of `total` documents `looked`, spread evenly; of these its own run."""

    total: int
    looked: int
    task: int
    tasks: int

    def documents(self) -> IntArray:
        """Their numbers, ascending."""
        begin, end = (self.looked * t // self.tasks for t in (self.task, self.task + 1))
        return (2 * np.arange(begin, end, dtype=np.int64) + 1) * self.total // (2 * self.looked)


class Corpora:
    """Several corpora one after the other, in one tokenizer's tokens."""

    def __init__(self, prefixes: Sequence[Path], tokenizer: "Tokenizer", eod: int) -> None:
        self._prefixes, self._tokenizer, self._eod = prefixes, tokenizer, eod
        self._corpora = [IndexedDataset(prefix) for prefix in prefixes]
        self._ends = np.cumsum([len(corpus) for corpus in self._corpora])
        self._vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def tokens(self) -> int:
        """Tokens in all, ends of documents included."""
        return sum(int(corpus.sizes.sum(dtype=np.int64)) for corpus in self._corpora)

    def count_into(self, counter: DocumentCounter, numbers: IntArray) -> int:
        """Have the documents of these numbers counted; returns how many tokens they have.

        What stands between two end-of-document tokens is a document, wherever the .idx file ends one.

        Raises:
            InputError: a token is none of the tokenizer's.
        """
        tokens = 0
        pieces: list[NDArray[Any]] = []
        held = 0
        for piece, size in self._pieces(numbers):
            tokens += size
            if len(piece) > LONG_TOKENS:
                counter.add_long(parts_of(piece, self._decode))
            elif len(piece):
                pieces.append(piece)
                held += len(piece)
            if held >= BATCH_TOKENS or len(pieces) == BATCH_DOCUMENTS:
                counter.add(self._texts(pieces))
                pieces, held = [], 0
        if pieces:
            counter.add(self._texts(pieces))
        return tokens

    def _pieces(self, numbers: IntArray) -> Iterator[tuple[NDArray[Any], int]]:
        """What stands between ends of documents, and how many tokens it has with its own end."""
        where = np.searchsorted(self._ends, numbers, side="right")
        for at, run in groupby(zip(where.tolist(), numbers.tolist(), strict=True), key=lambda pair: pair[0]):
            corpus, first = self._corpora[at], int(self._ends[at]) - len(self._corpora[at])
            for _, number in run:
                tokens = corpus.get(number - first)
                self._check(tokens, at, number - first)
                begin = 0
                for end in np.flatnonzero(tokens == self._eod).tolist():
                    yield tokens[begin:end], end + 1 - begin
                    begin = end + 1
                yield tokens[begin:], len(tokens) - begin

    def _check(self, tokens: NDArray[Any], at: int, document: int) -> None:
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._vocab_size:
            raise InputError(
                f"{self._prefixes[at]}.bin: document {document} holds the token {int(tokens.max())}; the tokenizer has "
                f"0 … {self._vocab_size - 1}: pass the --tokenizer that the corpus was made with"
            )

    def _texts(self, pieces: Sequence[NDArray[Any]]) -> list[str]:
        return list(self._tokenizer.decode_batch([p.tolist() for p in pieces], skip_special_tokens=False))

    def _decode(self, tokens: NDArray[Any]) -> str:
        return self._texts([tokens])[0]


def parts_of(tokens: NDArray[Any], decode: Callable[[NDArray[Any]], str]) -> Iterator[Part]:
    """A long document in parts that end between words; each begins with the last words of the one before."""
    carried, rest, begin = "", "", 0
    while begin < len(tokens):
        end, fresh = _next_characters(tokens, begin, decode)
        text = carried + rest + fresh
        cut = len(text) if end == len(tokens) else _between_words(text, len(carried))
        if cut > len(carried):
            yield Part(text[:cut], len(carried))
            carried = _last_words(text[:cut])
        rest, begin = text[cut:], end


def _next_characters(tokens: NDArray[Any], begin: int, decode: Callable[[NDArray[Any]], str]) -> tuple[int, str]:
    """Where the next LONG_TOKENS or a few less end with a whole character, and their text."""
    most = min(begin + LONG_TOKENS, len(tokens))
    for end in range(most, max(begin, most - _CHARACTER_BYTES), -1):
        text = decode(tokens[begin:end])
        if end == len(tokens) or not text.endswith("\ufffd"):
            return end, text
    return most, decode(tokens[begin:most])


def _between_words(text: str, carried: int) -> int:
    """Where the last word begins; not in the carried text, and text that has no spaces is cut anywhere."""
    cut = max(text.rfind(" ", carried), text.rfind("\n", carried)) + 1
    return cut or (carried if len(text) - carried <= CARRIED_CHARACTERS else len(text))


def _last_words(text: str) -> str:
    tail = text[-CARRIED_CHARACTERS:]
    return tail if len(tail) == len(text) else tail[tail.find(" ") + 1 :]


# The audit's tasks: each counts its share of the documents and leaves its counts in the working folder.

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


# How often each triple's statements, and its subject and object together, occur in a tokenised corpus.

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TASK_TOKENS, MOST_TASKS = 1 << 23, 1000
TRIED_TRIPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Altered:
    """Wordings that the tokenizer does not give back: `count` of `tried`, such as `text`, which becomes `back`."""

    count: int
    tried: int
    text: str
    back: str


@dataclass(frozen=True)
class Audit:
    """What a corpus holds of `triples`. `counts` are of the `looked` of all `total` .idx documents, of `tokens` tokens.

    `unsearchable`: triples that the rules cannot find, with the reason. `without_wording`: those of relations that have
    no templates.
    """

    prefixes: tuple[Path, ...]
    triples: tuple[Triple, ...]
    rules: MatchRules
    counts: Counts
    total: int
    tokens: int
    looked: int
    unsearchable: Mapping[int, str]
    without_wording: frozenset[int]
    altered: Altered | None

    @property
    def sampled(self) -> bool:
        """Whether a part of the documents was looked at, and the counts speak for the rest."""
        return self.looked < self.total

    def scaled(self, values: IntArray) -> IntArray:
        """Counts of the documents looked at → of all."""
        return np.rint(values * (self.total / self.looked)).astype(np.int64) if self.sampled else values

    def interval(self, documents: IntArray) -> tuple[IntArray, IntArray]:
        """The 95 % interval (Clopper and Pearson) of how many of all documents hold it, where `documents` were found.

        Documents spread evenly over the corpus are taken for drawn at random.
        """
        if not self.sampled:
            return documents, documents
        from scipy.stats import beta

        n, tail = self.counts.documents, (1 - CONFIDENCE) / 2
        low = np.where(documents > 0, beta.ppf(tail, documents, n - documents + 1), 0.0)
        high = np.where(documents < n, beta.ppf(1 - tail, documents + 1, n - documents), 1.0)
        everywhere = n * self.total / self.looked
        most = np.maximum(np.ceil(high * everywhere), documents)
        return np.maximum(np.floor(low * everywhere), documents).astype(np.int64), most.astype(np.int64)


def audit_corpus(
    prefixes: Sequence[Path],
    triples: Sequence[Triple],
    tokenizer: Path | None = None,
    rules: MatchRules | None = None,
    *,
    forms: Sequence[str] = FORMS,
    sample: int | None = None,
    tasks: int | None = None,
    workers: int = 1,
) -> Audit:
    """Count in the corpora `prefixes` (.bin/.idx, or a YAML with train_data_paths), taken together.

    A statement is any template of the `forms`, word for word; a document is what ends with an end-of-document token.
    Without `tokenizer` the one that `kisl corpus build` wrote into PREFIX.json is taken. `sample` documents, spread
    evenly, stand for all. The counts do not depend on `tasks` and `workers`.

    Raises:
        InputError: a corpus or the tokenizer is missing, is bad, or they do not belong together.
    """
    found = tokenizer_of(prefixes, tokenizer)
    reader, eod = read_tokenizer(found.tokenizer)
    corpora = Corpora(found.prefixes, reader, eod)
    wordings = Wordings(triples, forms)
    altered = _altered([text for k in _some(len(triples)) for text in wordings.of(k)], reader)
    looked = min(sample or len(corpora), len(corpora))
    if not looked:
        raise InputError(f"{', '.join(map(str, prefixes))}: no documents; nothing can be counted")
    by_size = math.ceil(corpora.tokens * looked / len(corpora) / TASK_TOKENS)
    tasks = min(looked, tasks or max(1, min(MOST_TASKS, by_size)))
    rules = rules or MatchRules()
    counts = _counted(found, triples, forms, rules, (len(corpora), looked), tasks, workers)
    missing = {entry.triple: entry.reason for entry in unsearchable(triples, rules)}
    wordless = frozenset(k for k, triple in enumerate(triples) if triple.relation_id in wordings.without_templates)
    size = (len(corpora), corpora.tokens, looked)
    return Audit(found.prefixes, tuple(triples), rules, counts, *size, missing, wordless, altered)


def _counted(
    files: Files,
    triples: Sequence[Triple],
    forms: Sequence[str],
    rules: MatchRules,
    documents: tuple[int, int],
    tasks: int,
    workers: int,
) -> Counts:
    """The counts; `documents`: in all, and to be looked at."""
    try:
        pass
    except ImportError:
        raise InputError("auditing a corpus needs datatrove; pip install 'kisl-plugin[corpus]'") from None
    folder = Path(tempfile.mkdtemp(prefix="kisl-audit-"))
    file = folder / "triples.jsonl"
    file.write_text(triples_to_jsonl(triples), encoding="utf-8")
    work = Work(folder, files.prefixes, files.tokenizer, file, tuple(forms), rules, *documents, min(workers, tasks))
    try:
        counts = run_tasks(work, tasks)
    except (InputError, KeyboardInterrupt):
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)  # after other errors the logs stay
    return counts


def _some(triples: int) -> range:
    return range(0, triples, max(1, triples // TRIED_TRIPLES))


def _altered(texts: list[str], tokenizer: "Tokenizer") -> Altered | None:
    """Try whether wordings are still found once tokenised.

    Raises:
        InputError: none is; nothing could be counted.
    """
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    backs = tokenizer.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
    lost = [n for n, (text, back) in enumerate(zip(texts, backs, strict=True)) if fold(text) != fold(back)]
    if not lost:
        return None
    altered = Altered(len(lost), len(texts), texts[lost[0]], backs[lost[0]])
    if altered.count == altered.tried:
        raise InputError(
            f"the tokenizer gives no statement back as it was: {altered.text!r} comes back as {altered.back!r}; "
            "statements cannot be counted in its tokens"
        )
    return altered


# What an audit found: a CSV with a row per triple, and a page for the terminal.

if TYPE_CHECKING:
    from kisl_plugin.corpus.audit_run import RowAudit

HIGHEST = 10
FACT_WIDTH = 48
IDENTITY = ("subject_id", "subject", "relation_id", "object_id", "object", "group")
_NAMED = {"pair": "with subject and object in one text", "subject": "with the subject in a text"}
Column = tuple[str, Sequence[int | None]]


def write_csv(path: Path, audit: "Audit | None", rows: "RowAudit | None") -> None:
    """Write a row per triple: who it is, then what was counted; empty where nothing could be looked for.

    Raises:
        KislError: it cannot be written.
    """
    triples = _triples(audit, rows)
    columns = [*(_corpus_columns(audit) if audit else ()), *(_row_columns(rows) if rows else ())]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*IDENTITY, *(name for name, _ in columns)])
    for k, triple in enumerate(triples):
        writer.writerow([*(getattr(triple, name) for name in IDENTITY), *(values[k] for _, values in columns)])
    try:
        write_atomically(path, text.getvalue())
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None


def _triples(audit: "Audit | None", rows: "RowAudit | None") -> Sequence[Triple]:
    return audit.triples if audit else rows.triples if rows else ()


def _corpus_columns(audit: "Audit") -> list[Column]:
    counts = audit.counts
    columns: list[Column] = []
    for name, values, unknown in (
        ("statement_documents", counts.statement_documents, audit.without_wording),
        ("statement_occurrences", counts.statement_occurrences, audit.without_wording),
        (f"{audit.rules.match}_documents", counts.match_documents, audit.unsearchable),
    ):
        shown = [(name, audit.scaled(values))]
        if audit.sampled and name != "statement_occurrences":
            low, high = audit.interval(values)
            shown += [(f"{name}_low", low), (f"{name}_high", high)]
        columns += [
            (title, [None if k in unknown and not values[k] else int(n) for k, n in enumerate(column)])
            for title, column in shown
        ]
    return columns


def _row_columns(rows: "RowAudit") -> list[Column]:
    named = (("planned", rows.planned), ("found", rows.found), ("natural_in_rows", rows.natural))
    return [(name, values.tolist()) for name, values in named]


def corpus_page(audit: "Audit") -> str:
    """Totals, a table of the relations, and the triples with the highest counts."""
    return "\n\n".join(part for part in ("\n".join(_totals(audit)), _relations(audit), _highest(audit)) if part)


def rows_page(rows: "RowAudit") -> str:
    """What the rows of a run hold, beside the plan; a table of the groups."""
    what = f"all {rows.rows:,} rows" if rows.looked == rows.rows else f"{rows.looked:,} of {rows.rows:,} rows"
    total = f"{what} looked at · {int(rows.planned.sum()):,} exposures planned, {int(rows.found.sum()):,} found"
    passes = f"the run reads {rows.passes:,.2f} times its corpus: so often it meets what stands there naturally"
    table: list[tuple[str, ...]] = [("group", "triples", "planned each", "found each", "natural")]
    for group in sorted({triple.group for triple in rows.triples}):
        members = [k for k, triple in enumerate(rows.triples) if triple.group == group]
        spans = (_span(counts[members]) for counts in (rows.planned, rows.found))
        table.append((group, f"{len(members):,}", *spans, f"{int(rows.natural[members].sum()):,}"))
    return f"{total}\n{passes}\n\n{_aligned(table)}"


def _span(counts: IntArray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _totals(audit: "Audit") -> Iterable[str]:
    counts = audit.counts
    documents = audit.total if audit.sampled else counts.documents
    yield f"{_listed(audit.prefixes)} · {documents:,} documents · {audit.tokens:,} tokens"
    if audit.sampled:
        none = int(audit.interval(np.zeros(1, dtype=np.int64))[1][0])
        yield f"a sample: {audit.looked:,} of {audit.total:,} documents were looked at; counts are scaled to all (≈)"
        yield f"the CSV has 95 % intervals; what was not found may still stand in up to {none:,} documents"
    stated = int((counts.statement_documents > 0).sum())
    matched = int((counts.match_documents > 0).sum())
    yield (
        f"{len(audit.triples):,} triples · {stated:,} with a statement, word for word, in the text · {matched:,} "
        f"{_NAMED.get(audit.rules.match, f'found by {audit.rules.match}')} ({audit.rules.match})"
    )
    if audit.without_wording:
        relations = sorted({audit.triples[k].relation_id for k in audit.without_wording})
        yield f"without templates, so no statement to look for: {', '.join(relations)}"
    if audit.unsearchable:
        first = min(audit.unsearchable)
        yield (
            f"{len(audit.unsearchable):,} triples cannot be found, such as {_fact(audit.triples[first])}: "
            + (audit.unsearchable[first])
        )
    if audit.altered:
        yield (
            f"the tokenizer gives {audit.altered.count:,} of {audit.altered.tried:,} statements back changed "
            f"({audit.altered.text!r} as {audit.altered.back!r}): those are not found"
        )
    if counts.long_documents:
        yield f"{counts.long_documents:,} documents of more than {LONG_TOKENS:,} tokens were looked at in parts"


def _listed(prefixes: Sequence[Path], shown: int = 3) -> str:
    return ", ".join(map(str, prefixes[:shown])) + (f" … ({len(prefixes):,})" if len(prefixes) > shown else "")


def _number(audit: "Audit", count: int) -> str:
    return f"≈ {round(count * audit.total / audit.looked):,}" if audit.sampled else f"{count:,}"


def _relations(audit: "Audit") -> str:
    counts, match = audit.counts, audit.rules.match
    table: list[tuple[str, ...]] = [("relation", "triples", "stated", "statements", match, f"{match} documents")]
    members: dict[str, list[int]] = {}
    for k, triple in enumerate(audit.triples):
        members.setdefault(triple.relation_id, []).append(k)
    for relation, own in sorted(members.items()):
        some = (int((found[own] > 0).sum()) for found in (counts.statement_documents, counts.match_documents))
        sums = (int(found[own].sum()) for found in (counts.statement_occurrences, counts.match_documents))
        cells = [text for n, total in zip(some, sums, strict=True) for text in (f"{n:,}", _number(audit, total))]
        table.append((relation, f"{len(own):,}", *cells))
    return _aligned(table)


def _highest(audit: "Audit") -> str:
    counts = audit.counts
    order = np.lexsort((-counts.match_documents, -counts.statement_occurrences))[:HIGHEST]
    found = [k for k in order.tolist() if counts.statement_occurrences[k] or counts.match_documents[k]]
    if not found:
        return ""
    table: list[tuple[str, ...]] = [("most often", "statements", f"{audit.rules.match} documents")]
    for k in found:
        numbers = (_number(audit, int(values[k])) for values in (counts.statement_occurrences, counts.match_documents))
        table.append((_fact(audit.triples[k]), *numbers))
    return _aligned(table)


def _fact(triple: Triple) -> str:
    fact = " · ".join((triple.subject, triple.relation_id, triple.object))
    printable = "".join(char if char.isprintable() else " " for char in fact)
    return printable if len(printable) <= FACT_WIDTH else printable[: FACT_WIDTH - 1] + "…"


def _aligned(table: Sequence[tuple[str, ...]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)
