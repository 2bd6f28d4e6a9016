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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from traceback import extract_tb

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError, KislError
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
_SPACE = 32
_NOT_WORD = bytes(i for i in range(128) if not (chr(i).isalnum() or chr(i) == "_"))
_WORD = frozenset(bytes([i]) for i in range(256) if i not in _NOT_WORD)
_WORDS_TO_LOWER = bytes.maketrans(_UPPER + _NOT_WORD, _UPPER.lower() + b" " * len(_NOT_WORD))
_CACHED_RUNS = 1 << 16


def fold(text: str) -> bytes:
    """The folded text, without spaces at its ends. Halves of surrogate pairs count as question marks."""
    readable = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return _one_space(_fold_characters(readable)).strip(b" ")


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


def _one_space(folded: bytes) -> bytes:
    """The folded text, one space in place of several."""
    return re.sub(b"  +", b" ", folded)


def _fold_characters(text: str) -> bytes:
    """The folded text, several spaces not yet one."""
    composed = text if text.isascii() else unicodedata.normalize("NFKC", text).casefold().translate(_LOOK_ALIKES)
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


def _fold_long(text: str) -> bytes:
    """The folded text, a space on either side, several spaces not yet one. Faster than `fold` for a long text.

    Only runs of characters beyond ASCII are normalised, and texts repeat a few of them.
    """
    data = b" %b " % text.encode("utf-8", "replace").translate(_FOLD_ASCII)
    if text.isascii():
        return data
    parts, last = list[bytes](), 0
    for start, end in _runs_beyond_ascii(data):
        parts += (data[last:start], _fold_run(data[start:end]))
        last = end
    return b"".join([*parts, data[last:]])


def _runs_beyond_ascii(data: bytes) -> Iterator[tuple[int, int]]:
    """Runs of characters beyond ASCII in UTF-8, each with the ASCII character before it, to which a mark belongs.

    `data` begins and ends with ASCII.
    """
    is_ascii = np.frombuffer(data, dtype=np.int8) >= 0
    edges = np.flatnonzero(is_ascii[1:] != is_ascii[:-1])
    return zip(edges[::2].tolist(), (edges[1::2] + 1).tolist(), strict=True)


@lru_cache(_CACHED_RUNS)
def _fold_run(run: bytes) -> bytes:
    return _fold_characters(run.decode())


# Searching: the words of all spellings in one pass over the words of many texts.

_CHARACTERS_AT_ONCE = 1 << 18
_FIRST_BYTES = np.array([(1 << 8 * length) - 1 for length in range(9)], dtype=np.uint64)
_WORD_FACTOR, _PAIR_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_SMALLEST_TABLE_BITS, _SPARSE_BITS = 12, 4
_Mention = tuple[int, int, int]
"""The number of a spelling, and where it begins and ends (exclusive)."""
_Span = tuple[int, int]
_Words = NDArray[np.uint64]


def _words_of(parts: Sequence[bytes]) -> tuple[_Words, IntArray, IntArray]:
    """The words of folded texts, one text after the other, each as a number made of its first 8 bytes and its length.

    Returns the numbers, uint64 [words + 1] with a 0 at the end; the place before each word in the texts joined by
    spaces, int64 [words]; and the place before each text there, int64 [texts]. ASCII texts need not be folded.
    """
    data = b" ".join([b"", *parts, b" " * 8]).translate(_WORDS_TO_LOWER)
    sizes = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
    is_space = np.frombuffer(data, dtype=np.uint8) == _SPACE
    edges = np.flatnonzero(is_space[1:] != is_space[:-1])  # the last byte before a word, the last one of it, and so on
    before, lengths = edges[::2], edges[1::2] - edges[::2]
    # Eight bytes from each place on, without a copy; of a shorter word those after its end become zero.
    windows = np.ndarray((len(data) - 8,), dtype="<u8", buffer=data, offset=1, strides=(1,))
    words = np.zeros(len(before) + 1, dtype=np.uint64)
    words[:-1] = windows[before] & _FIRST_BYTES.take(lengths, mode="clip")
    words[:-1] += lengths.view(np.uint64)
    words *= _WORD_FACTOR  # every bit of the bytes has an effect on the first bits
    return words, before, np.cumsum(sizes + 1) - (sizes + 1)


