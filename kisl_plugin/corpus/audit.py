"""How often each triple's statements, and its subject and object together, occur in a tokenised corpus."""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kisl_plugin.corpus.audit_counting import Counts
from kisl_plugin.corpus.audit_files import Files, tokenizer_of
from kisl_plugin.corpus.audit_reading import Corpora
from kisl_plugin.corpus.audit_wordings import FORMS, Wordings
from kisl_plugin.errors import InputError
from kisl_plugin.matching import MatchRules, unsearchable
from kisl_plugin.matching.folding import fold
from kisl_plugin.roles import IntArray
from kisl_plugin.tokenizer import read_tokenizer
from kisl_plugin.triples import Triple, triples_to_jsonl

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
        from kisl_plugin.corpus.audit_tasks import Work, run_tasks
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
    lost = [n for n, (text, back) in enumerate(zip(texts, backs, strict=True)) if fold(text) != fold(back).strip(b" ")]
    if not lost:
        return None
    altered = Altered(len(lost), len(texts), texts[lost[0]], backs[lost[0]])
    if altered.count == altered.tried:
        raise InputError(
            f"the tokenizer gives no statement back as it was: {altered.text!r} comes back as {altered.back!r}; "
            "statements cannot be counted in its tokens"
        )
    return altered
