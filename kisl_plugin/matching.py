"""When a document states a triple: which spellings read the same, what a whole word is, and which names are searched.

A document states a triple when it contains the subject and the object (`pair`), or the subject alone (`subject`), each
by its label or an alias, as whole words. Text and names are compared after Unicode NFKC and casefolding; any white
space is one space, and the kinds of apostrophes and of dashes are one each. Other rules are plugins (`kisl_matcher`).
"""

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from traceback import extract_tb

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.hookspecs import Match, Matcher, hookimpl, manager
from kisl_plugin.triples import Triple

__all__ = ["PAIR", "MatchRules", "SpellingFinder", "count_whole_words", "fold", "matcher_of", "unsearchable"]

PAIR, SUBJECT = "pair", "subject"


@dataclass(frozen=True)
class MatchRules:
    """What makes a document state a triple.

    Attributes:
        match: "pair" (subject and object), "subject" (the subject alone: stricter), or the name of a plugin's matcher.
        min_length: aliases with fewer characters are not searched; labels always are.
        stop_list: aliases that are not searched.
    """

    match: str = PAIR
    min_length: int = 4
    stop_list: tuple[str, ...] = ()


def matcher_of(triples: Sequence[Triple], rules: MatchRules | None = None) -> Matcher:
    """The matcher that `rules` name (default: `pair`), built in or from a plugin.

    Raises:
        InputError: no plugin provides the name, or the matcher's library is missing.
        KislError: the plugin failed to make it. Calling the matcher raises KislError where it fails or its answer is
            not a list of matches for each text.
    """
    rules = rules or MatchRules()
    name, most = rules.match, len(triples) - 1
    with _one_line_errors(name):
        matcher: Matcher | None = manager().hook.kisl_matcher(name=name, triples=triples, rules=rules)
    if matcher is None:
        built_in = f"built in: {PAIR}, {SUBJECT}"
        raise InputError(f"match {name!r}: unknown ({built_in}), and no plugin's hook kisl_matcher provides it")

    def checked(texts: Sequence[str]) -> list[list[Match]]:
        with _one_line_errors(name):
            answer = [list(matches) for matches in matcher(texts)]
        if len(answer) != len(texts):
            raise KislError(
                f"match {name!r}: {len(answer)} lists; expected one list of matches for each of {len(texts)} texts"
            )
        for match in (match for matches in answer for match in matches):
            if not isinstance(match, Match) or not 0 <= match.triple <= most:
                raise KislError(f"match {name!r}: returned {match!r}; expected a Match with a triple from 0 to {most}")
        return answer

    return checked


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Turn any exception of a matcher into one line that names the matcher and the line of code that failed."""
    try:
        yield
    except KislError:
        raise
    except Exception as error:
        last = extract_tb(error.__traceback__)[-1]
        where, message = f"{Path(last.filename).name}:{last.lineno}", " ".join(str(error).split())
        raise KislError(f"match {name!r}: failed with {type(error).__name__}: {message} ({where})") from error


# Folding: bytes that are equal where two texts read the same.
#
# In folded text a word consists of ASCII letters, digits, `_` and bytes from 0x80 up, so that word boundaries show in
# single bytes. Other characters beyond ASCII become control bytes, which folded text contains nowhere else.

_UPPER = bytes(range(65, 91))
_SPACES = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f"
_CONTROLS = bytes(i for i in range(32) if i not in _SPACES)
_FOLD_ASCII = bytes.maketrans(
    _UPPER + _SPACES + _CONTROLS, _UPPER.lower() + b" " * len(_SPACES) + b"\x7f" * len(_CONTROLS)
)
_LOOK_ALIKES = str.maketrans({**dict.fromkeys("’‘ʼʻ", "'"), **dict.fromkeys("‐‑‒–—―−", "-")})
_WORD = rb"[0-9A-Za-z_\x80-\xff]"
_BETWEEN_TEXTS = 0
_NOT_WORD = bytes(i for i in range(128) if i != _BETWEEN_TEXTS and not (chr(i).isalnum() or chr(i) == "_"))
_NOT_WORD_TO_SPACE = bytes.maketrans(_NOT_WORD, b" " * len(_NOT_WORD))
_CACHED_RUNS = 1 << 16


def fold(text: str) -> bytes:
    """The folded text, without spaces at its ends. Halves of surrogate pairs count as question marks."""
    readable = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return re.sub(b"  +", b" ", _fold_characters(readable)).strip(b" ")


def count_whole_words(spelling: bytes, folded: bytes) -> int:
    """How often a folded spelling occurs in a folded text as whole words; overlapping occurrences count."""
    if spelling not in folded:  # much faster than the expression
        return 0
    return len(re.findall(rb"(?<!%b)(?=%b(?!%b))" % (_WORD, re.escape(spelling), _WORD), folded))


def _fold_characters(text: str) -> bytes:
    """The folded text, several spaces not yet one."""
    composed = unicodedata.normalize("NFKC", text).casefold().translate(_LOOK_ALIKES)
    if composed.isascii():
        return composed.encode().translate(_FOLD_ASCII)
    parts = []
    for char in composed:
        if char.isascii():
            parts.append(char.encode().translate(_FOLD_ASCII))
        elif char.isalnum() or unicodedata.category(char).startswith("M"):
            parts.append(char.encode())
        elif char.isspace():
            parts.append(b" ")
        else:  # no part of a word: its number in octal digits, written as control bytes
            parts.append(b"\x1a" + bytes(0x10 + int(digit) for digit in f"{ord(char):o}"))
    return b"".join(parts)


def _fold_texts(texts: Sequence[str]) -> bytes:
    """The folded texts, each between a zero byte and a space on either side. Faster than `fold` for many long texts.

    Only runs of characters beyond ASCII are normalised, and texts repeat a few of them.
    """
    data = b"\0 %b \0" % b" \0 ".join(text.encode("utf-8", "replace").translate(_FOLD_ASCII) for text in texts)
    parts, last = [], 0
    for start, end in _runs_beyond_ascii(data):
        parts += [data[last:start], _fold_run(data[start:end])]
        last = end
    folded = np.frombuffer(b"".join([*parts, data[last:]]), dtype=np.uint8)
    return folded[_without_double_spaces(folded)].tobytes()


def _without_double_spaces(folded: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Selects the bytes that remain when one space stands for several."""
    space = folded == 32
    return np.concatenate([[True], ~(space[1:] & space[:-1])])


