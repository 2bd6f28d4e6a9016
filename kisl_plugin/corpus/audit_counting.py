"""Counts, in texts, the statements of triples and the triples that a text names."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from kisl_plugin.corpus.audit_wordings import NAMED, StatementFinder, Wordings
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.roles import IntArray
from kisl_plugin.triples import Triple


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
