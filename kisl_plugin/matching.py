"""Which triples a document states."""

import re
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.hookspecs import Match, Matcher, hookimpl
from kisl_plugin.triples import Triple

# How a document is matched against triples.

PAIR, SUBJECT = "pair", "subject"
DOCUMENT, PARAGRAPH, SENTENCE = "document", "paragraph", "sentence"


@dataclass(frozen=True)
class MatchRules:
    """What makes a document state a triple.

    `match` is "pair" (subject and object), "subject" (the subject alone: stricter), or a plugin's name. `scope` says
    how near subject and object must be: in one document, paragraph (a line), sentence, or within a number of
    characters, counted from where the first of them begins to where the last ends. A sentence ends at . ! ? … and
    white space, at 。！？ or a line's end, but not at a full stop after a single letter, an initial's; a name that goes
    over an end belongs to both sides. Aliases, not labels, are passed over where they have fewer than `min_length`
    characters or are on the `stop_list`.

    Raises:
        InputError: the scope is none of these, or `min_length` is below 1.
    """

    match: str = PAIR
    scope: str = DOCUMENT
    min_length: int = 4
    stop_list: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = self.scope in (DOCUMENT, PARAGRAPH, SENTENCE)
        if not known and not (self.scope.isascii() and self.scope.isdigit() and int(self.scope)):
            raise InputError(
                f"scope {self.scope!r}: expected document, paragraph, sentence or a number of characters, such as 200"
            )
        if self.min_length < 1:
            raise InputError(f"min_length {self.min_length}: expected 1 or more characters")

    @property
    def name(self) -> str:
        """The rule as it is written beside a removed document: `pair:document`, `pair:200`, `subject`."""
        return f"{self.match}:{self.scope}" if self.match == PAIR else self.match


# One spelling for all that read the same: NFKC, then casefold, as bytes in which words are told by their bytes.
#
# In folded text a word's characters are ASCII letters, digits, `_` and bytes from 0x80 up; every other byte is no part
# of a word. Any white space is one space, ’ ‘ ʼ ʻ are ' and the dashes ‐ ‑ ‒ – — ― − are -, since nobody sees another
# spelling there. Other characters that are no part of a word, and not ASCII, become control bytes.

END = 0
_UPPER = bytes(range(65, 91))
_SPACES = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f"
_CONTROLS = bytes(i for i in range(32) if i not in _SPACES)
LOWER = bytes.maketrans(_UPPER + _SPACES + _CONTROLS, _UPPER.lower() + b" " * len(_SPACES) + b"\x7f" * len(_CONTROLS))
_LOOK_ALIKES = str.maketrans({**dict.fromkeys("’‘ʼʻ", "'"), **dict.fromkeys("‐‑‒–—―−", "-")})
_NOT_WORDS = bytes(i for i in range(128) if i != END and not (chr(i).isalnum() or chr(i) == "_"))
SEPARATED = bytes.maketrans(_NOT_WORDS, b" " * len(_NOT_WORDS))
_REMEMBERED = 1 << 16
_SHORT = 200


def fold(text: str) -> bytes:
    """The folded text. Halves of surrogate pairs count as question marks."""
    if text.isascii():
        return without_double_spaces(text.encode().translate(LOWER))
    return without_double_spaces(folded_run(text.encode("utf-8", "replace").decode()))


def fold_texts(texts: Sequence[str]) -> bytes:
    """The folded texts in one run, which is faster: a zero byte before, between and after them, a space around each."""
    data = b" \0 ".join(text.encode("utf-8", "replace").translate(LOWER) for text in texts)
    return without_double_spaces(_folded_beyond_ascii(b"\0 %b \0" % data))


def without_double_spaces(data: bytes) -> bytes:
    """`data` with one space for several."""
    if len(data) < _SHORT:
        return re.sub(b"  +", b" ", data)
    kept = single_spaces(np.frombuffer(data, dtype=np.uint8))
    return data if kept is None else np.frombuffer(data, dtype=np.uint8)[kept].tobytes()


