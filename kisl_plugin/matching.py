"""When a document states a triple: which spellings read the same, what a whole word is, and which names are searched.

A document states a triple when it contains the subject and the object (`pair`), or the subject alone (`subject`), each
by its label or an alias, as whole words; one span of the text is not both. Text and names are compared after Unicode
NFKC and casefolding; any white space is one space, and the kinds of apostrophes and of dashes are one each. Other rules
are plugins (`kisl_matcher`).
"""

import re
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from traceback import extract_tb

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.hookspecs import IntArray, Match, Matcher, hookimpl, manager
from kisl_plugin.triples import Triple

__all__ = ["PAIR", "MatchRules", "count_whole_words", "fold", "matcher_of", "unsearchable"]

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
_BETWEEN_TEXTS = 0
_NOT_WORD = bytes(i for i in range(128) if i != _BETWEEN_TEXTS and not (chr(i).isalnum() or chr(i) == "_"))
_WORD = frozenset(bytes([i]) for i in range(1, 256) if i not in _NOT_WORD)
_NOT_WORD_TO_SPACE = bytes.maketrans(_NOT_WORD, b" " * len(_NOT_WORD))
_CACHED_RUNS = 1 << 16


def fold(text: str) -> bytes:
    """The folded text, without spaces at its ends. Halves of surrogate pairs count as question marks."""
    readable = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return re.sub(b"  +", b" ", _fold_characters(readable)).strip(b" ")


def count_whole_words(spelling: bytes, folded: bytes) -> int:
    """How often a folded spelling occurs in a folded text as whole words; overlapping occurrences count."""
    return sum(1 for _ in _whole_words(spelling, folded))


def _whole_words(spelling: bytes, folded: bytes) -> Iterator[int]:
    """Where a folded spelling begins in a folded text as whole words, ascending."""
    at = folded.find(spelling)
    while at >= 0:
        if folded[at - 1 : at] not in _WORD and folded[at + len(spelling) : at + len(spelling) + 1] not in _WORD:
            yield at
        at = folded.find(spelling, at + 1)


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
    selected = np.ones(len(folded), dtype=bool)
    selected[1:] = ~(space[1:] & space[:-1])
    return selected


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


# Searching: the keys of all spellings in one pass over folded text.

_TEXTS_AT_ONCE = 128
_Mention = tuple[int, int, int]
"""The number of a spelling, and where it begins and ends (exclusive)."""
_Span = tuple[int, int]
_Hits = list[tuple[int, int, int]]


