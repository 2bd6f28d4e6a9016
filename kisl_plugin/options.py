"""The options of items: the right object and three wrong ones of the same relation, chosen by hash."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice

from kisl_plugin.errors import InputError
from kisl_plugin.triples import Triple, folded_words

__all__ = ["DISTRACTORS", "Choices", "choices_of"]

DISTRACTORS = 3
_HASHED_DRAWS = 64


@dataclass(frozen=True)
class Choices:
    """The four options of an item; `answer` is the right one's index."""

    options: tuple[str, str, str, str]
    answer: int


def choices_of(triples: Sequence[Triple]) -> list[Choices]:
    """The options of each triple, in the order of `triples`.

    A triple's options depend on it and on the set of its relation's objects in `triples`; neither on the order of
    `triples` nor on groups. No option but the right one is an object of the same subject in `triples` or a variant
    of another option: the same id, the same label or alias but for case, diacritics, punctuation and a leading
    "the", or a label whose words are all among the other's.

    Raises:
        InputError: a relation has too few objects for a triple; the error names both.
    """
    pools: dict[str, _Pool] = defaultdict(_Pool)
    for triple in triples:
        pools[triple.relation_id].add(triple)
    return [_choices(triple, pools[triple.relation_id]) for triple in triples]


@dataclass(eq=False)
class _Object:
    """An object's label, and the names and ids that all its triples give it."""

    label: str
    words: frozenset[str]
    names: set[str]
    ids: set[str] = field(default_factory=set)

    def is_variant_of(self, other: "_Object") -> bool:
        return (
            self is other
            or not self.ids.isdisjoint(other.ids)
            or not self.names.isdisjoint(other.names)
            or bool(self.words and other.words and (self.words <= other.words or self.words >= other.words))
        )


class _Pool:
    """The objects of one relation, and those of each of its subjects."""

    def __init__(self) -> None:
        self.by_label: dict[str, _Object] = {}
        self.of_subject: dict[str, list[_Object]] = defaultdict(list)

    @cached_property
    def objects(self) -> list[_Object]:
        """All of them, sorted by label: to be read when the last triple was added."""
        return [self.by_label[label] for label in sorted(self.by_label)]

    def add(self, triple: Triple) -> None:
        label = triple.object
        if label not in self.by_label:
            self.by_label[label] = _Object(label, frozenset(folded_words(label)), {_name(label)})
        obj = self.by_label[label]
        obj.ids |= {triple.object_id} - {""}
        obj.names |= {_name(alias) for alias in triple.object_aliases}
        for key in _subject_keys(triple):
            self.of_subject[key].append(obj)


def _name(label: str) -> str:
    return "".join(folded_words(label)) or label


def _subject_keys(triple: Triple) -> tuple[str, ...]:
    # The objects of a namesake are right answers too: the question names the subject by its label alone.
    return (f"label {triple.subject}", f"id {triple.subject_id}") if triple.subject_id else (f"label {triple.subject}",)


def _choices(triple: Triple, pool: _Pool) -> Choices:
    numbers = _hashed_numbers(triple)
    answer = next(numbers) % (DISTRACTORS + 1)
    refused = [obj for key in _subject_keys(triple) for obj in pool.of_subject[key]]
    chosen: list[_Object] = []
    for number in islice(numbers, _HASHED_DRAWS):
        candidate = pool.objects[number % len(pool.objects)]
        if not any(map(candidate.is_variant_of, (*refused, *chosen))):
            chosen.append(candidate)
        if len(chosen) == DISTRACTORS:
            break
    else:  # for the few triples whose draws failed: all objects, from a hashed place on
        begin = next(numbers) % len(pool.objects)
        rotated = pool.objects[begin:] + pool.objects[:begin]
        chosen = _independent([o for o in rotated if not any(map(o.is_variant_of, refused))], DISTRACTORS)
    if not chosen:
        raise InputError(
            f"relation {triple.relation_id!r}: {triple.subject!r} ({triple.object!r}) has fewer than {DISTRACTORS} "
            f"possible wrong options among the relation's {len(pool.objects)} objects; add triples of this relation "
            "with other objects"
        )
    options = [distractor.label for distractor in chosen]
    options.insert(answer, triple.object)
    return Choices((options[0], options[1], options[2], options[3]), answer)


def _independent(candidates: list[_Object], size: int) -> list[_Object]:
    """`size` candidates that are no variants of each other, by search with backtracking; empty if there are none."""
    for position, first in enumerate(candidates):
        others = [o for o in candidates[position + 1 :] if not o.is_variant_of(first)]
        rest = _independent(others, size - 1) if size > 1 else []
        if size == 1 or rest:
            return [first, *rest]
    return []


def _hashed_numbers(triple: Triple) -> Iterator[int]:
    """An endless stream of numbers below 2^64 from the SHA-256 of the triple's labels and ids."""
    parts = (triple.subject, triple.subject_id, triple.relation_id, triple.object, triple.object_id)
    identity = hashlib.sha256("\x1f".join(parts).encode())
    for block in count():
        hashed = identity.copy()
        hashed.update(block.to_bytes(8, "big"))
        digest = hashed.digest()
        for at in range(0, len(digest), 8):
            yield int.from_bytes(digest[at : at + 8], "big")