def single_spaces(data: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Which bytes are left when one space stands for several; None if all are."""
    space = data == 32
    double = space[1:] & space[:-1]
    return np.concatenate([[True], ~double]) if double.any() else None


def runs_beyond_ascii(data: bytes) -> Iterator[tuple[int, int]]:
    """Where characters beyond ASCII stand in UTF-8 text, with the letter before where a mark belongs to it."""
    places = np.flatnonzero(np.frombuffer(data, dtype=np.int8) < 0)
    if not len(places):
        return
    cuts = np.flatnonzero(np.diff(places) > 1)
    starts = places[np.concatenate([[0], cuts + 1])].tolist()
    ends = (places[np.concatenate([cuts, [len(places) - 1]])] + 1).tolist()
    for start, end in zip(starts, ends, strict=True):
        yield start - (start > 0 and _joins[data[start:end]]), end


def folded_run(text: str) -> bytes:
    """Text folded, but for double spaces."""
    composed = unicodedata.normalize("NFKC", text).casefold().translate(_LOOK_ALIKES)
    return composed.encode().translate(LOWER) if composed.isascii() else b"".join(map(_code, composed))


def _folded_beyond_ascii(data: bytes) -> bytes:
    parts = []
    last = 0
    for start, end in runs_beyond_ascii(data):
        parts += [data[last:start], _folded[data[start:end]]]
        last = end
    return b"".join([*parts, data[last:]])


class _Remembered(dict[bytes, bytes]):
    """Folded forms of runs of characters beyond ASCII: texts repeat a few of them."""

    def __missing__(self, run: bytes) -> bytes:
        if len(self) > _REMEMBERED:
            self.clear()
        return self.setdefault(run, folded_run(run.decode()))


class _Joins(dict[bytes, bool]):
    """Whether a run begins with a mark."""

    def __missing__(self, run: bytes) -> bool:
        if len(self) > _REMEMBERED:
            self.clear()
        return self.setdefault(run, unicodedata.combining(unicodedata.normalize("NFKC", run.decode())[0]) > 0)


_folded = _Remembered()
_joins = _Joins()


def _code(char: str) -> bytes:
    if char.isascii():
        return char.encode().translate(LOWER)
    if char.isalnum() or unicodedata.category(char).startswith("M"):
        return char.encode()
    if char.isspace():
        return b" "
    # Its number in octal, in bytes that no folded text holds otherwise.
    return b"\x1a" + bytes(0x10 + int(digit) for digit in f"{ord(char):o}")


# Which characters of a text its folded bytes were made of.

IntArray = NDArray[np.int64]


class _Part(NamedTuple):
    """Bytes begin … stop-1 of a text's UTF-8, and what they are folded to: byte by byte where `plain`, else whole."""

    begin: int
    stop: int
    plain: bool
    folded: bytes


def characters_of(text: str, starts: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """Where in `text` that begins and ends (exclusive) of which fold(text)[start:end] was made, for each such span."""
    data = text.encode("utf-8", "replace")
    parts = [part for part in _parts(data) if part.folded]
    folded = b"".join(part.folded for part in parts)
    kept = single_spaces(np.frombuffer(folded, dtype=np.uint8))
    places = np.arange(len(folded)) if kept is None else np.flatnonzero(kept)
    firsts, lasts = places[starts], places[ends - 1]
    begins, stops, plain = (np.array(column) for column in list(zip(*parts, strict=True))[:3])
    offsets = np.cumsum([0, *(len(part.folded) for part in parts[:-1])])
    first, last = (np.searchsorted(offsets, place, side="right") - 1 for place in (firsts, lasts))
    source = begins[first] + np.where(plain[first], firsts - offsets[first], 0)
    source_end = np.where(plain[last], begins[last] + lasts - offsets[last] + 1, stops[last])
    characters = np.concatenate([[0], np.cumsum((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80)])
    return characters[source], characters[source_end]


def _parts(data: bytes) -> Iterator[_Part]:
    last = 0
    for start, end in runs_beyond_ascii(data):
        yield _Part(last, start, True, data[last:start].translate(LOWER))
        for begin, stop, piece in _pieces(data[start:end]):
            yield _Part(start + begin, start + stop, False, piece)
        last = end
    yield _Part(last, len(data), True, data[last:].translate(LOWER))


def _pieces(run: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The parts of a run that fold by themselves: from, to, and the folded form."""
    begin = at = 0
    piece = ""
    for char in run.decode():
        if piece and _begins(char):
            yield begin, at, folded_run(piece)
            begin, piece = at, ""
        piece += char
        at += len(char.encode())
    yield begin, at, folded_run(piece)


def _begins(char: str) -> bool:
    """Whether nothing before `char` can join with it: no mark, no second part of a Korean syllable."""
    first = unicodedata.normalize("NFKC", char)[0]
    return not (unicodedata.category(first).startswith("M") or "\u1160" <= first <= "\u11ff")


# Find many spellings in folded text, as whole words, in one pass.

AT_ONCE = 32  # what a processor's cache holds of usual documents
Mention = tuple[int, int, int]
"""The number of a spelling, and where it stands: from, to (exclusive)."""


class SpellingFinder:
    """Finds `spellings` (folded, each once) as whole words; overlapping ones too.

    The automaton sees a space for every byte that is no part of a word, and spellings with a space on either side: so
    it finds whole words only, and stays in its first states over most of a text. Spellings with other characters than
    a word's are then compared.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        try:
            from ahocorasick_rs import BytesAhoCorasick, Implementation
        except ImportError:
            raise InputError("ahocorasick-rs is missing; pip install 'kisl-plugin[corpus]'") from None
        self._numbers = {spelling: number for number, spelling in enumerate(spellings)}
        keys = {b" %b " % spelling.translate(SEPARATED): spelling for spelling in spellings}
        self._one_word = [None if b" " in key[1:-1] else self._numbers[word] for key, word in keys.items()]
        self._automaton = BytesAhoCorasick(list(keys), implementation=Implementation.ContiguousNFA)

    def mentions(self, texts: Sequence[str]) -> list[list[Mention]]:
        """For each text the spellings it holds, in the order of their ends; places count folded bytes, see `spans`."""
        few = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
        return [found for some in few for found in self._mentions(some)]

    def _mentions(self, texts: Sequence[str]) -> list[list[Mention]]:
        folded = fold_texts(texts)
        ends = np.flatnonzero(np.frombuffer(folded, dtype=np.uint8) == END).tolist()
        found: list[list[Mention]] = [[] for _ in texts]
        text, begin, end = -1, 0, -1
        for key, start, stop in self._automaton.find_matches_as_indexes(folded.translate(SEPARATED), overlapping=True):
            while start > end:
                text += 1
                begin, end = ends[text] + 1, ends[text + 1]
            number = self._one_word[key]
            if number is None:
                number = self._numbers.get(folded[start + 1 : stop - 1])
            if number is not None:
                found[text].append((number, start + 1 - begin, stop - 1 - begin))
        return found


def spans(text: str, mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions of `text` with their places in its own characters."""
    if not mentions:
        return []
    numbers, starts, ends = zip(*mentions, strict=True)
    # fold_texts puts a space around each text.
    begins, stops = characters_of(f" {text} ", np.array(starts), np.array(ends))
    # A mark at the beginning has joined with that space.
    return list(zip(numbers, (begins - 1).clip(0).tolist(), (stops - 1).tolist(), strict=True))


class PhraseFinder:
    """Finds phrases as whole words, whatever their case, composition, white space and kind of apostrophe or dash."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self._of: dict[bytes, list[int]] = {}
        for number, phrase in enumerate(phrases):
            self._of.setdefault(fold(phrase).strip(b" "), []).append(number)
        self._of.pop(b"", None)
        self._phrases = list(self._of.values())
        self._finder = SpellingFinder(list(self._of))

    def find(self, texts: Sequence[str]) -> list[list[Mention]]:
        """For each text the phrases it holds: index, and from where to where in the text's characters."""
        return [
            [(phrase, start, end) for number, start, end in spans(text, found) for phrase in self._phrases[number]]
            for text, found in zip(texts, self._finder.mentions(texts), strict=True)
        ]


# The spellings by which a triple's subject and object are sought.

WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Unsearchable:
    """A triple that the rules cannot find, by its index, and why."""

    triple: int
    reason: str


def spellings_of(label: str, aliases: Iterable[str], rules: MatchRules) -> list[bytes]:
    """The label and those aliases that the rules do not pass over, folded."""
    stopped = _spellings_folded(rules.stop_list)
    long_enough = (one for one in aliases if len(unicodedata.normalize("NFKC", one).strip()) >= rules.min_length)
    spellings = (fold(one).strip(b" ") for one in long_enough)
    found = [fold(label).strip(b" "), *(spelling for spelling in spellings if spelling not in stopped)]
    return [spelling for spelling in dict.fromkeys(found) if spelling]


@lru_cache(maxsize=1)
def _spellings_folded(aliases: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(fold(alias).strip(b" ") for alias in aliases)


def unsearchable(triples: Sequence[Triple], rules: MatchRules) -> list[Unsearchable]:
    """The triples of which `rules` cannot find subject or object, or not everywhere, with the reason."""
    found = []
    for index, triple in enumerate(triples):
        sides = [("subject", triple.subject, triple.subject_aliases), ("object", triple.object, triple.object_aliases)]
        for side, label, aliases in sides[: 1 if rules.match == SUBJECT else 2]:
            if reason := _why_not(spellings_of(label, aliases, rules)):
                found.append(Unsearchable(index, f"{side} {label!r} {reason}"))
                break
    return found


def _why_not(spellings: list[bytes]) -> str:
    if not spellings:
        return "holds no character to look for"
    if all(any(map(_is_unspaced, spelling.decode())) for spelling in spellings):
        return "is in a script without spaces between words: found only where no letter stands beside it"
    return ""


def _is_unspaced(char: str) -> bool:
    return not char.isascii() and unicodedata.name(char, "").startswith(WITHOUT_SPACES)


# How near a subject and an object must stand to each other.

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


# What a plugin's matcher does wrong is one line that names it.


def watched(matcher: Matcher, triples: int, name: str) -> Matcher:
    """The matcher of so many triples; called, it raises KislError where it fails or answers what it should not."""

    def match(texts: Sequence[str]) -> list[list[Match]]:
        with told(name):
            found = [list(matches) for matches in matcher(texts)]
        _check(found, len(texts), triples, name)
        return found

    return match


def _check(found: Sequence[Sequence[Match]], texts: int, triples: int, name: str) -> None:
    if len(found) != texts:
        raise KislError(f"match {name!r}: {len(found)} lists; expected one list of matches for each of {texts} texts")
    for match in (match for matches in found for match in matches):
        if not isinstance(match, Match):
            raise KislError(f"match {name!r}: found {match!r}; expected a kisl_plugin.hookspecs.Match")
        if not 0 <= match.triple < triples:
            raise KislError(f"match {name!r}: found triple {match.triple!r}; expected an index from 0 to {triples - 1}")


@contextmanager
def told(name: str) -> Iterator[None]:
    """Whatever goes wrong within is told as the matcher's."""
    try:
        yield
    except KislError:
        raise
    except Exception as error:
        last = extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())
        raise KislError(
            f"match {name!r}: failed with {type(error).__name__}: {said} ({Path(last.filename).name}:{last.lineno}); "
            "its plugin must be mended"
        ) from error


# Which triples a document states.

__all__ = ["Match", "MatchRules", "Matcher", "Unsearchable", "matcher_of", "unsearchable"]


@hookimpl
def kisl_matcher(name: str, triples: Sequence[Triple], rules: MatchRules) -> Matcher | None:
    """Provide the matchers `pair` and `subject`."""
    if name not in (PAIR, SUBJECT):
        return None

    return FactMatcher(triples, rules)


def matcher_of(triples: Sequence[Triple], rules: MatchRules | None = None) -> Matcher:
    """The matcher that `rules` name (default: subject and object in one document), asked of the plugins.

    Raises:
        InputError: no plugin knows the name, or the matcher's library is missing.
        KislError: a plugin cannot make it; when it is called: it fails, or answers what it should not.
    """
    from kisl_plugin.hookspecs import manager

    rules = rules or MatchRules()
    with told(rules.match):
        found: Matcher | None = manager().hook.kisl_matcher(name=rules.match, triples=triples, rules=rules)
    if found is None:
        raise InputError(
            f"match {rules.match!r}: unknown (built in: {PAIR}, {SUBJECT}); correct it, or install a plugin with the "
            "hook kisl_matcher"
        )
    return watched(found, len(triples), rules.match)


# The built-in matchers: a document states a triple when it names its subject and its object, or its subject.

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