class _KeySearch:
    """Finds in which texts the keys of `spellings` (folded, each once, none empty) occur.

    A key has a space for every byte that is no part of a word, and one on either side; so it stands for whole words
    only, and the automaton stays in its first states over most of a text. A text that contains a spelling contains its
    key; whether a text with the key contains the spelling is for the caller to check.

    `key_of` [spellings] is the key of each, `keys` their number. A key without a word ("=", an album, gives three
    spaces) stands almost everywhere: such spellings are searched one by one, each up to its first place in a text.

    Raises:
        InputError: no library for it is installed.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        numbers: dict[bytes, int] = {}
        self._apart: list[tuple[int, bytes]] = []
        self.key_of = np.empty(len(spellings), dtype=np.int32)
        for number, spelling in enumerate(spellings):
            key = b" %b " % spelling.translate(_NOT_WORD_TO_SPACE)
            self.key_of[number] = numbers.setdefault(key, len(numbers))
            if not key.strip():
                self._apart.append((numbers[key], spelling))
        self.keys = len(numbers)
        searched_apart = {key for key, _ in self._apart}
        self._in_automaton = np.array([n for n in numbers.values() if n not in searched_apart], dtype=np.int64)
        self._patterns: list[bytes] | None = [key for key, n in numbers.items() if n not in searched_apart]
        self._find: Callable[[bytes], _Hits] = _no_hits

    def keys_in(self, folded: bytes, bounds: IntArray) -> tuple[IntArray, IntArray]:
        """The numbers of texts and of keys that occur in them: pairs, ascending, each once.

        `bounds` are the places of the zero bytes around each of the texts.
        """
        searched = folded.translate(_NOT_WORD_TO_SPACE)
        if self._patterns is not None:  # the automaton is laid out for text like the first that is searched
            self._find = _automaton(self._patterns, searched) if self._patterns else _no_hits
            self._patterns = None
        hits = np.array(self._find(searched), dtype=np.int64).reshape(-1, 3)
        places, keys = [hits[:, 0]], [self._in_automaton[hits[:, 2]]]
        for key, spelling in self._apart:
            at, firsts = 0, list[int]()
            while (at := folded.find(spelling, at)) >= 0:
                firsts.append(at)
                at = int(bounds[np.searchsorted(bounds, at)])
            places.append(np.array(firsts, dtype=np.int64))
            keys.append(np.full(len(firsts), key))
        texts = np.searchsorted(bounds, np.concatenate(places)) - 1
        pairs = np.unique(texts * self.keys + np.concatenate(keys))
        return pairs // self.keys, pairs % self.keys


def _no_hits(searched: bytes) -> _Hits:
    return []


def _automaton(patterns: list[bytes], sample: bytes) -> Callable[[bytes], _Hits]:
    """A search for all patterns at once: begin, end (exclusive) and pattern of each place, overlapping ones too.

    daachorse is two to three times as fast; not every machine has a wheel of it.
    """
    with needs_extra("corpus", "searching text for triples"):
        try:
            from daachorse import DoubleArrayAhoCorasick
        except ImportError:
            from ahocorasick_rs import BytesAhoCorasick, Implementation

            automaton = BytesAhoCorasick(patterns, implementation=Implementation.ContiguousNFA)
            matches = partial(automaton.find_matches_as_indexes, overlapping=True)
            return lambda searched: [(start, end, pattern) for pattern, start, end in matches(searched)]
    return DoubleArrayAhoCorasick(patterns, corpus=[sample], use_prefilter=True).find_overlapping


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


class _Sides:
    """The spellings of one side of all triples: numbers [n], those of triple k from ends[k] to ends[k+1] - 1."""

    def __init__(self) -> None:
        self._numbers, self._ends = array("i"), array("q", [0])

    def add(self, numbers: Iterable[int]) -> None:
        """The spellings of the next triple."""
        self._numbers.extend(numbers)
        self._ends.append(len(self._numbers))

    def arrays(self) -> tuple[NDArray[np.int32], IntArray]:
        """`numbers` and `ends`."""
        return np.array(self._numbers, dtype=np.int32), np.array(self._ends, dtype=np.int64)


class _TripleMatcher:
    """Finds the triples that texts state by `rules`: one pass over a text for all labels and aliases.

    The pass finds keys; a triple of which a text contains both sides' keys is a candidate, and only for candidates the
    spellings themselves are searched.
    """

    def __init__(self, triples: Sequence[Triple], rules: MatchRules) -> None:
        self._subject_only = rules.match == SUBJECT
        # "document": both may stand anywhere in it. The name is kept since it is in files that exist.
        self._rule = SUBJECT if self._subject_only else f"{PAIR}:document"
        numbers: dict[bytes, int] = {}
        subjects, objects = _Sides(), _Sides()
        for triple in triples:
            subject = _spellings_of(triple.subject, triple.subject_aliases, rules)
            object = [] if self._subject_only else _spellings_of(triple.object, triple.object_aliases, rules)
            subjects.add(numbers.setdefault(spelling, len(numbers)) for spelling in subject)
            objects.add(numbers.setdefault(spelling, len(numbers)) for spelling in object)
        self._spellings = list(numbers)
        del numbers
        self._search = _KeySearch(self._spellings)
        self._subjects, self._subject_ends = subjects.arrays()
        self._objects, self._object_ends = objects.arrays()
        # The triples of each key of a subject, key by key.
        keys = self._search.key_of[self._subjects]
        order = np.argsort(keys, kind="stable")
        self._of_key = np.repeat(np.arange(len(triples), dtype=np.int32), np.diff(self._subject_ends))[order]
        self._of_key_ends = np.searchsorted(keys[order], np.arange(self._search.keys + 1))

    def __call__(self, texts: Sequence[str]) -> list[list[Match]]:
        """For each text the triples it states, ascending."""
        matches: list[list[Match]] = [[] for _ in texts]
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            folded = _fold_texts(texts[first : first + _TEXTS_AT_ONCE])
            bounds = np.flatnonzero(np.frombuffer(folded, dtype=np.uint8) == _BETWEEN_TEXTS)
            for text, candidates in self._candidates(*self._search.keys_in(folded, bounds)):
                part = folded[bounds[text] + 1 : bounds[text + 1]]
                matches[first + text] = self._matches(texts[first + text], part, candidates)
        return matches

    def _candidates(self, texts: IntArray, keys: IntArray) -> Iterator[tuple[int, list[int]]]:
        """Texts, and the triples of which each contains both sides' keys; `texts` and `keys` are pairs, ascending."""
        rows, places = _ranges(self._of_key_ends, keys)
        count = len(self._subject_ends)
        pairs = np.unique(texts[rows] * count + self._of_key[places])
        owners, triples = pairs // count, pairs % count
        if not self._subject_only:
            rows, places = _ranges(self._object_ends, triples)
            present = texts * self._search.keys + keys
            needed = owners[rows] * self._search.keys + self._search.key_of[self._objects[places]]
            is_there = present[np.searchsorted(present, needed).clip(max=len(present) - 1)] == needed
            stated = np.zeros(len(triples), dtype=bool)
            stated[rows[is_there]] = True
            owners, triples = owners[stated], triples[stated]
        for text in np.unique(owners).tolist():
            yield text, triples[owners == text].tolist()

    def _matches(self, text: str, folded: bytes, candidates: list[int]) -> list[Match]:
        sides = [
            (self._subjects[self._subject_ends[k] : self._subject_ends[k + 1]].tolist(),
             self._objects[self._object_ends[k] : self._object_ends[k + 1]].tolist())
            for k in candidates
        ]  # fmt: skip
        mentions = [
            (number, at, at + len(self._spellings[number]))
            for number in {number for side in sides for numbers in side for number in numbers}
            for at in _whole_words(self._spellings[number], folded)
        ]
        places: dict[int, list[_Span]] = defaultdict(list)
        for number, start, end in _in_characters(text, mentions):
            places[number].append((start, end))
        matches = []
        for index, numbers in zip(candidates, sides, strict=True):
            subjects, objects = (sorted(span for number in side for span in places.get(number, ())) for side in numbers)
            if self._subject_only and subjects:
                matches.append(Match(index, self._rule, subjects[0]))
            elif pair := _nearest(subjects, objects):
                matches.append(Match(index, self._rule, *pair))
        return matches


