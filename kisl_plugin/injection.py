"""The rows of a run: background text with the schedule's statements spliced in as documents of their own."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray
from kisl_plugin.schedule import Schedule, draws, key_of

__all__ = ["InjectedDataset", "Rows"]

_PLACES = 4  # the purpose of the key that decides where in a row statements go; see schedule.py


class Rows(Protocol):
    """A map-style dataset of rows: dicts with `text`, int64 [seq_length + 1]."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> dict[str, NDArray[Any]]: ...


class InjectedDataset:
    """`base` with the schedule's statements spliced in; as long as the schedule has samples.

    Row i is base row i modulo len(base). Each statement is put between two end-of-document tokens, which neighbours
    share; the row's tail is cut to make room. No statement is ever cut, and all its tokens are training targets (it
    never begins at token 0). A pure function of i, so workers, ranks and pipeline stages may read rows in any order.

    Args:
        base: rows of background text.
        statements: int token arrays [K] without special tokens, as the schedule numbers them.
        schedule: which statements each row holds.
        eod: the end-of-document token.

    Raises:
        InputError: two statements have the same tokens, one is empty or holds `eod`, or a row could overflow.
    """

    def __init__(self, base: Rows, statements: Sequence[Any], schedule: Schedule, eod: int) -> None:
        if len(statements) != len(schedule.frequencies):
            raise InputError(
                f"{len(statements)} statements for a schedule of {len(schedule.frequencies)}; expected as many"
            )
        self._base, self._schedule, self._eod = base, schedule, eod
        tokens = [np.asarray(statement, dtype=np.int64) for statement in statements]
        first_of: dict[bytes, int] = {}
        for k, statement in enumerate(tokens):
            if statement.ndim != 1 or not len(statement):
                raise InputError(f"statement {k}: expected a list of at least one token, got shape {statement.shape}")
            if (statement == eod).any():
                raise InputError(f"statement {k} contains the end-of-document token {eod}; remove special tokens")
            first = first_of.setdefault(statement.tobytes(), k)
            if first != k:
                raise InputError(
                    f"statements {first} and {k} have the same tokens {statement.tolist()}; "
                    "their exposures could not be told apart: leave one out"
                )
        self._lengths = np.array([len(statement) for statement in tokens], dtype=np.int64)
        self._closed = [np.append(statement, eod) for statement in tokens]
        self._opening = np.array([eod], dtype=np.int64)
        self._key = key_of(schedule.seed, _PLACES)
        if schedule.exposures:
            self._refuse_overflow(len(base[0]["text"]))

    def __len__(self) -> int:
        return self._schedule.samples

    def __getitem__(self, i: int) -> dict[str, NDArray[np.int64]]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} is not in 0 … {len(self) - 1}")
        row = self._base[int(i) % len(self._base)]
        if row.keys() != {"text"}:
            raise InputError(
                f"rows have the keys {sorted(row)}; expected `text` alone, into which statements are spliced"
            )
        triples = self._schedule.triples_in(i)
        text = np.asarray(row["text"], dtype=np.int64)
        return {"text": self._splice(text, triples, i) if len(triples) else text}

    def _splice(self, text: NDArray[np.int64], triples: IntArray, i: int) -> NDArray[np.int64]:
        eod, length, read = self._eod, 0, 0  # length: tokens so far; read: background tokens so far
        pieces: list[NDArray[np.int64]] = []
        closed = False  # whether the last piece ends with the separator
        for gap, members in self._runs(len(text), triples, i):
            if gap > read:
                # A statement has just ended with the separator that this background begins with.
                begin = read + 1 if closed and text[read] == eod else read
                pieces.append(text[begin:gap])
                length += gap - begin
                closed = text[gap - 1] == eod
                read = gap
            if not closed:
                pieces.append(self._opening)
                length += 1
            for triple in members:
                piece = self._closed[triple]
                pieces.append(piece)
                length += len(piece)
            closed = True
        if text[read] == eod:
            read += 1
        pieces.append(text[read : read + len(text) - length])
        return np.concatenate(pieces)

    def _runs(self, size: int, triples: IntArray, i: int) -> list[tuple[int, list[int]]]:
        """Where statements go: (background tokens before, statements) for each run of neighbours, in order."""
        # A run costs one separator more than its statements; in a row that is nearly full statements share runs.
        count = len(triples)
        slack = size - int(self._lengths[triples].sum()) - count
        runs = min(count, max(1, slack // 2))
        numbers = draws(self._key, int(i) * size + np.arange(count))
        order = numbers.argsort(kind="stable")
        firsts = -(-np.arange(runs + 1) * count // runs)
        # The upper 32 bits u of a draw give a gap, floor(u·(slack - runs + 1) / 2^32), so sorting draws sorts the gaps.
        gaps = (numbers[order[firsts[:-1]]] >> np.uint64(32)) * np.uint64(slack - runs + 1) >> np.uint64(32)
        shuffled, cuts = triples[order].tolist(), firsts.tolist()
        return [(gap, shuffled[cuts[m] : cuts[m + 1]]) for m, gap in enumerate(gaps.tolist())]

    def _refuse_overflow(self, size: int) -> None:
        if self._schedule.by_tokens:  # then no row holds more than the schedule was packed for
            if self._schedule.capacity != size:
                raise InputError(
                    f"the schedule packs rows of {self._schedule.capacity} tokens; the base's rows have {size}"
                )
            if self._schedule.lengths is None or not np.array_equal(self._schedule.lengths, self._lengths):
                raise InputError(
                    "the schedule was packed with other lengths than the statements have; pass len(s) of each"
                )
            return
        used = self._lengths[self._schedule.frequencies > 0]
        need = self._schedule.largest_row * (int(used.max()) + 1) + 1
        if need > size:
            raise InputError(
                f"a row of {size} tokens may have to hold {self._schedule.largest_row} statements of up to "
                f"{int(used.max())} tokens ({need} with separators); build the Schedule with lengths and capacity, "
                "lower the frequency, or train for more samples"
            )
