"""The wordings of triples, and how often they stand in texts."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from kisl_plugin.matching import MatchRules, unsearchable
from kisl_plugin.matching.finder import PhraseFinder
from kisl_plugin.matching.folding import fold
from kisl_plugin.plugins import manager
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import templates_of, verbalizer_of

FORMS = ("statement", "question")
NAMED = MatchRules()
REMEMBERED = 100_000
_LABELS_APART = re.compile(r"(?<!\w)\{(subject|object)\}(?!\w)")
_WORD = rb"[0-9A-Za-z_\x80-\xff]"  # see matching/folding.py


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
        pairs = [(k, text) for k in sorted(self._everywhere) for text in wordings.of(k)]
        self._owners = [k for k, _ in pairs]
        self._phrases = PhraseFinder([text for _, text in pairs]) if pairs else None
        self._patterns = lru_cache(REMEMBERED)(self._patterns_of)

    def count(self, texts: Sequence[str], named: Sequence[Sequence[int]]) -> list[Counter[int]]:
        """For each text how often it holds a wording of which triple; `named`: the triples it states by NAMED."""
        everywhere = self._phrases.find(texts) if self._phrases else [[] for _ in texts]
        return [
            Counter(self._owners[phrase] for phrase, _, _ in found) + self._count_named(text, near)
            for text, near, found in zip(texts, named, everywhere, strict=True)
        ]

    def _count_named(self, text: str, triples: Sequence[int]) -> Counter[int]:
        near = [triple for triple in triples if triple not in self._everywhere]
        folded = fold(text) if near else b""
        return Counter({k: sum(_times(phrase, folded) for phrase in self._patterns(k)) for k in near})

    def _patterns_of(self, triple: int) -> tuple[bytes, ...]:
        return tuple(fold(text).strip(b" ") for text in self._wordings.of(triple))


def _times(phrase: bytes, folded: bytes) -> int:
    if phrase not in folded:
        return 0
    return len(re.findall(rb"(?<!%b)(?=%b(?!%b))" % (_WORD, re.escape(phrase), _WORD), folded))
