"""Which characters of a text its folded bytes were made of."""

import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.matching.folding import LOWER, folded_run, runs_beyond_ascii, single_spaces

IntArray = NDArray[np.int64]
Part = tuple[IntArray, IntArray, bytes]


def characters_of(text: str) -> tuple[IntArray, IntArray]:
    """For each byte of fold(text) where in `text` what it was made of begins, and where that ends (exclusive)."""
    data = text.encode("utf-8", "replace")
    starts, ends, folded = zip(*_parts(data), strict=True)
    leading = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80
    characters = np.concatenate([[0], np.cumsum(leading)])
    begins, stops = characters[np.concatenate(starts)], characters[np.concatenate(ends)]
    kept = single_spaces(np.frombuffer(b"".join(folded), dtype=np.uint8))
    return (begins, stops) if kept is None else (begins[kept], stops[kept])


def _parts(data: bytes) -> Iterator[Part]:
    """For each folded byte of a part the bytes of `data` it comes from, and the folded bytes."""
    last = 0
    for start, end in runs_beyond_ascii(data):
        yield _plain(data, last, start)
        for begin, stop, piece in _pieces(data[start:end]):
            yield np.full(len(piece), start + begin), np.full(len(piece), start + stop), piece
        last = end
    yield _plain(data, last, len(data))


def _plain(data: bytes, start: int, end: int) -> Part:
    places = np.arange(start, end)
    return places, places + 1, data[start:end].translate(LOWER)


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
