"""What documents state, the slow way: regular expressions over normalised text, label by label, triple by triple.

Written from the rules' words alone, to be compared with kisl_plugin.matching, of which it shares no code but the data
classes. Clever only in the order of work: a label that the text does not contain is not sought with its expression.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from kisl_plugin.matching import Match, MatchRules
from kisl_plugin.triples import Triple

Span = tuple[int, int]

APOSTROPHES, DASHES = "’‘ʼʻ", "‐‑‒–—―−"
LINE_ENDS = "\n\r\u2028\u2029"
CLOSING = "\"'”’»)]"
CLOSING_CJK = "\"'”’」』）"


def normal(text: str) -> str:
    """NFKC, casefold, one apostrophe, one dash, one space: what reads the same is the same."""
    text = _nfkc(text).casefold()
    text = re.sub(f"[{APOSTROPHES}]", "'", text)
    text = re.sub(f"[{DASHES}]", "-", text)
    return re.sub(r"\s+", " ", text)


@cache
def is_word(char: str) -> bool:
    """Whether a character, or nothing at a text's end, is a letter, a mark, a digit or the underscore."""
    return char == "_" or (char != "" and unicodedata.category(char)[0] in "LMN")


def whole_words(spelling: str, text: str) -> Iterator[int]:
    """Where in normal text the spelling begins as whole words; occurrences may overlap."""
    for match in re.finditer(f"(?={re.escape(spelling)})", text):
        start, end = match.start(), match.start() + len(spelling)
        if not is_word(text[max(0, start - 1) : start]) and not is_word(text[end : end + 1]):
            yield start


def spellings(label: str, aliases: Iterable[str], rules: MatchRules) -> set[str]:
    """The label, and the aliases that are long enough and not stopped."""
    stopped = {normal(word).strip() for word in rules.stop_list}
    kept = {normal(label).strip()}
    for alias in aliases:
        long_enough = len(_nfkc(alias).strip()) >= rules.min_length
        if long_enough and normal(alias).strip() not in stopped:
            kept.add(normal(alias).strip())
    return kept - {""}