def _runs_beyond_ascii(data: bytes) -> Iterator[tuple[int, int]]:
    """Where characters beyond ASCII stand in UTF-8, with the ASCII character before where a mark belongs to it."""
    places = np.flatnonzero(np.frombuffer(data, dtype=np.int8) < 0)
    starts = places[np.diff(places, prepend=-2) > 1].tolist()
    ends = (places[np.diff(places, append=len(data) + 1) > 1] + 1).tolist()
    for start, end in zip(starts, ends, strict=True):
        yield start - (start > 0 and _begins_with_mark(data[start:end])), end


@lru_cache(_CACHED_RUNS)
def _fold_run(run: bytes) -> bytes:
    return _fold_characters(run.decode())


@lru_cache(_CACHED_RUNS)
def _begins_with_mark(run: bytes) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKC", run.decode())[0]) > 0


# Searching: all spellings in one pass over folded text.

_TEXTS_AT_ONCE = 32  # as many usual documents as fit a processor's cache
_Mention = tuple[int, int, int]
"""The number of a spelling, and where it begins and ends (exclusive)."""
_Span = tuple[int, int]


class SpellingFinder:
    """Finds `spellings` (folded, each once, none empty) as whole words; overlapping ones too.

    The automaton reads a space for every byte that is no part of a word, and its keys have a space on either side: so
    it finds whole words only, and stays in its first states over most of a text. Spellings with other characters than
    those of words are compared afterwards.

    Raises:
        InputError: the library for it is not installed.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        with needs_extra("corpus", "searching text for triples"):
            from ahocorasick_rs import BytesAhoCorasick, Implementation

        self._numbers = {spelling: number for number, spelling in enumerate(spellings)}
        keys = {b" %b " % spelling.translate(_NOT_WORD_TO_SPACE): spelling for spelling in spellings}
        # A single word is its own key; other keys may stand for several spellings (None).
        self._number_of_key = [None if b" " in key[1:-1] else self._numbers[word] for key, word in keys.items()]
        self._automaton = BytesAhoCorasick(list(keys), implementation=Implementation.ContiguousNFA)

    def mentions(self, texts: Sequence[str]) -> list[list[_Mention]]:
        """For each text the spellings it contains, by their ends; places are bytes of the folded text."""
        mentions: list[list[_Mention]] = [[] for _ in texts]
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            folded = _fold_texts(texts[first : first + _TEXTS_AT_ONCE])
            bounds = np.flatnonzero(np.frombuffer(folded, dtype=np.uint8) == _BETWEEN_TEXTS).tolist()
            text, begin, end = first - 1, 0, -1
            searched = folded.translate(_NOT_WORD_TO_SPACE)
            for key, start, stop in self._automaton.find_matches_as_indexes(searched, overlapping=True):
                while start > end:
                    text += 1
                    begin, end = bounds[text - first] + 1, bounds[text - first + 1]
                number = self._number_of_key[key]
                if number is None:
                    number = self._numbers.get(folded[start + 1 : stop - 1])
                if number is not None:
                    mentions[text].append((number, start + 1 - begin, stop - 1 - begin))
        return mentions


def _in_characters(text: str, mentions: Sequence[_Mention]) -> list[_Mention]:
    """Mentions of `text` with their places in its own characters instead of the bytes of its folded form."""
    if not mentions:
        return []
    data = b" %b " % text.encode("utf-8", "replace")  # _fold_texts puts a space around each text
    # Folded stretches of `data`, and for each folded byte the bytes it was made of, source … source_end - 1: what is
    # ASCII folds byte by byte, other pieces fold as a whole.
    stretches, sources, source_ends, last = [], [], [], 0
    for start, end in (*_runs_beyond_ascii(data), (len(data), len(data))):
        stretches.append(data[last:start].translate(_FOLD_ASCII))
        sources.append(np.arange(last, start))
        source_ends.append(np.arange(last + 1, start + 1))
        for begin, stop, folded in _pieces(data[start:end]):
            stretches.append(folded)
            sources.append(np.full(len(folded), start + begin))
            source_ends.append(np.full(len(folded), start + stop))
        last = end
    source, source_end = np.concatenate(sources), np.concatenate(source_ends)
    kept = _without_double_spaces(np.frombuffer(b"".join(stretches), dtype=np.uint8))
    # In UTF-8 every character has one byte that is not 10xxxxxx.
    character = np.concatenate([[0], np.cumsum((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80)])
    numbers, starts, ends = (np.array(column) for column in zip(*mentions, strict=True))
    # Less the space in front; a mark at the beginning of the text has joined with that space.
    begins = (character[source[kept][starts]] - 1).clip(0)
    stops = character[source_end[kept][ends - 1]] - 1
    return list(zip(numbers.tolist(), begins.tolist(), stops.tolist(), strict=True))


def _pieces(run: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The parts of a run beyond ASCII that fold independently: begin, stop (exclusive) in bytes, folded form."""
    pieces: list[str] = []
    for char in run.decode():
        first = unicodedata.normalize("NFKC", char)[0]
        # A mark, or the second part of a Korean syllable, can join with what stands before it.
        if pieces and (unicodedata.category(first).startswith("M") or "\u1160" <= first <= "\u11ff"):
            pieces[-1] += char
        else:
            pieces.append(char)
    begin = 0
    for piece in pieces:
        stop = begin + len(piece.encode())
        yield begin, stop, _fold_characters(piece)
        begin = stop


