"""Which characters of a text its folded bytes were made of."""

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.matching.folding import LOWER, folded_run, runs_beyond_ascii, single_spaces

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
