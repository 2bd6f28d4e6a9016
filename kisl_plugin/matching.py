"""Which triples a document states: those whose subject and object it names."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.roles import Matcher
from kisl_plugin.triples import Triple

BUILT_IN = "subject_object"
SHORTEST_LABEL = 3


@hookimpl
def kisl_matcher(name: str, triples: Sequence[Triple]) -> Matcher | None:
    """Provide the matcher `subject_object`."""
    return SubjectObjectMatcher(triples) if name == BUILT_IN else None


def matcher_of(name: str, triples: Sequence[Triple]) -> Matcher:
    """The matcher of a name, asked of the plugins.

    Raises:
        InputError: no plugin knows the name, or the matcher's library is missing.
    """
    from kisl_plugin.plugins import manager

    found: Matcher | None = manager().hook.kisl_matcher(name=name, triples=triples)
    if found is None:
        raise InputError(
            f"matcher {name!r}: unknown (built in: {BUILT_IN}); correct it, or install a plugin with the hook "
            "kisl_matcher"
        )
    return found


class SubjectObjectMatcher:
    """Finds the triples whose subject and object, each by its label or an alias, both occur in a text.

    They occur as whole words (no letter, mark, digit or underscore on either side) with the label's own capitals, "The"
    and "the" at its beginning taken as one. Any white space between words counts as one space and ’ as '. Labels
    below three characters are passed over: they occur everywhere. One pass over the text finds all labels.
    """

    def __init__(self, triples: Sequence[Triple]) -> None:
        try:
            from ahocorasick_rs import AhoCorasick
        except ImportError:
            raise InputError(
                f"matcher {BUILT_IN!r}: ahocorasick-rs is missing; pip install 'kisl-plugin[corpus]'"
            ) from None
        numbers: dict[str, int] = defaultdict(lambda: len(numbers))
        self._of_subject: dict[int, list[int]] = defaultdict(list)
        self._objects: list[frozenset[int]] = []
        for index, triple in enumerate(triples):
            for spelling in _spellings((triple.subject, *triple.subject_aliases)):
                self._of_subject[numbers[spelling]].append(index)
            objects = _spellings((triple.object, *triple.object_aliases))
            self._objects.append(frozenset(numbers[spelling] for spelling in objects))
        self._automaton = AhoCorasick(list(numbers))

    def __call__(self, text: str) -> list[int]:
        """Indices of the triples that `text` states, ascending."""
        found = self._labels_in(_plain(text))
        stated = {
            index
            for label in found
            for index in self._of_subject.get(label, ())
            if not found.isdisjoint(self._objects[index])
        }
        return sorted(stated)

    def _labels_in(self, text: str) -> set[int]:
        """Numbers of the labels that occur in `text` as whole words."""
        fenced = f" {text} "
        return {
            label
            for label, start, end in self._automaton.find_matches_as_indexes(fenced, overlapping=True)
            if not (_is_word(fenced[start - 1]) or _is_word(fenced[end]))
        }


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


def _plain(text: str) -> str:
    # Lone surrogates, which JSON can hold, cannot be searched.
    searchable = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(unicodedata.normalize("NFC", searchable).replace("’", "'").split())


def _spellings(labels: Iterable[str]) -> set[str]:
    plain = {label for label in map(_plain, labels) if len(label) >= SHORTEST_LABEL}
    return plain | {label[0].swapcase() + label[1:] for label in plain if label[:4] in ("the ", "The ")}