# The spellings by which a subject and an object are searched.

_WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def unsearchable(triples: Sequence[Triple], rules: MatchRules) -> dict[int, str]:
    """The triples, by index, whose subject or object `rules` cannot find, or not everywhere, each with the reason."""
    reasons = {}
    for index, triple in enumerate(triples):
        sides = [("subject", triple.subject, triple.subject_aliases), ("object", triple.object, triple.object_aliases)]
        for side, label, aliases in reversed(sides[: 1 if rules.match == SUBJECT else 2]):
            spellings = _spellings_of(label, aliases, rules)
            if not spellings:
                reasons[index] = f"{side} {label!r} has no character to search for"
            elif all(any(map(_is_unspaced, spelling.decode())) for spelling in spellings):
                limit = "found only where no letter stands beside it"
                reasons[index] = f"{side} {label!r} is in a script without spaces between words: {limit}"
    return reasons


def _is_unspaced(char: str) -> bool:
    return not char.isascii() and unicodedata.name(char, "").startswith(_WITHOUT_SPACES)


def _spellings_of(label: str, aliases: Iterable[str], rules: MatchRules) -> list[bytes]:
    """The label and those aliases that the rules allow, folded."""
    stopped = _fold_all(rules.stop_list)
    long_enough = (one for one in aliases if len(unicodedata.normalize("NFKC", one).strip()) >= rules.min_length)
    allowed = (spelling for spelling in map(fold, long_enough) if spelling not in stopped)
    return [spelling for spelling in dict.fromkeys([fold(label), *allowed]) if spelling]