def _ranges(ends: IntArray, which: IntArray) -> tuple[IntArray, IntArray]:
    """For each of `which`, in turn, the numbers ends[w] … ends[w+1] - 1: their rows in `which`, and the numbers."""
    counts = ends[which + 1] - ends[which]
    rows = np.repeat(np.arange(len(which)), counts)
    return rows, np.arange(len(rows)) + np.repeat(ends[which] - np.cumsum(counts) + counts, counts)


def _nearest(subjects: Sequence[_Span], objects: Sequence[_Span]) -> tuple[_Span, _Span] | None:
    """The mention of the subject and that of the object which together take the fewest characters. Both are sorted.

    None where there are no two: one span is not both, or "Swedish" alone would state that the Swedes speak it.
    """

    def sooner(later: _Span, span: _Span) -> _Span:
        return later if later[1] < span[1] else span

    pairs: list[tuple[_Span, _Span]] = []
    for firsts, seconds in ((subjects, objects), (objects, subjects)):
        # After a first mention comes that of the seconds which ends soonest among those that begin no earlier.
        soonest = list(accumulate(reversed(seconds), sooner))[::-1]
        begins = [start for start, _ in seconds]
        for first in firsts:
            place, after = bisect_left(begins, first[0]), bisect_right(begins, first[0])
            others = [*(span for span in seconds[place:after] if span != first), *soonest[after : after + 1]]
            if others:
                second = min(others, key=lambda span: span[1])
                pairs.append((first, second) if firsts is subjects else (second, first))
    return min(pairs, key=lambda pair: max(pair[0][1], pair[1][1]) - min(pair[0][0], pair[1][0]), default=None)
