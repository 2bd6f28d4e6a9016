"""Find many spellings in folded text, as whole words, in one pass."""

from collections.abc import Sequence

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.matching.alignment import characters_of
from kisl_plugin.matching.folding import END, SEPARATED, fold, fold_texts

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
