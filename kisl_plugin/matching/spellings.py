"""The spellings by which a triple's subject and object are sought."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kisl_plugin.matching.folding import fold
from kisl_plugin.matching.rules import SUBJECT, MatchRules
from kisl_plugin.triples import Triple

WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Unsearchable:
    """A triple that the rules cannot find, by its index, and why."""

    triple: int
    reason: str


def spellings_of(label: str, aliases: Iterable[str], rules: MatchRules) -> list[bytes]:
    """The label and those aliases that the rules do not pass over, folded."""
    stopped = _folded(rules.stop_list)
    long_enough = (one for one in aliases if len(unicodedata.normalize("NFKC", one).strip()) >= rules.min_length)
    spellings = (fold(one).strip(b" ") for one in long_enough)
    found = [fold(label).strip(b" "), *(spelling for spelling in spellings if spelling not in stopped)]
    return [spelling for spelling in dict.fromkeys(found) if spelling]


@lru_cache(maxsize=1)
def _folded(aliases: tuple[str, ...]) -> frozenset[bytes]:
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