@lru_cache(maxsize=1)
def _fold_all(texts: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(map(fold, texts))


# The built-in matchers.


@hookimpl
def kisl_matcher(name: str, triples: Sequence[Triple], rules: MatchRules) -> Matcher | None:
    """Provide the matchers `pair` and `subject`."""
    return _TripleMatcher(triples, rules) if name in (PAIR, SUBJECT) else None


class _TripleMatcher:
    """Finds the triples that texts state by `rules`: one pass over a text for all labels and aliases.

    Only for a text that contains both sides of a triple it is worked out where they stand.
    """

    def __init__(self, triples: Sequence[Triple], rules: MatchRules) -> None:
        self._subject_only = rules.match == SUBJECT
        # "document": both may stand anywhere in it. The name is kept since it is in files that exist.
        self._rule = SUBJECT if self._subject_only else f"{PAIR}:document"
        numbers: dict[bytes, int] = {}
        self._subjects: list[tuple[int, ...]] = []
        self._objects: list[tuple[int, ...]] = []
        self._of_subject: dict[int, list[int]] = {}
        for index, triple in enumerate(triples):
            subjects = _spellings_of(triple.subject, triple.subject_aliases, rules)
            objects = [] if self._subject_only else _spellings_of(triple.object, triple.object_aliases, rules)
            self._subjects.append(tuple(numbers.setdefault(spelling, len(numbers)) for spelling in subjects))
            self._objects.append(tuple(numbers.setdefault(spelling, len(numbers)) for spelling in objects))
            for number in self._subjects[-1]:
                self._of_subject.setdefault(number, []).append(index)
        self._finder = SpellingFinder(list(numbers))

    def __call__(self, texts: Sequence[str]) -> list[list[Match]]:
        """For each text the triples it states, ascending."""
        return [
            self._matches(text, mentions) for text, mentions in zip(texts, self._finder.mentions(texts), strict=True)
        ]

    def _matches(self, text: str, mentions: list[_Mention]) -> list[Match]:
        spellings = {number for number, _, _ in mentions}
        indices = sorted({
            index
            for number in spellings & self._of_subject.keys()
            for index in self._of_subject[number]
            if self._subject_only or not spellings.isdisjoint(self._objects[index])
        })  # fmt: skip
        if not indices:
            return []
        spellings = {number for index in indices for number in (*self._subjects[index], *self._objects[index])}
        places: dict[int, list[_Span]] = defaultdict(list)
        for number, start, end in _in_characters(text, [mention for mention in mentions if mention[0] in spellings]):
            places[number].append((start, end))
        matches = []
        for index in indices:
            subjects, objects = (
                sorted(span for number in numbers for span in places.get(number, ()))
                for numbers in (self._subjects[index], self._objects[index])
            )
            subject, object = (subjects[0], None) if self._subject_only else _nearest(subjects, objects)
            matches.append(Match(index, self._rule, subject, object))
        return matches


def _nearest(subjects: Sequence[_Span], objects: Sequence[_Span]) -> tuple[_Span, _Span]:
    """The mention of the subject and that of the object which together take the fewest characters. Both are sorted."""

    def sooner(later: _Span, span: _Span) -> _Span:
        return later if later[1] < span[1] else span

    pairs: list[tuple[_Span, _Span]] = []
    for firsts, seconds in ((subjects, objects), (objects, subjects)):
        # After a first mention comes that of the seconds which ends soonest among those that begin no earlier.
        soonest = list(accumulate(reversed(seconds), sooner))[::-1]
        begins = [start for start, _ in seconds]
        for first in firsts:
            place = bisect_left(begins, first[0])
            if place < len(seconds):
                pairs.append((first, soonest[place]) if firsts is subjects else (soonest[place], first))
    return min(pairs, key=lambda pair: max(pair[0][1], pair[1][1]) - min(pair[0][0], pair[1][0]))
