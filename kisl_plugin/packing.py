"""Rows filled by tokens: exact exposures in runs so dense that rows of equal counts would not fit.

Row i is offered what earlier rows could not hold and then its own share; it takes, in that order, whatever still fits,
and the rest moves on. So no row is ahead of its share, and an exposure waits a row or two. What the last row leaves
over is packed anew together with the last rows, as few of them as it takes.
"""

from bisect import bisect_left, insort

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray, Spacing
from kisl_plugin.progress import Progress

LOOK_AHEAD = 256
MOST_WAITING = 8192
LONGEST_TAIL = 16_384


class TokenFilled:
    """A spacing whose rows hold at most `budget` tokens. `costs`: tokens of each statement with its separator, [K].

    Building walks the run once and keeps, for every block of `block_rows` samples, what waits at its start; a block is
    then a pure function of that and of the inner spacing. `rows` must be asked for whole blocks. `total` is what all
    exposures cost.

    Raises:
        InputError: the statements do not fit, with the figures.
    """

    def __init__(
        self, inner: Spacing, costs: IntArray, budget: int, samples: int, block_rows: int, total: float
    ) -> None:
        self._inner, self._costs, self._budget = inner, costs, budget
        self._samples, self._block_rows, self._total = samples, block_rows, total
        self._least = int(costs.min())
        self._tail_start = samples
        self._tail = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._waiting = [np.zeros(0, np.int64)]
        if total > samples * budget:
            raise self._refusal()
        self._fill_run()

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return self._budget // self._least

    @property
    def repacked_rows(self) -> int:
        """How many of the last rows were packed anew: there the order is not the inner spacing's."""
        return self._samples - self._tail_start

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Samples start … stop-1 (one block): cumulative row ends and the triples in order."""
        head = max(start, min(stop, self._tail_start))
        ends, triples, _ = self._fill(start, head)
        if head == stop:
            return ends, triples
        tail_ends, tail_triples = self._tail
        first, last = head - self._tail_start, stop - self._tail_start
        begin = int(tail_ends[first - 1]) if first else 0
        own = tail_ends[first:last] - begin
        return (
            np.concatenate((ends, own + len(triples))),
            np.concatenate((triples, tail_triples[begin : begin + own[-1]])),
        )

    def _fill_run(self) -> None:
        progress = Progress("filling dense rows", self._samples)
        for start in range(0, self._samples, self._block_rows):
            stop = min(start + self._block_rows, self._samples)
            waiting = self._fill(start, stop)[2]
            if len(waiting) > MOST_WAITING:
                raise self._refusal()
            self._waiting.append(waiting)
            if stop < self._samples:
                progress.update(stop)
        progress.close()
        if len(self._waiting.pop()):
            self._pack_tail()

    def _fill(self, start: int, stop: int) -> tuple[IntArray, IntArray, IntArray]:
        """Samples start … stop-1, `start` the first of a block: row ends, triples, and what waits after them."""
        waiting = self._waiting[start // self._block_rows]
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
        return np.array(new_ends, dtype=np.int64), np.array(taken, dtype=np.int64), np.array(pool, dtype=np.int64)

    def _take(self, pool: list[int]) -> tuple[list[int], list[int]]:
        room = self._budget
        fits: list[int] = []
        left: list[int] = []
        for place, triple in enumerate(pool):
            if room < self._least or len(left) >= LOOK_AHEAD:
                return fits, left + pool[place:]
            cost = int(self._costs[triple])
            if cost <= room:
                fits.append(triple)
                room -= cost
            else:
                left.append(triple)
        return fits, left

    def _pack_tail(self) -> None:
        """Pack the last rows anew, twice as many each time, until what was left over fits."""
        count = 1
        while count <= min(2 * self._samples, LONGEST_TAIL):
            start = max(0, self._samples - count)
            packed = pack(self._unplaced(start), self._costs, self._budget, self._samples - start)
            if packed is not None:
                self._tail_start, self._tail = start, packed
                return
            count *= 2
        raise self._refusal()

    def _unplaced(self, row: int) -> IntArray:
        """All exposures that the rows before `row` do not hold."""
        block = row - row % self._block_rows
        waiting = self._fill(block, row)[2] if row > block else self._waiting[block // self._block_rows]
        return np.concatenate((waiting, self._inner.rows(row, self._samples)[1]))

    def _refusal(self) -> InputError:
        capacity = self._samples * self._budget
        return InputError(
            f"the statements do not fit: with separators they take {self._total:,.0f} of {capacity:,} tokens "
            f"({self._total / capacity:.1%} of {self._samples:,} rows of {self._budget + 1}) and cannot all be packed; "
            "lower the frequency, train for more iterations, widen the window, or use a longer seq_length"
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
