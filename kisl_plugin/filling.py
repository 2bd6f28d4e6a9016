"""Rows filled by tokens: exact exposures in runs so dense that rows of equal counts would not fit.

Row i is offered what earlier rows could not hold and then its own share; it takes, in that order, whatever still fits,
and the rest moves on. So no row is ahead of its share. What the last row leaves over is packed anew with the last rows.
"""

from bisect import bisect_left, insort

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.progress import Progress
from kisl_plugin.roles import IntArray, Spacing

LOOK_AHEAD = 256
LONGEST_TAIL = 16_384


class TokenFilled:
    """A spacing whose rows hold at most `budget` tokens. `costs`: tokens of each statement with its separator, [K].

    Building walks the run once and keeps, for every block of `block_rows` samples, what waits at its start; a block is
    then a pure function of that and of the inner spacing. `rows` must be asked for whole blocks.

    Raises:
        InputError: the statements do not fit, with the figures.
    """

    def __init__(self, inner: Spacing, costs: IntArray, budget: int, samples: int, block_rows: int) -> None:
        self._inner, self._costs, self._budget = inner, costs, budget
        self._samples, self._block_rows = samples, block_rows
        self._tail_start, self._tail = samples, (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._waiting = [np.zeros(0, np.int64)]
        self._fill_run()

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return self._budget // int(self._costs.min())

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Samples start … stop-1 (one block): cumulative row ends and the triples in order."""
        if start >= self._tail_start:
            ends, triples = self._tail
            offset = start - self._tail_start
            begin = int(ends[offset - 1]) if offset else 0
            ends = ends[offset : offset + stop - start]
            return ends - begin, triples[begin : ends[-1]]
        ends, triples, _ = self._fill(self._waiting[start // self._block_rows], start, stop)
        return ends, triples

    def _fill_run(self) -> None:
        progress = Progress("filling dense rows", self._samples)
        for start in range(0, self._samples, self._block_rows):
            stop = min(start + self._block_rows, self._samples)
            self._waiting.append(self._fill(self._waiting[-1], start, stop)[2])
            if stop < self._samples:
                progress.update(stop)
        if len(self._waiting.pop()):
            self._pack_tail()

    def _fill(self, waiting: IntArray, start: int, stop: int) -> tuple[IntArray, IntArray, IntArray]:
        ends, triples = self._inner.rows(start, stop)
        spent = np.concatenate(([0], np.cumsum(self._costs[triples])))
        over = np.diff(spent[np.concatenate(([0], ends))]) > self._budget
        if not len(waiting) and not over.any():
            return ends, triples, waiting
        pool, begin, taken, new_ends = waiting.tolist(), 0, [], []
        for row, end in enumerate(ends.tolist()):
            share = triples[begin:end].tolist()
            begin = end
            if not pool and not over[row]:
                taken += share
            else:
                fits, pool = self._take(pool + share)
                taken += fits
            new_ends.append(len(taken))
        return np.array(new_ends), np.array(taken, dtype=np.int64), np.array(pool, dtype=np.int64)

    def _take(self, pool: list[int]) -> tuple[list[int], list[int]]:
        room, least = self._budget, int(self._costs.min())
        fits: list[int] = []
        left: list[int] = []
        for place, triple in enumerate(pool):
            if room < least or len(left) >= LOOK_AHEAD:
                return fits, left + pool[place:]
            cost = int(self._costs[triple])
            if cost <= room:
                fits.append(triple)
                room -= cost
            else:
                left.append(triple)
        return fits, left

    def _pack_tail(self) -> None:
        """Pack the last blocks anew, twice as many each time, until what was left over fits."""
        blocks = len(self._waiting)
        count = 1
        while True:
            first = max(0, blocks - count)
            start = first * self._block_rows
            waiting = np.concatenate((self._waiting[first], self._inner.rows(start, self._samples)[1]))
            packed = pack(waiting, self._costs, self._budget, self._samples - start)
            if packed is not None:
                self._tail_start, self._tail = start, packed
                return
            if first == 0 or self._samples - start >= LONGEST_TAIL:
                raise InputError(self._refusal())
            count *= 2

    def _refusal(self) -> str:
        total = sum(
            int(self._costs[self._inner.rows(s, min(s + self._block_rows, self._samples))[1]].sum())
            for s in range(0, self._samples, self._block_rows)
        )
        capacity = self._samples * self._budget
        return (
            f"the statements do not fit: with separators they take {total:,} of {capacity:,} tokens "
            f"({total / capacity:.1%} of {self._samples:,} rows of {self._budget + 1}) and cannot all be packed; "
            "lower the frequency, train for more iterations, or use a longer seq_length"
        )


def pack(triples: IntArray, costs: IntArray, budget: int, rows: int) -> tuple[IntArray, IntArray] | None:
    """Best-fit decreasing of `triples` into `rows` rows of `budget` tokens: (row ends, triples), or None if it fails.

    Rows with fewer exposures come first, so that no row is ahead of its share.
    """
    order = np.argsort(-costs[triples], kind="stable")
    rooms: list[tuple[int, int]] = [(budget, row) for row in range(rows)]
    held: list[list[int]] = [[] for _ in range(rows)]
    for triple in triples[order].tolist():
        cost = int(costs[triple])
        place = bisect_left(rooms, (cost, -1))
        if place == len(rooms):
            return None
        room, row = rooms.pop(place)
        held[row].append(triple)
        insort(rooms, (room - cost, row))
    held.sort(key=len)
    ends = np.cumsum([len(row) for row in held], dtype=np.int64)
    return ends, np.array([triple for row in held for triple in row], dtype=np.int64)