@cache
def composing() -> frozenset[str]:
    """Characters that can become one with the character before them."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(0x110000))
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    return frozenset(seconds | {chr(code) for code in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]})


@cache
def _begins_afresh(char: str) -> bool:
    first = unicodedata.normalize("NFKD", char)[0]
    return unicodedata.combining(first) == 0 and first not in composing()


def clusters(text: str) -> Iterator[Span]:
    """The shortest stretches of `text` that are normalised each for itself."""
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or _begins_afresh(text[at]):
            yield from _cut(text, start, at)
            start = at


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    """The pieces of a stretch that normalise to the same whether together or apart."""
    for at in range(start + 1, end):
        if _nfkc(text[start:at]) + _nfkc(text[at:end]) == _nfkc(text[start:end]):
            yield start, at
            start = at
    yield start, end


@cache
def _normal_cluster(text: str) -> str:
    return normal(text)


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


class Page:
    """A document as it reads, and where each character of that came from."""

    def __init__(self, text: str) -> None:
        self.text, self.normal = text, normal(text)
        self._origins: list[Span] | None = None
        self._parts: dict[str, list[Span]] = {}

    @property
    def origins(self) -> list[Span]:
        """For each character of the normal text the stretch of the original that it was made of."""
        if self._origins is None:
            chars: list[str] = []
            origins: list[Span] = []
            for start, end in clusters(self.text):
                for char in _normal_cluster(self.text[start:end]):
                    if char == " " and chars and chars[-1] == " ":
                        origins[-1] = (origins[-1][0], end)
                    else:
                        chars.append(char)
                        origins.append((start, end))
            assert "".join(chars) == self.normal
            self._origins = origins
        return self._origins

    def holds(self, spelling: str) -> bool:
        return spelling in self.normal and any(True for _ in whole_words(spelling, self.normal))

    def mentions(self, sought: Iterable[str]) -> list[Span]:
        """Where the spellings stand in the original text, ascending."""
        found = set()
        for spelling in sought:
            if spelling in self.normal:
                for start in whole_words(spelling, self.normal):
                    found.add((self.origins[start][0], self.origins[start + len(spelling) - 1][1]))
        return sorted(found)

    def parts(self, scope: str) -> list[Span]:
        """The lines or sentences of the original text."""
        if scope not in self._parts:
            ends = [at for at in range(1, len(self.text)) if _ends_line(self.text, at)]
            if scope == "sentence":
                ends = sorted({*ends, *(at for at in range(1, len(self.text)) if _ends_sentence(self.text, at))})
            self._parts[scope] = list(zip([0, *ends], [*ends, len(self.text)], strict=True))
        return self._parts[scope]

    def touched(self, scope: str, mentions: Sequence[Span]) -> set[int]:
        """The parts, by their index, that mentions stand in."""
        parts = enumerate(self.parts(scope))
        return {index for index, part in parts if any(part[0] < span[1] and span[0] < part[1] for span in mentions)}


def _ends_line(text: str, at: int) -> bool:
    return text[at] in LINE_ENDS


def _ends_sentence(text: str, at: int) -> bool:
    """Whether a sentence ends before `text[at]`: white space after . ! ? … and closing quotes; nothing after 。！？."""
    if text[at] not in CLOSING_CJK and text[_last_but(CLOSING_CJK, text, at)] in "。！？":
        return True
    last = _last_but(CLOSING, text, at)
    return text[at].isspace() and (text[last] in "!?…" or (text[last] == "." and not _initial(text, last)))


def _last_but(passed_over: str, text: str, at: int) -> int:
    """The index of the last character before `at` that is none of those passed over; 0 if there is none."""
    at -= 1
    while at > 0 and text[at] in passed_over:
        at -= 1
    return at


def _initial(text: str, stop: int) -> bool:
    """Whether the full stop at `stop` follows a word of one letter: J. R. R."""
    return re.fullmatch(r"(.*\W)?\w", text[max(0, stop - 2) : stop], re.DOTALL) is not None


def near(page: Page, scope: str, subjects: Sequence[Span], objects: Sequence[Span]) -> bool:
    """Whether two mentions are in one line or sentence (one that goes over an end is in both), or within a window."""
    if scope == "document":
        return bool(subjects) and bool(objects)
    if scope.isdigit():
        pairs = ((one, other) for one in subjects for other in objects)
        return any(max(one[1], other[1]) - min(one[0], other[0]) <= int(scope) for one, other in pairs)
    return not page.touched(scope, subjects).isdisjoint(page.touched(scope, objects))


def _sides(triple: Triple, rules: MatchRules) -> tuple[set[str], set[str]]:
    return (
        spellings(triple.subject, triple.subject_aliases, rules),
        spellings(triple.object, triple.object_aliases, rules),
    )


def states(page: Page, triple: Triple, rules: MatchRules) -> bool:
    """Whether the document states the triple by `rules`."""
    subject, object = _sides(triple, rules)
    if not any(map(page.holds, subject)):
        return False
    if rules.match == "subject":
        return True
    if not any(map(page.holds, object)):
        return False
    return rules.scope == "document" or near(page, rules.scope, page.mentions(subject), page.mentions(object))


class Shelf:
    """Documents that are asked by several rules."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.pages = [Page(text) for text in texts]
        self._everything = "\x00".join(page.normal for page in self.pages)
        self._somewhere: dict[str, bool] = {}

    def _anywhere(self, spelling: str) -> bool:
        if spelling not in self._somewhere:
            self._somewhere[spelling] = spelling in self._everything
        return self._somewhere[spelling]

    def stated(self, triples: Sequence[Triple], rules: MatchRules) -> list[list[int]]:
        """For each document the triples that it states, ascending."""
        found: list[list[int]] = [[] for _ in self.pages]
        for index, triple in enumerate(triples):
            sides = _sides(triple, rules)[: 1 if rules.match == "subject" else 2]
            if all(any(map(self._anywhere, side)) for side in sides):
                for document, page in enumerate(self.pages):
                    if states(page, triple, rules):
                        found[document].append(index)
        return found


def wrong_spans(page: Page, triple: Triple, rules: MatchRules, match: Match) -> str:
    """What is wrong with where the match says that the triple is stated; empty if nothing is."""
    text = page.text
    subject, object = _sides(triple, rules)
    sides = [(match.subject, subject)] + ([(match.object, object)] if rules.match == "pair" else [])
    for span, sought in sides:
        if span is None or not 0 <= span[0] < span[1] <= len(text):
            return f"{span} is no span"
        if not any(_is_mention(text, span, mention) for mention in page.mentions(sought)):
            return f"{span} {text[slice(*span)]!r} is no mention of {sought}"
        if not any(spelling in normal(text[slice(*span)]) for spelling in sought):
            return f"{span} {text[slice(*span)]!r} does not read as {sought}"
    if rules.match == "pair" and not near(page, rules.scope, *([span] for span, _ in sides if span)):
        return f"{match.subject} and {match.object} are not within {rules.scope}"
    return ""


def _is_mention(text: str, span: Span, mention: Span) -> bool:
    """Whether `span` is the mention, or that and the rest of characters of which it holds a mark or bears one."""
    if not (span[0] <= mention[0] < mention[1] <= span[1]):
        return False
    before = span[0] == mention[0] or not _begins_letter(text[mention[0]])
    return before and not any(map(_begins_letter, text[mention[1] : span[1]]))


def _begins_letter(char: str) -> bool:
    return _begins_afresh(char) and unicodedata.category(_nfkc(char)[0])[0] != "M"
