"""The schedule: which statements' exposures each sample holds. Exactly F_k of every k, as a pure function of i."""

from typing import Any

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.filling import TokenFilled
from kisl_plugin.roles import IntArray
from kisl_plugin.spacings import spacing_of

BLOCK_SAMPLES = 256
BLOCK_EXPOSURES = 4096
MOST_SAMPLES = 2**31
MOST_EXPOSURES = 2**62


class Schedule:
    """Exactly `frequencies[k]` exposures of each k over samples 0 … samples-1, for every seed and spacing.

    A pure function of its arguments and i: no file, no order of calls. Memory O(K). With `lengths` (tokens of each
    statement, [K]) and `capacity` (tokens of a row) a run too dense for rows of equal counts is filled by tokens, which
    takes one pass when built. `window` limits the exposures to that part of the run.

    Raises:
        InputError: an argument is out of range, or the statements do not fit.
    """

    def __init__(
        self,
        frequencies: Any,
        samples: int,
        seed: int,
        spacing: str = "shuffled",
        *,
        lengths: Any = None,
        capacity: int | None = None,
        window: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.frequencies = _whole_numbers("frequencies", frequencies)
        self.samples, self.seed, self.spacing = _sample_count(samples), seed, spacing
        self.exposures = int(self.frequencies.sum(dtype=object) if len(self.frequencies) else 0)
        if self.exposures > MOST_EXPOSURES:
            raise InputError(f"frequencies: {self.exposures:,} exposures in all; expected at most {MOST_EXPOSURES:,}")
        self._first, self._last = _window_rows(window, self.samples, self.exposures)
        inside = max(1, self._last - self._first)
        self._spacing = spacing_of(spacing, self.frequencies, inside, seed)
        self._block_rows = max(1, min(BLOCK_SAMPLES, BLOCK_EXPOSURES // max(1, self._spacing.largest_row)))
        self.capacity = capacity
        self.lengths = None if lengths is None else _whole_numbers("lengths", lengths)
        if self.lengths is not None and capacity is not None:
            self._fit(self.lengths, capacity, inside)
        self._block: tuple[int, IntArray, IntArray] | None = None

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return self._spacing.largest_row

    @property
    def by_tokens(self) -> bool:
        """Whether rows are filled by tokens, since equal counts would not fit."""
        return isinstance(self._spacing, TokenFilled)

    @property
    def repacked_rows(self) -> int:
        """How many of the last rows had to be packed anew; there the spacing is not kept (see filling.py)."""
        return self._spacing.repacked_rows if isinstance(self._spacing, TokenFilled) else 0

    def triples_in(self, i: int) -> IntArray:
        """The indices into `frequencies` whose exposures sample i holds, int64 [n]; one entry an exposure.

        Raises:
            IndexError: i is not in 0 … samples-1.
        """
        if not 0 <= i < self.samples:
            raise IndexError(f"sample {i} is not in 0 … {self.samples - 1}")
        if not self._first <= i < self._last or not self.exposures:
            return np.zeros(0, dtype=np.int64)
        number, row = divmod(int(i) - self._first, self._block_rows)
        _, ends, triples = self._read_block(number)
        return triples[ends[row - 1] if row else 0 : ends[row]].copy()

    def count_exposures(self) -> IntArray:
        """Count every k's exposures over the whole run, [K]. O(exposures): for tests, and for spacings of others."""
        counts = np.zeros(len(self.frequencies), dtype=np.int64)
        for start in range(0, self._last - self._first, self._block_rows):
            triples = self._read_block(start // self._block_rows)[2]
            counts += np.bincount(triples, minlength=len(counts))
        return counts

    def _read_block(self, number: int) -> tuple[int, IntArray, IntArray]:
        block = self._block
        if block is None or block[0] != number:
            start = number * self._block_rows
            stop = min(start + self._block_rows, self._last - self._first)
            block = self._block = (number, *self._spacing.rows(start, stop))
        return block

    def _fit(self, lengths: IntArray, capacity: int, samples: int) -> None:
        if len(lengths) != len(self.frequencies):
            raise InputError(f"lengths: {len(lengths)} given for {len(self.frequencies)} frequencies; expected as many")
        used = lengths[self.frequencies > 0]
        longest = int(used.max()) if len(used) else 0
        if longest + 2 > capacity:
            raise InputError(
                f"a statement of {longest} tokens and its two separators do not fit a row of {capacity} tokens; "
                "use a longer seq_length or shorter statements"
            )
        if self._spacing.largest_row * (longest + 1) + 1 > capacity:
            total = float(np.dot(self.frequencies.astype(np.float64), lengths + 1))
            self._spacing = TokenFilled(self._spacing, lengths + 1, capacity - 1, samples, self._block_rows, total)


def _whole_numbers(name: str, values: Any) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{name}: expected a list of whole numbers, got shape {array.shape} of {array.dtype}")
    if array.size and int(array.min()) < 0:
        raise InputError(f"{name}: {int(array.min())} at index {int(array.argmin())}; expected 0 or more")
    if array.size and int(array.max()) > MOST_EXPOSURES:
        raise InputError(
            f"{name}: {int(array.max())} at index {int(array.argmax())}; expected at most {MOST_EXPOSURES}"
        )
    return array.astype(np.int64)


def _sample_count(samples: int) -> int:
    if not 1 <= samples <= MOST_SAMPLES:
        raise InputError(f"samples: {samples}; expected 1 to {MOST_SAMPLES}")
    return int(samples)


def _window_rows(window: tuple[float, float], samples: int, exposures: int) -> tuple[int, int]:
    low, high = window
    if not 0.0 <= low < high <= 1.0:
        raise InputError(f"window: {list(window)}; expected [from, to] with 0 <= from < to <= 1")
    first, last = int(low * samples), int(high * samples)
    if first == last and exposures:
        raise InputError(f"window: {list(window)} holds none of the {samples} samples; widen it")
    return first, last
