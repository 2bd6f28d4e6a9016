"""How near a subject and an object must stand to each other."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

from kisl_plugin.matching.rules import DOCUMENT, PARAGRAPH, SENTENCE

Span = tuple[int, int]
Pair = tuple[Span, Span]

_LINE_END = re.compile(r"[\n\r\u2028\u2029]+")
# A full stop after one letter is an initial's: J. R. R. Tolkien.
_SENTENCE_END = re.compile(r"""(?:(?<!\b[^\W\d_])\.|[!?…])["'”’»)\]]*\s+|[。！？]["'”’」』）]*|[\n\r\u2028\u2029]+""")


def near(scope: str, text: str) -> Callable[[Sequence[Span], Sequence[Span]], Pair | None]:
    """A function that finds a subject's and an object's mention within the scope, or None."""
    if scope == PARAGRAPH:
        return _in_one_part(_LINE_END, text)
    if scope == SENTENCE:
        return _in_one_part(_SENTENCE_END, text)
    widest = len(text) if scope == DOCUMENT else int(scope)
    return lambda subjects, objects: _narrowest(subjects, objects, widest)


def _in_one_part(ends: re.Pattern[str], text: str) -> Callable[[Sequence[Span], Sequence[Span]], Pair | None]:
    begins = [match.end() for match in ends.finditer(text)]

    def by_part(spans: Sequence[Span]) -> dict[int, Span]:
        # A mention that goes over an end belongs to both parts.
        return {
            part: span
            for span in reversed(spans)
            for part in range(bisect_right(begins, span[0]), bisect_right(begins, span[1] - 1) + 1)
        }

    def find(subjects: Sequence[Span], objects: Sequence[Span]) -> Pair | None:
        left, right = by_part(subjects), by_part(objects)
        shared = min(left.keys() & right.keys(), default=None)
        return None if shared is None else (left[shared], right[shared])

    return find


def _narrowest(subjects: Sequence[Span], objects: Sequence[Span], widest: int) -> Pair | None:
    pairs = [(first, second) for first, second in _followed(subjects, objects)]
    pairs += [(first, second) for second, first in _followed(objects, subjects)]
    best = min(pairs, key=_width)
    return best if _width(best) <= widest else None


def _width(pair: Pair) -> int:
    return max(pair[0][1], pair[1][1]) - min(pair[0][0], pair[1][0])


def _followed(firsts: Sequence[Span], seconds: Sequence[Span]) -> list[Pair]:
    """Each of `firsts` with that of `seconds`, among those that begin no earlier, which ends first."""
    seconds = sorted(seconds)
    soonest = list(seconds)
    for place in range(len(soonest) - 2, -1, -1):
        soonest[place] = min(soonest[place], soonest[place + 1], key=lambda span: span[1])
    begins = [start for start, _ in seconds]
    places = [bisect_right(begins, first[0] - 1) for first in firsts]
    return [(first, soonest[place]) for first, place in zip(firsts, places, strict=True) if place < len(soonest)]
