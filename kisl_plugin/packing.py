"""Rows packed by tokens: exact exposures in runs so dense that rows of equal counts would not fit.

Row i is offered the exposures that earlier rows had no room for, then its own share. It takes, in that order, whatever
still fits, and the rest moves on to the next row. So no row is ahead of its share, and an exposure is usually at most
a row or two late. Leftovers are placed by repacking as few of the final rows as possible.
"""

from bisect import bisect_left, insort

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray, Spacing
from kisl_plugin.progress import Progress

__all__ = ["TokenFilled"]

_LOOK_AHEAD = 256  # waiting exposures that a row skips before it is left as it is
_MOST_WAITING = 8192  # more than this means that the run cannot be packed
_LONGEST_TAIL = 16_384  # rows


class TokenFilled:
    """A spacing whose rows hold at most `budget` tokens.

    Building walks the run once and keeps, for every block of `block_rows` samples, the exposures that wait at its
    start; a block is then a pure function of those and of the inner spacing. `rows` must be called for whole blocks.

    Args:
        inner: the spacing that gives each row its share and the order of exposures.
        costs: tokens of each statement with its separator, [K].
        budget: tokens of a row without the first separator.
        samples: rows of the run.
        block_rows: rows of a block.
        total: the cost of all exposures.

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
        progress = Progress("filling dense rows", samples)
        for start in range(0, samples, block_rows):
            stop = min(start + block_rows, samples)
            waiting = self._fill(start, stop)[2]
            if len(waiting) > _MOST_WAITING:
                raise self._refusal()
            self._waiting.append(waiting)
            if stop < samples:
                progress.update(stop)
        progress.close()
        if len(self._waiting.pop()):
            self._pack_tail()

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return self._budget // self._least

    @property
    def repacked_rows(self) -> int:
        """How many of the final rows were repacked: their order is not the inner spacing's."""
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

    def _fill(self, start: int, stop: int) -> tuple[IntArray, IntArray, IntArray]:
        """Samples start … stop-1, `start` the first of a block: row ends, triples, and what waits after them."""
        waiting = self._waiting[start // self._block_rows]
        ends, triples = self._inner.rows(start, stop)
        # Where nothing waits and no row is over the budget, the block is the inner spacing's as it is.
        spent = np.concatenate(([0], np.cumsum(self._costs[triples])))
        over = np.diff(spent[np.concatenate(([0], ends))]) > self._budget
        if not len(waiting) and not over.any():
            return ends, triples, waiting
        pool, begin, packed, new_ends = waiting.tolist(), 0, [], []
        for row, end in enumerate(ends.tolist()):
            share = triples[begin:end].tolist()
            begin = end
            if not pool and not over[row]:
                packed += share
            else:
                fits, pool = self._take(pool + share)
                packed += fits
            new_ends.append(len(packed))
        return np.array(new_ends, dtype=np.int64), np.array(packed, dtype=np.int64), np.array(pool, dtype=np.int64)

    def _take(self, pool: list[int]) -> tuple[list[int], list[int]]:
        """First fit: the exposures of `pool`, in order, that fit one row, and those that remain."""
        room = self._budget
        fits: list[int] = []
        left: list[int] = []
        for place, triple in enumerate(pool):
            if room < self._least or len(left) >= _LOOK_AHEAD:
                return fits, left + pool[place:]
            cost = int(self._costs[triple])
            if cost <= room:
                fits.append(triple)
                room -= cost
            else:
                left.append(triple)
        return fits, left

    def _pack_tail(self) -> None:
        """Repack the final rows, twice as many each time, until the leftovers fit."""
        count = 1
        while count <= min(2 * self._samples, _LONGEST_TAIL):
            start = max(0, self._samples - count)
            # All exposures that the rows before `start` do not hold.
            block = start - start % self._block_rows
            waiting = self._fill(block, start)[2] if start > block else self._waiting[block // self._block_rows]
            unplaced = np.concatenate((waiting, self._inner.rows(start, self._samples)[1]))
            packed = _best_fit_decreasing(unplaced, self._costs, self._budget, self._samples - start)
            if packed is not None:
                self._tail_start, self._tail = start, packed
                return
            count *= 2
        raise self._refusal()

    def _refusal(self) -> InputError:
        capacity = self._samples * self._budget
        return InputError(
            f"the statements do not fit: with separators they take {self._total:,.0f} of {capacity:,} tokens "
            f"({self._total / capacity:.1%} of {self._samples:,} rows of {self._budget + 1}) and cannot all be packed; "
            "lower the frequency, train for more iterations, widen the window, or use a longer seq_length"
        )


def _best_fit_decreasing(
    triples: IntArray, costs: IntArray, budget: int, rows: int
) -> tuple[IntArray, IntArray] | None:
    """Pack `triples` into `rows` rows of `budget` tokens: (row ends, triples), or None if it fails."""
    # The costliest exposures are placed first, each in the row with the least room that is enough.
    order = np.argsort(-costs[triples], kind="stable")
    rooms: list[tuple[int, int]] = [(budget, row) for row in range(rows)]  # ascending by room
    contents: list[list[int]] = [[] for _ in range(rows)]
    for triple in triples[order].tolist():
        cost = int(costs[triple])
        place = bisect_left(rooms, (cost, -1))
        if place == len(rooms):
            return None
        room, row = rooms.pop(place)
        contents[row].append(triple)
        insort(rooms, (room - cost, row))
    contents.sort(key=len)  # rows with fewer exposures come first, so that no row is ahead of its share
    ends = np.cumsum([len(row) for row in contents], dtype=np.int64)
    return ends, np.array([triple for row in contents for triple in row], dtype=np.int64)
