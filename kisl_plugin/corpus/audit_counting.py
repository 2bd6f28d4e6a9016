"""Counts, in texts, the statements of triples and the triples that a text names."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.matching.finder import PhraseFinder
from kisl_plugin.matching.folding import fold
from kisl_plugin.plugins import manager
from kisl_plugin.roles import IntArray, Matcher
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import verbalizer_of

FORMS = ("statement", "question")


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
class Wordings:
    """Every wording of every triple, each once: `owners[p]` are the triples that `texts[p]` states."""

    texts: tuple[str, ...]
    owners: tuple[tuple[int, ...], ...]


def wordings_of(triples: Sequence[Triple], forms: Sequence[str] = FORMS) -> Wordings:
    """All templates of the forms, questions with their answer. Relations without templates have none."""
    found: dict[bytes, tuple[str, dict[int, None]]] = {}
    known = {r for r in {triple.relation_id for triple in triples} if _has_templates(r)}
    for form in dict.fromkeys(forms):
        verbalizer = verbalizer_of(form)
        for index, triple in enumerate(triples):
            for template in range(verbalizer.count(triple.relation_id)) if triple.relation_id in known else ():
                text = verbalizer.text(triple, template)
                found.setdefault(fold(text), (text, {}))[1][index] = None
    return Wordings(tuple(text for text, _ in found.values()), tuple(tuple(owners) for _, owners in found.values()))


def _has_templates(relation_id: str) -> bool:
    return manager().hook.kisl_templates(relation_id=relation_id) is not None


@dataclass(frozen=True)
class Part:
    """A part of a text too long for one piece; its first `carried` characters were looked at with the one before."""

    text: str
    carried: int


@dataclass(frozen=True)
class Searches:
    """How texts are searched; the same in every task."""

    triples: int
    owners: tuple[tuple[int, ...], ...]
    find: Callable[[Sequence[str]], list[list[tuple[int, int, int]]]]
    match: Matcher

    @classmethod
    def of(cls, triples: Sequence[Triple], forms: Sequence[str], rules: MatchRules) -> "Searches":
        """Search for the wordings of these forms, and by these rules."""
        wordings = wordings_of(triples, forms)
        return cls(len(triples), wordings.owners, PhraseFinder(wordings.texts).find, matcher_of(triples, rules))


class DocumentCounter:
    """Adds documents up. Words are matched whole, upper and lower case alike, as `kisl corpus build` matches them."""

    def __init__(self, searches: Searches) -> None:
        self._searches = searches
        self._counts = Counts.zeros(searches.triples)
        self._documents = self._long = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count documents, each a text."""
        for found, matches in zip(self._searches.find(texts), self._searches.match(texts), strict=True):
            stated = Counter(k for phrase, _, _ in found for k in self._searches.owners[phrase])
            self._add(stated, {match.triple for match in matches})

    def add_long(self, parts: Iterable[Part]) -> None:
        """Count one document that comes in parts."""
        stated: Counter[int] = Counter()
        matched: set[int] = set()
        for part in parts:
            found = (phrase for phrase, _, end in self._searches.find([part.text])[0] if end > part.carried)
            stated.update(k for phrase in found for k in self._searches.owners[phrase])
            matched.update(match.triple for match in self._searches.match([part.text])[0])
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