class _WordSearch:
    """Finds in which texts the words of `spellings` (folded, each once, none empty) follow one another.

    A text that contains a spelling has its words; whether a text with the words contains the spelling is for the caller
    to check: different words may have one number, and what is between words is not compared.

    A spelling of several words is looked up by two neighbouring ones, the two that are in the fewest spellings; the
    others are compared where these two are. `wordless` are the spellings without a word, such as "=" (an album), which
    are not searched.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        self._words, before, places = _words_of(spellings)
        ends = np.append(np.searchsorted(before, places), len(before))
        self._begins, self._counts = ends[:-1], np.diff(ends)
        self.wordless = np.flatnonzero(self._counts == 0)
        # The first words of pairs, and the words of spellings that have only one.
        owners = np.repeat(np.arange(len(spellings)), self._counts)
        firsts = np.flatnonzero((np.diff(owners, append=-1) == 0) | (self._counts[owners] == 1))
        codes = np.where(self._counts[owners[firsts]] == 1, self._words[firsts], _pairs(self._words)[firsts])
        _, number, times = np.unique(codes, return_inverse=True, return_counts=True)
        rarest = np.lexsort((times[number], owners[firsts]))
        rarest = rarest[np.diff(owners[firsts][rarest], prepend=-1) > 0]
        # By their codes: the spellings of each, and the words of each spelling before the looked up ones.
        chosen = rarest[np.argsort(codes[rarest], kind="stable")]
        self._owners = owners[firsts[chosen]]
        self._words_before = firsts[chosen] - self._begins[self._owners]
        self._codes, begins = np.unique(codes[chosen], return_index=True)
        self._code_ends = np.append(begins, len(chosen))
        # Tables by the first bits of a code: are there codes of words, and of pairs, that begin so; and where in _codes
        # those that begin so are. Most words and pairs of a text are in no spelling.
        bits = max(len(chosen).bit_length(), _SMALLEST_TABLE_BITS)
        self._shift, self._sparse_shift = np.uint64(64 - bits), np.uint64(64 - bits - _SPARSE_BITS)
        is_word = self._counts[self._owners] == 1
        self._is_word, self._is_pair = np.zeros((2, 1 << bits + _SPARSE_BITS), dtype=bool)
        self._is_word[_first_bits(codes[chosen[is_word]], self._sparse_shift)] = True
        self._is_pair[_first_bits(codes[chosen[~is_word]], self._sparse_shift)] = True
        slots = _first_bits(self._codes, self._shift)
        self._slot_begins = np.searchsorted(slots, np.arange(1 << bits)).astype(np.int32)
        self._fullest = int(np.bincount(slots).max(initial=0))

    def __call__(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        """The numbers of texts and of spellings whose words they have, in any order, perhaps more than once."""
        # A few texts at a time, so that the arrays stay in the processor's cache.
        ends = np.cumsum([len(text) for text in texts])
        cuts = np.searchsorted(ends, np.arange(0, ends[-1] if len(texts) else 0, _CHARACTERS_AT_ONCE))
        bounds = pairwise(np.unique([*cuts, len(texts)]).tolist())
        parts = [(start, *self._search(texts[start:stop])) for start, stop in bounds]
        none = np.zeros(0, dtype=np.int64)
        return (
            np.concatenate([none, *(start + numbers for start, numbers, _ in parts)]),
            np.concatenate([none, *(spellings for _, _, spellings in parts)]),
        )

    def _search(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        words, before, places = _words_of([text.encode() if text.isascii() else _fold_long(text) for text in texts])
        pairs = _pairs(words)
        only = np.flatnonzero(self._is_word.take(_first_bits(words, self._sparse_shift)))
        firsts = np.flatnonzero(self._is_pair.take(_first_bits(pairs, self._sparse_shift)))
        codes = np.concatenate([words[only], pairs[firsts]])
        number = self._slot_begins.take(_first_bits(codes, self._shift)).astype(np.int64)
        for _ in range(self._fullest - 1):
            number += self._codes.take(number, mode="clip") < codes
        is_known = np.flatnonzero(self._codes.take(number, mode="clip") == codes)
        rows, which = _ranges(self._code_ends, number[is_known])
        begins = np.concatenate([only, firsts])[is_known[rows]] - self._words_before[which]
        spellings = self._owners[which]
        longer = np.flatnonzero(self._counts[spellings] > 2)
        is_there = np.ones(len(begins), dtype=bool)
        place = 0
        while len(longer):
            expected = self._words[self._begins[spellings[longer]] + place]
            is_equal = words.take(begins[longer] + place, mode="clip") == expected
            is_there[longer[~is_equal]] = False
            place += 1
            longer = longer[is_equal & (place < self._counts[spellings[longer]])]
        begins, spellings = begins[is_there], spellings[is_there]
        return np.searchsorted(places, before[begins], side="right") - 1, spellings


def _first_bits(codes: _Words, shift: np.uint64) -> IntArray:
    """The first 64 - shift bits of codes, as places in a table."""
    places: IntArray = (codes >> shift).view(np.int64)
    return places


def _pairs(words: _Words) -> _Words:
    """A code for every word together with the one after it, uint64 [len(words) - 1]."""
    return words[:-1] * _PAIR_FACTOR + words[1:]


def _in_characters(text: str, mentions: Sequence[_Mention]) -> list[_Mention]:
    """Mentions of `text` with their places in its own characters instead of the bytes of its folded form."""
    if not mentions:
        return []
    data = b" %b " % text.encode("utf-8", "replace")  # _fold_long puts a space on either side
    # For each byte how many folded bytes were made of it, and of which bytes, up to which, those were made: what is
    # ASCII folds byte by byte, other pieces fold as a whole, counted at their first byte.
    sizes, ends = np.ones(len(data), dtype=np.int64), np.arange(1, len(data) + 1)
    for start, end in _runs_beyond_ascii(data):
        for begin, stop, size in _pieces(data[start:end]):
            sizes[start + begin : start + stop] = 0
            sizes[start + begin] = size
            ends[start + begin] = start + stop
    is_space = np.frombuffer(_fold_long(text), dtype=np.uint8) == _SPACE
    kept = np.append(True, ~(is_space[1:] & is_space[:-1]))  # one space in place of several
    source, source_end = np.repeat(np.arange(len(data)), sizes)[kept], np.repeat(ends, sizes)[kept]
    # In UTF-8 every character has one byte that is not 10xxxxxx.
    character = np.concatenate([[0], np.cumsum((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80)])
    numbers, starts, stops = (np.array(column) for column in zip(*mentions, strict=True))
    # Less the space in front; a mark at the beginning of the text has joined with that space.
    begins = (character[source[starts]] - 1).clip(0)
    return list(zip(numbers.tolist(), begins.tolist(), (character[source_end[stops - 1]] - 1).tolist(), strict=True))


@lru_cache(_CACHED_RUNS)
def _pieces(run: bytes) -> list[tuple[int, int, int]]:
    """The parts of a run that fold independently: begin, stop (exclusive), and the bytes of the folded form."""
    pieces: list[str] = []
    for char in run.decode():
        first = unicodedata.normalize("NFKC", char)[0]
        # A mark, or the second part of a Korean syllable, can join with what stands before it.
        if pieces and (unicodedata.category(first).startswith("M") or "\u1160" <= first <= "\u11ff"):
            pieces[-1] += char
        else:
            pieces.append(char)
    parts, begin = list[tuple[int, int, int]](), 0
    for piece in pieces:
        stop = begin + len(piece.encode())
        parts.append((begin, stop, len(_fold_characters(piece))))
        begin = stop
    return parts


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
    """Finds the triples that texts state by `rules`: one pass over many texts for the words of all labels and aliases.

    A triple is a candidate where a text has the words of both sides, or where a side has none; only for candidates the
    spellings themselves are searched.
    """

    def __init__(self, triples: Sequence[Triple], rules: MatchRules) -> None:
        self._subject_only = rules.match == SUBJECT
        # "document": both may stand anywhere in it. The name is kept since it is in files that exist.
        self._rule = SUBJECT if self._subject_only else f"{PAIR}:document"
        numbers: dict[bytes, int] = {}

        def number(names: Iterable[tuple[str, Sequence[str]]]) -> tuple[NDArray[np.int32], IntArray]:
            """The spellings of one side of all triples: their numbers, those of triple k up to ends[k + 1]."""
            side, ends = array("i"), array("q", [0])
            for label, aliases in names:
                spellings = _spellings_of(label, aliases, rules)
                side.extend(numbers.setdefault(spelling, len(numbers)) for spelling in spellings)
                ends.append(len(side))
            return np.array(side, dtype=np.int32), np.array(ends, dtype=np.int64)

        self._subjects, self._subject_ends = number((one.subject, one.subject_aliases) for one in triples)
        self._objects, self._object_ends = number(
            ("", ()) if self._subject_only else (one.object, one.object_aliases) for one in triples
        )
        self._spellings = list(numbers)
        numbers.clear()  # a million triples take a lot of memory
        self._search = _WordSearch(self._spellings)
        # The triples of each spelling of a subject, spelling by spelling.
        order = np.argsort(self._subjects, kind="stable")
        self._stating = np.repeat(np.arange(len(triples), dtype=np.int32), np.diff(self._subject_ends))[order]
        self._stating_ends = np.searchsorted(self._subjects[order], np.arange(len(self._spellings) + 1))

    def __call__(self, texts: Sequence[str]) -> list[list[Match]]:
        """For each text the triples it states, ascending."""
        matches: list[list[Match]] = [[] for _ in texts]
        for text, candidates, spellings in self._candidates(texts):
            matches[text] = self._matches(texts[text], candidates, spellings)
        return matches

    def _candidates(self, texts: Sequence[str]) -> Iterator[tuple[int, list[int], list[int]]]:
        """The numbers of texts, each with its candidates, ascending, and with the spellings that may be in it."""
        owners, spellings = self._search(texts)
        wordless, count = self._search.wordless, len(self._spellings)
        everywhere = np.arange(len(texts)).repeat(len(wordless)) * count + np.tile(wordless, len(texts))
        present = _sorted_once(np.concatenate([owners * count + spellings, everywhere]))  # pairs of text and spelling
        owners, spellings = np.divmod(present, max(count, 1))
        rows, places = _ranges(self._stating_ends, spellings)
        pairs = _sorted_once(owners[rows] * len(self._subject_ends) + self._stating[places])
        owners, triples = np.divmod(pairs, len(self._subject_ends))
        if not self._subject_only:
            rows, places = _ranges(self._object_ends, triples)
            needed = owners[rows] * count + self._objects[places]
            is_there = present[np.searchsorted(present, needed).clip(max=len(present) - 1)] == needed
            stated = np.zeros(len(triples), dtype=bool)
            stated[rows[is_there]] = True
            owners, triples = owners[stated], triples[stated]
        for text in np.unique(owners).tolist():
            of_text = slice(*np.searchsorted(present, [text * count, (text + 1) * count]))
            yield text, triples[owners == text].tolist(), (present[of_text] - text * count).tolist()

    def _matches(self, text: str, candidates: list[int], spellings: list[int]) -> list[Match]:
        folded = _one_space(_fold_long(text))
        sides = [
            (self._subjects[self._subject_ends[k] : self._subject_ends[k + 1]].tolist(),
             self._objects[self._object_ends[k] : self._object_ends[k + 1]].tolist())
            for k in candidates
        ]  # fmt: skip
        mentions = [
            (number, at, at + len(self._spellings[number]))
            for number in {number for side in sides for numbers in side for number in numbers}.intersection(spellings)
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


def _sorted_once(numbers: IntArray) -> IntArray:
    """The numbers, ascending, each once; faster than numpy.unique where few are the same."""
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=-1) > 0]


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
