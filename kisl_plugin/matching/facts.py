"""The built-in matchers: a document states a triple when it names its subject and its object, or its subject."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from kisl_plugin.matching.finder import Mention, SpellingFinder, spans
from kisl_plugin.matching.rules import SUBJECT, MatchRules
from kisl_plugin.matching.scopes import Span, near
from kisl_plugin.matching.spellings import spellings_of
from kisl_plugin.roles import Match
from kisl_plugin.triples import Triple

MANY = 16


class FactMatcher:
    """Finds the triples that texts state by `rules`: one pass over a text for all labels and aliases.

    Only where a text holds the spellings of a pair is it looked at more closely: where they stand, and how near.
    """

    def __init__(self, triples: Sequence[Triple], rules: MatchRules) -> None:
        self._rules = rules
        numbers: dict[bytes, int] = {}
        of_subject: dict[int, list[int]] = defaultdict(list)
        self._subjects: list[tuple[int, ...]] = []
        self._objects: list[tuple[int, ...]] = []
        for index, triple in enumerate(triples):
            subjects = spellings_of(triple.subject, triple.subject_aliases, rules)
            objects = spellings_of(triple.object, triple.object_aliases, rules) if rules.match != SUBJECT else []
            self._subjects.append(tuple(numbers.setdefault(spelling, len(numbers)) for spelling in subjects))
            self._objects.append(tuple(numbers.setdefault(spelling, len(numbers)) for spelling in objects))
            for number in self._subjects[-1]:
                of_subject[number].append(index)
        self._of_subject = dict(of_subject)
        self._by_object = {number: self._sorted_by_object(of) for number, of in of_subject.items() if len(of) > MANY}
        self._finder = SpellingFinder(list(numbers))

    def __call__(self, texts: Sequence[str]) -> list[list[Match]]:
        """For each text the triples it states, ascending."""
        return [
            self._matches(text, mentions) if mentions else []
            for text, mentions in zip(texts, self._finder.mentions(texts), strict=True)
        ]

    def _matches(self, text: str, mentions: list[Mention]) -> list[Match]:
        candidates = sorted(set(self._candidates({mention[0] for mention in mentions})))
        if not candidates:
            return []
        places: dict[int, list[Span]] = defaultdict(list)
        wanted = {number for index in candidates for number in (*self._subjects[index], *self._objects[index])}
        for number, start, end in spans(text, [mention for mention in mentions if mention[0] in wanted]):
            places[number].append((start, end))
        find = near(self._rules.scope, text)
        found = []
        for index in candidates:
            subjects = _all_of(places, self._subjects[index])
            if self._rules.match == SUBJECT:
                found.append(Match(index, self._rules.name, subjects[0], None))
            elif pair := find(subjects, _all_of(places, self._objects[index])):
                found.append(Match(index, self._rules.name, *pair))
        return found

    def _candidates(self, found: set[int]) -> Iterator[int]:
        """Triples of which a spelling of the subject and one of the object are among the `found` ones."""
        for number in found & self._of_subject.keys():
            if self._rules.match == SUBJECT:
                yield from self._of_subject[number]
            elif by_object := self._by_object.get(number):
                for other in found & by_object.keys():
                    yield from by_object[other]
            else:
                yield from (one for one in self._of_subject[number] if not found.isdisjoint(self._objects[one]))

    def _sorted_by_object(self, triples: Sequence[int]) -> dict[int, list[int]]:
        """The triples of one subject by the spellings of their objects: the United States have thousands."""
        found: dict[int, list[int]] = defaultdict(list)
        for index in triples:
            for number in self._objects[index]:
                found[number].append(index)
        return dict(found)


def _all_of(places: dict[int, list[Span]], numbers: tuple[int, ...]) -> list[Span]:
    return sorted(span for number in numbers for span in places.get(number, ()))
