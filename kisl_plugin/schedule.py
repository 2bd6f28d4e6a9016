"""The schedule: which statements' exposures each sample holds. Exactly F_k of every k, as a pure function of i.

Three parts: integer mixing that never changes between versions, the two built-in spacings on top of it, and `Schedule`,
which cuts a run into blocks and hands dense runs over to `packing`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray, Spacing, hookimpl, manager
from kisl_plugin.packing import TokenFilled

__all__ = ["MOST_SAMPLES", "Schedule", "draws", "key_of"]

# Integer mixing. NumPy's generators may give other numbers in another version, and a resumed run must draw what the
# uninterrupted one would have drawn. So nothing here has a state: every number is a function of its key and its index.

_U64 = NDArray[np.uint64]
_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(values: Any) -> _U64:
    """SplitMix64's finaliser (Steele et al. 2014) of unsigned 64-bit values, element by element: a bijection."""
    z = np.asarray(values, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def key_of(*parts: int) -> int:
    """One 64-bit key from a seed and the numbers of its purpose."""
    key = 0
    for part in parts:
        mixed = mix(np.array([(key + int(part) * _GOLDEN + 1) & _MASK], dtype=np.uint64))
        key = int(mixed[0])
    return key


def draws(key: int, indices: Any) -> _U64:
    """The uniform 64-bit numbers at `indices` of the stream `key`."""
    return mix(mix(np.asarray(indices, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)))


def permute(indices: NDArray[np.int64], size: Any, key: Any) -> NDArray[np.int64]:
    """A keyed bijection of 0 … size-1, evaluated at `indices` without storing it.

    `size` and `key` may be arrays of indices' shape.
    """
    # A Feistel network of eight rounds permutes the smallest power of two that is at least `size`.
    bits = max(2, (int(np.max(size)) - 1).bit_length()) if len(indices) else 2
    size = np.broadcast_to(np.asarray(size, dtype=np.uint64), indices.shape)
    key = np.broadcast_to(np.asarray(key, dtype=np.uint64), indices.shape)
    out = _feistel(indices.astype(np.uint64), bits, key)
    # An image outside 0 … size-1 is permuted again until it is inside ("cycle walking", Black and Rogaway 2002): the
    # cycle of an index inside returns to it, so this ends, and two indices never meet.
    outside = np.flatnonzero(out >= size)
    while len(outside):
        walked = _feistel(out[outside], bits, key[outside])
        out[outside] = walked
        outside = outside[walked >= size[outside]]
    return out.astype(np.int64)


def _feistel(values: _U64, bits: int, key: _U64) -> _U64:
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = values >> low_bits, values & low_mask
    for step in range(_ROUNDS):
        step_key = key + np.uint64((step + 1) * _GOLDEN & _MASK)
        if step % 2:
            low = low ^ (mix(high + step_key) & low_mask)
        else:
            high = high ^ (mix(low + step_key) & high_mask)
    return (high << low_bits) | low


# The spacings "shuffled" and "even". Neither stores a plan; memory is O(K). The four numbers are the purposes of keys
# (`key_of`); injection.py has a fifth. They must never change.

_ORDER, _PHASE, _BASE, _JITTER = range(4)
_JITTER_CHUNKS = 8


@hookimpl
def kisl_spacing(name: str, frequencies: IntArray, samples: int, seed: int) -> Spacing | None:
    """Provide "shuffled" and "even"."""
    if name == "shuffled":
        return _Shuffled(frequencies, samples, seed)
    return _Even(frequencies, samples, seed) if name == "even" else None


def spacing_of(name: str, frequencies: IntArray, samples: int, seed: int) -> Spacing:
    """The spacing that a plugin provides under `name`.

    Raises:
        InputError: no plugin has it.
    """
    spacing: Spacing | None = manager().hook.kisl_spacing(
        name=name, frequencies=frequencies, samples=samples, seed=seed
    )
    if spacing is None:
        raise InputError(f"spacing: {name!r} is unknown; expected shuffled, even or one that an installed plugin adds")
    return spacing


def _share_ends(start: int, stop: int, items: int, samples: int, offset: int = 0) -> IntArray:
    """floor((i·items + offset) / samples) for i = start … stop, [stop - start + 1]; `offset` is below `samples`.

    Sample i holds the items from entry i to entry i+1, so every sample holds floor or ceil of items / samples of them.
    """
    # i·items may not fit 64 bits. With items = whole·samples + rest it is i·whole·samples + i·rest, and i·rest < 2^62
    # for at most 2^31 samples.
    whole, rest = divmod(items, samples)
    i = np.arange(start, stop + 1, dtype=np.int64)
    return i * whole + (i * rest + offset) // samples


class _Shuffled:
    """Every exposure is equally likely in every sample; samples differ by at most one exposure."""

    def __init__(self, frequencies: IntArray, samples: int, seed: int) -> None:
        self._ends = np.cumsum(frequencies, dtype=np.int64)
        self._exposures = int(self._ends[-1]) if len(frequencies) else 0
        self._samples = samples
        self._key = key_of(seed, _ORDER)

    @property
    def largest_row(self) -> int:
        return -(-self._exposures // self._samples)

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        shares = _share_ends(start, stop, self._exposures, self._samples)
        positions = np.arange(shares[0], shares[-1], dtype=np.int64)
        exposures = permute(positions, self._exposures, self._key)
        # Exposure number e is of the triple whose range of the cumulative frequencies contains e.
        return shares[1:] - shares[0], np.searchsorted(self._ends, exposures, side="right").astype(np.int64)


class _Even:
    """Each triple's exposures have a period of samples / frequency; no gap is above two periods.

    Triples of one frequency take turns in rounds. Within a round each moves by at most an eighth of it, shuffled again
    in every round, so that neighbours change; where a round is shorter than a sample none moves. Work for a block of
    samples grows with the number of distinct frequencies. (In rows packed by tokens an exposure may come a row or two
    later, and the final rows may be repacked: see `packing`.)
    """

    def __init__(self, frequencies: IntArray, samples: int, seed: int) -> None:
        distinct = [int(f) for f in np.unique(frequencies) if f > 0]
        self._turns = [_Turns(np.flatnonzero(frequencies == f), f, samples, seed) for f in distinct]

    @property
    def largest_row(self) -> int:
        return sum(turns.largest_row for turns in self._turns)

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        ends = np.zeros(stop - start, dtype=np.int64)
        rows, triples = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for turns in self._turns:
            own_ends, own_triples = turns.rows(start, stop)
            ends += own_ends
            rows.append(np.repeat(np.arange(stop - start), np.diff(own_ends, prepend=0)))
            triples.append(own_triples)
        order = np.argsort(np.concatenate(rows), kind="stable")
        return ends, np.concatenate(triples)[order]


class _Turns:
    """The triples of one frequency, taking turns: in round j each of them once."""

    def __init__(self, members: IntArray, frequency: int, samples: int, seed: int) -> None:
        count = len(members)
        self._members = members[permute(np.arange(count), count, key_of(seed, _BASE, frequency))]
        self._total, self._samples = count * frequency, samples
        self._phase = key_of(seed, _PHASE, frequency) % samples
        moves = count >= 2 * _JITTER_CHUNKS and frequency <= samples
        self._bounds = np.arange(_JITTER_CHUNKS + 1) * count // _JITTER_CHUNKS if moves else None
        self._key = key_of(seed, _JITTER, frequency)

    @property
    def largest_row(self) -> int:
        return -(-self._total // self._samples)

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        shares = _share_ends(start, stop, self._total, self._samples, self._samples - 1 - self._phase)
        turn, place = np.divmod(np.arange(shares[0], shares[-1], dtype=np.int64), len(self._members))
        if self._bounds is not None:  # permute the places within each eighth, with a key for this turn and eighth
            chunk = np.searchsorted(self._bounds, place, side="right") - 1
            first = self._bounds[chunk]
            key = draws(self._key, turn * _JITTER_CHUNKS + chunk)
            place = first + permute(place - first, self._bounds[chunk + 1] - first, key)
        return shares[1:] - shares[0], self._members[place]


# A sample is computed together with its block: the vectorised work costs the same for one sample as for a few hundred.

_BLOCK_SAMPLES = 256
_BLOCK_EXPOSURES = 4096
MOST_SAMPLES = 2**31
_MOST_EXPOSURES = 2**62


class Schedule:
    """Exactly `frequencies[k]` exposures of each k over samples 0 … samples-1, for every seed and spacing.

    A pure function of its arguments and i: no file, no order of calls. Memory O(K).

    Args:
        frequencies: whole numbers [K].
        samples: S, at most 2^31.
        seed: any whole number.
        spacing: "shuffled", "even", or a plugin's.
        lengths: tokens of each statement [K]; with `capacity` a run too dense for rows of equal counts is packed by
            tokens, which takes one pass when built and O(samples) memory.
        capacity: tokens of a row.
        window: the part of the run, as shares of it, that all exposures fall into.

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
        if not 1 <= samples <= MOST_SAMPLES:
            raise InputError(f"samples: {samples}; expected 1 to {MOST_SAMPLES}")
        self.samples, self.seed, self.spacing = int(samples), seed, spacing
        self.exposures = int(self.frequencies.sum(dtype=object) if len(self.frequencies) else 0)
        if self.exposures > _MOST_EXPOSURES:
            raise InputError(
                f"frequencies: {self.exposures:,} exposures in total; expected at most {_MOST_EXPOSURES:,}"
            )
        low, high = window
        if not 0.0 <= low < high <= 1.0:
            raise InputError(f"window: {list(window)}; expected [from, to] with 0 <= from < to <= 1")
        self._first, self._last = int(low * self.samples), int(high * self.samples)
        if self._first == self._last and self.exposures:
            raise InputError(f"window: {list(window)} contains none of the {self.samples} samples; widen it")
        inside = max(1, self._last - self._first)
        self._spacing = spacing_of(spacing, self.frequencies, inside, seed)
        self._block_rows = max(1, min(_BLOCK_SAMPLES, _BLOCK_EXPOSURES // max(1, self._spacing.largest_row)))
        self.capacity = capacity
        self.lengths = None if lengths is None else _whole_numbers("lengths", lengths)
        if self.lengths is not None and capacity is not None:
            if len(self.lengths) != len(self.frequencies):
                raise InputError(
                    f"lengths: {len(self.lengths)} for {len(self.frequencies)} frequencies; expected one for each"
                )
            used = self.lengths[self.frequencies > 0]
            longest = int(used.max()) if len(used) else 0
            if longest + 2 > capacity:
                raise InputError(
                    f"a statement of {longest} tokens and its two separators do not fit a row of {capacity} tokens; "
                    "use a longer seq_length or shorter statements"
                )
            if self._spacing.largest_row * (longest + 1) + 1 > capacity:
                costs = self.lengths + 1
                total = float(np.dot(self.frequencies.astype(np.float64), costs))
                self._spacing = TokenFilled(self._spacing, costs, capacity - 1, inside, self._block_rows, total)
        self._block: tuple[int, IntArray, IntArray] | None = None

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return self._spacing.largest_row

    @property
    def by_tokens(self) -> bool:
        """Whether rows are packed by tokens, because equal counts would not fit."""
        return isinstance(self._spacing, TokenFilled)

    @property
    def repacked_rows(self) -> int:
        """How many of the final rows were repacked; the spacing does not hold in them (see `packing`)."""
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

    def exposures_in(self, start: int, stop: int) -> int:
        """How many exposures samples start … stop-1 hold."""
        first, last = (min(max(i, self._first), self._last) - self._first for i in (start, stop))
        total = 0
        for number in range(first // self._block_rows, -(-last // self._block_rows)):
            ends, begin = self._read_block(number)[1], number * self._block_rows
            low, high = max(0, first - begin), min(len(ends), last - begin)
            total += int(ends[high - 1]) - (int(ends[low - 1]) if low else 0)
        return total

    def count_exposures(self) -> IntArray:
        """Count every k's exposures over the whole run, int64 [K]. O(exposures): for tests, and to check plugins."""
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


def _whole_numbers(name: str, values: Any) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{name}: expected a list of whole numbers, got shape {array.shape} of {array.dtype}")
    if array.size and int(array.min()) < 0:
        raise InputError(f"{name}: {int(array.min())} at index {int(array.argmin())}; expected 0 or more")
    if array.size and int(array.max()) > _MOST_EXPOSURES:
        raise InputError(
            f"{name}: {int(array.max())} at index {int(array.argmax())}; expected at most {_MOST_EXPOSURES}"
        )
    return array.astype(np.int64)
