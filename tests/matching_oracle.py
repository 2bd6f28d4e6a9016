"""What documents state, the slow way: regular expressions over normalised text, label by label, triple by triple.

Written from the rules alone, to be compared with kisl_plugin.matching, with which it shares only the data classes.
Its one optimisation: a label that the text does not contain is not searched with its expression. At the end: texts that
a matcher might misread.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from kisl_plugin.hookspecs import Match
from kisl_plugin.matching import MatchRules
from kisl_plugin.triples import Triple

Span = tuple[int, int]

APOSTROPHES, DASHES = "’‘ʼʻ", "‐‑‒–—―−"


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
    # One span is not both: two different ones are needed, which there are unless each side has the same single one.
    subjects, objects = page.mentions(subject), page.mentions(object)
    return any(one != other for one in subjects for other in objects)


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
    subjects, objects = page.mentions(subject), page.mentions(object)
    # A label that begins with a mark is found with the character that bears the mark, so its span may be wider.
    exact = all(_begins_letter(text[start]) for start, _ in (*subjects, *objects))
    if match.subject and match.object and exact:
        nearest = min(_width(one, other) for one in subjects for other in objects if one != other)
        if _width(match.subject, match.object) != nearest:
            return f"{match.subject} and {match.object} are not the nearest mentions"
    return ""


def _width(one: Span, other: Span) -> int:
    return max(one[1], other[1]) - min(one[0], other[0])


def _is_mention(text: str, span: Span, mention: Span) -> bool:
    """Whether `span` is the mention, or that and the rest of characters of which it holds a mark or bears one."""
    if not (span[0] <= mention[0] < mention[1] <= span[1]):
        return False
    before = span[0] == mention[0] or not _begins_letter(text[mention[0]])
    return before and not any(map(_begins_letter, text[mention[1] : span[1]]))


def _begins_letter(char: str) -> bool:
    return _begins_afresh(char) and unicodedata.category(_nfkc(char)[0])[0] != "M"


def fact(subject: str, object: str = "obj", aliases: tuple[str, ...] = (), others: tuple[str, ...] = ()) -> Triple:
    return Triple(subject, "P1", object, subject_aliases=aliases, object_aliases=others)


# What is searched, the text, and whether a reader would say that the text names both.
DECOMPOSED = unicodedata.normalize("NFD", "Zoë Łódź")
ADVERSARIAL = {
    "a label inside a word": (fact("Rome"), "Romeo, Jerome, Rome2 and obj", False),
    "an alias inside a word": (fact("Subject", aliases=("mars",)), "marsh obj marshal", False),
    "a possessive": (fact("Berlin"), "Berlin's obj", True),
    "a digit beside a label": (fact("Apollo 1"), "Apollo 11 obj", False),
    "another script's digit beside a label": (fact("Apollo 1"), "Apollo 1٣ obj", False),
    "an underscore beside a label": (fact("Berlin"), "_Berlin_ obj", False),
    "an underscore for a space": (fact("New York"), "New_York obj", False),
    "a hyphen beside a label": (fact("Berlin"), "East-Berlin obj", True),
    "composed label, decomposed text": (fact("Zoë Łódź"), f"{DECOMPOSED} obj", True),
    "decomposed label, composed text": (fact(DECOMPOSED), "Zoë Łódź obj", True),
    "an accent the label lacks": (fact("Cafe"), "Cafe\u0301 obj", False),
    "an accent the text lacks": (fact("Café"), "Cafe obj", False),
    "an accent that composes with nothing": (fact("Berlin"), "Berlin\u0327\u0301 obj", False),
    "accents in another order": (fact("q\u0327\u0301"), "q\u0301\u0327 obj", True),
    "a mark before a label": (fact("Berlin"), "\u0301Berlin obj", False),
    "Turkish İ as it is": (fact("İstanbul"), "İSTANBUL obj", True),
    "Turkish İ, i with a dot": (fact("İstanbul"), "i\u0307stanbul obj", True),
    "Turkish İ is no i": (fact("İstanbul"), "Istanbul istanbul obj", False),
    "Turkish ı as it is": (fact("Diyarbakır"), "DiyarbakıR obj", True),
    "Turkish ı is no i": (fact("Diyarbakır"), "DIYARBAKIR diyarbakir obj", False),
    "German ß": (fact("Straße"), "STRASSE obj", True),
    "German capital ẞ": (fact("Strasse"), "STRAẞE obj", True),
    "half a ß": (fact("Strase"), "Straße obj", False),
    "a final sigma": (fact("Σίσυφος"), "ΣΊΣΥΦΟΣ obj", True),
    "a ligature": (fact("Office"), "Oﬃce obj", True),
    "wide letters": (fact("NHK"), "ＮＨＫ obj", True),
    "mathematical letters": (fact("Alpha"), "𝐀𝐥𝐩𝐡𝐚 obj", True),
    "a fraction": (fact("2"), "1½ obj", True),
    "a superscript": (fact("km"), "km² obj", False),
    "a circled digit": (fact("Louis"), "Louis① obj", False),
    "Hebrew": (fact("ירושלים"), "העיר ירושלים obj", True),
    "Hebrew with a prefix": (fact("ירושלים"), "בירושלים obj", False),
    "Hebrew with vowel points": (fact("שלום"), "שָׁלוֹם obj", False),
    "Hebrew with vowel points in both": (fact("שָׁלוֹם"), f"{unicodedata.normalize('NFD', 'שָׁלוֹם')} obj", True),
    "Arabic": (fact("القاهرة"), "في القاهرة، obj", True),
    "Arabic with an article": (fact("قاهرة"), "القاهرة obj", False),
    "Arabic with a mark behind": (fact("محمد"), "محمدٌ obj", False),
    "Arabic presentation forms": (fact("محمد"), "ﻣﺤﻤﺪ obj", True),
    "direction marks beside a label": (fact("القاهرة"), "\u200fالقاهرة\u200e \u202bobj\u202c", True),
    "a direction mark inside a label": (fact("القاهرة"), "القا\u200fهرة obj", False),
    "a soft hyphen inside a label": (fact("Berlin"), "Ber\u00adlin obj", False),
    "a joiner beside a label": (fact("नेपाल"), "नेपाल\u200d obj", True),
    "a vowel sign behind a label": (fact("नेपाल"), "नेपाली obj", False),
    "one in the other": (fact("New York", "New York City"), "in New York City", True),
    "the other in one": (fact("New York City", "York"), "in New York City", True),
    "they overlap": (fact("New York City", "City Hall"), "New York City Hall", True),
    "subject and object are the same": (fact("Georgia", "Georgia"), "Georgia", False),
    "subject and object are the same, twice": (fact("Georgia", "Georgia"), "Georgia, Georgia", True),
    "one span is both": (fact("Swedes", "Swedish", ("Swedish",)), "The Swedish sea.", False),
    "two spans of one name": (fact("Swedes", "Swedish", ("Swedish",)), "Swedish sea, Swedish land", True),
    "one span is both, and another one": (fact("Swedes", "Swedish", ("Swedish",)), "The Swedes' Swedish.", True),
    "a label that overlaps itself": (fact("a b a", "b a b"), "a b a b", True),
    "a whole word behind a part of one": (fact("ana ana"), "banana ana ana obj", True),
    "two characters": (fact("U2"), "(U2) obj", True),
    "two characters, more digits": (fact("U2"), "U21 obj", False),
    "a common word": (fact("It"), "Is it obj?", True),
    "one character": (fact("X", "Y"), "x, y", True),
    "one character beside marks": (fact("X", "Y"), "x\u0301 y", False),
    "punctuation": (fact("!!!"), "the band !!! obj", True),
    "more of it": (fact("!!!"), "obj!!!! obj", True),
    "punctuation between words": (fact("!!!"), "obj!!!obj obj", False),
    "punctuation at the end": (fact("C++"), "C++, obj", True),
    "punctuation and a digit": (fact("C++"), "C++11 obj", False),
    "a symbol": (fact("★"), "☆ obj", False),
    "the same symbol": (fact("★"), "★ obj", True),
    "an emoji": (fact("😀"), "😁 obj", False),
    "the same emoji": (fact("😀"), "obj 😀", True),
    "a private character": (fact("\ue000"), "\ue001 obj", False),
    "CJK between spaces": (fact("東京"), "東京、obj", True),
    "CJK within a sentence": (fact("東京"), "私は東京が好き obj", False),
    "CJK beside Latin": (fact("東京"), "東京obj obj", False),
    "Hangul in parts": (fact("서울"), f"{unicodedata.normalize('NFD', '서울')} obj", True),
    "Hangul, a consonant more": (fact("서우"), "서울 obj", False),
    "half-width Katakana": (fact("ガス"), "ｶﾞｽ obj", True),
    "Thai, two characters for one": (fact("น้ำ"), "น้\u0e4dา obj", True),
    "apostrophes": (fact("O'Brien"), "O’Brien obj", True),
    "an ʻokina": (fact("Hawaiʻi"), "Hawai'i obj", True),
    "dashes": (fact("Jean–Paul Sartre"), "Jean-Paul\u00a0Sartre obj", True),
    "a hyphen that does not break": (fact("Jean-Paul"), "Jean\u2011Paul obj", True),
    "no dash": (fact("Jean-Paul"), "Jean Paul obj", False),
    "a line break": (fact("New York"), "New\nYork obj", True),
    "line breaks and indents": (fact("New York"), "New \r\n\t York obj", True),
    "a line separator": (fact("New York"), "New\u2028York obj", True),
    "spaces in the label": (fact("  New \n York "), "New York obj", True),
    "no space": (fact("New York"), "NewYork obj", False),
    "a control character beside a label": (fact("Berlin"), "\x00Berlin\x1b obj", True),
    "a control character inside a label": (fact("Berlin"), "Ber\x00lin obj", False),
    "lone surrogates beside a label": (fact("Berlin"), "\ud800Berlin\udfff obj", True),
    "a lone surrogate inside a label": (fact("Berlin"), "Ber\ud800lin obj", False),
    "a null in the text": (fact("Berlin"), "Berlin\x00obj", True),
    "the empty text": (fact("Berlin"), "", False),
    "a text of spaces": (fact("Berlin"), " \n\u3000", False),
    "a label of spaces": (fact(" "), " obj ", False),
    "the subject alone": (fact("Berlin"), "Berlin", False),
    "the object alone": (fact("Berlin"), "obj", False),
    "an alias": (fact("Subject", aliases=("Berlin",)), "Berlin obj", True),
    "an object's alias": (fact("Subject", others=("Germany",)), "subject germany", True),
    "a short alias": (fact("Subject", aliases=("ma",)), "ma obj", False),
    "an alias of four": (fact("Subject", aliases=("Bonn",)), "bonn obj", True),
    "an alias of three and a mark": (fact("Subject", aliases=("Ne\u0301e",)), "née obj", False),
    "an alias without characters": (fact("Subject", aliases=("    ", "")), "obj", False),
    "a stopped alias": (fact("Subject", aliases=("Stopped",)), "stopped obj", False),
    "a stopped word as a label": (fact("Stopped"), "stopped obj", True),
    "a stopped word within an alias": (fact("Subject", aliases=("Stopped Clock",)), "stopped clock obj", True),
}
