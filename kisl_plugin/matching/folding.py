"""One spelling for all that read the same: NFKC, then casefold, as bytes in which words are told by their bytes.

In folded text a word's characters are ASCII letters, digits, `_` and bytes from 0x80 up; every other byte is no part
of a word. Any white space is one space, ’ ‘ ʼ ʻ are ' and the dashes ‐ ‑ ‒ – — ― − are -, since nobody sees another
spelling there. Other characters that are no part of a word, and not ASCII, become control bytes.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

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
