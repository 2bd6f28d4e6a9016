"""How exposures are spaced over the run: "shuffled" and "even". Neither stores a plan; memory is O(K)."""

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.mixing import draws, key_of, permute
from kisl_plugin.roles import IntArray, Spacing

_ORDER, _PHASE, _BASE, _JITTER = range(4)
JITTER_CHUNKS = 8


@hookimpl
def kisl_spacing(name: str, frequencies: IntArray, samples: int, seed: int) -> Spacing | None:
    """Provide "shuffled" and "even"."""
    if name == "shuffled":
        return Shuffled(frequencies, samples, seed)
    if name == "even":
        return Even(frequencies, samples, seed)
    return None


def spacing_of(name: str, frequencies: IntArray, samples: int, seed: int) -> Spacing:
    """The spacing that a plugin provides under `name`.

    Raises:
        InputError: no plugin knows it.
    """
    from kisl_plugin.plugins import manager

    found = manager().hook.kisl_spacing(name=name, frequencies=frequencies, samples=samples, seed=seed)
    if found is None:
        raise InputError(f"spacing: {name!r} is unknown; expected shuffled, even or one that an installed plugin adds")
    spacing: Spacing = found
    return spacing


def share_ends(start: int, stop: int, items: int, samples: int, offset: int = 0) -> IntArray:
    """floor((i·items + offset) / samples) for i = start … stop; exact where i·items would not fit 64 bits.

    Shape [stop - start + 1]; `offset` below `samples`, samples at most 2^31.
    """
    whole, rest = divmod(items, samples)
    i = np.arange(start, stop + 1, dtype=np.int64)
    return i * whole + (i * rest + offset) // samples


class Shuffled:
    """Every exposure falls anywhere in the run alike; rows differ by at most one exposure."""

    def __init__(self, frequencies: IntArray, samples: int, seed: int) -> None:
        self._ends = np.cumsum(frequencies, dtype=np.int64)
        self._exposures = int(self._ends[-1]) if len(frequencies) else 0
        self._samples = samples
        self._key = key_of(seed, _ORDER)

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return -(-self._exposures // self._samples)

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Samples start … stop-1: cumulative row ends and the triples in order."""
        shares = share_ends(start, stop, self._exposures, self._samples)
        positions = np.arange(shares[0], shares[-1], dtype=np.int64)
        exposures = permute(positions, self._exposures, self._key)
        return shares[1:] - shares[0], np.searchsorted(self._ends, exposures, side="right").astype(np.int64)


class Even:
    """Each triple's exposures keep a steady period of samples / frequency; no gap is above two periods.

    (In rows filled by tokens an exposure may wait a row or two, and the last rows may be packed anew: filling.py.)

    Triples of one frequency take turns in rounds. Within a round each moves by at most an eighth of it, shuffled anew
    every round, so that neighbours change; where a round is shorter than a sample nobody moves. Work for a block of
    samples grows with the number of distinct frequencies.
    """

    def __init__(self, frequencies: IntArray, samples: int, seed: int) -> None:
        kinds = [int(f) for f in np.unique(frequencies) if f > 0]
        self._turns = [_Turns(np.flatnonzero(frequencies == f), f, samples, seed) for f in kinds]

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""
        return sum(turns.largest_row for turns in self._turns)

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Samples start … stop-1: cumulative row ends and the triples in order."""
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
        moves = count >= 2 * JITTER_CHUNKS and frequency <= samples
        self._bounds = np.arange(JITTER_CHUNKS + 1) * count // JITTER_CHUNKS if moves else None
        self._key = key_of(seed, _JITTER, frequency)

    @property
    def largest_row(self) -> int:
        return -(-self._total // self._samples)

    def rows(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        shares = share_ends(start, stop, self._total, self._samples, self._samples - 1 - self._phase)
        turn, place = np.divmod(np.arange(shares[0], shares[-1], dtype=np.int64), len(self._members))
        return shares[1:] - shares[0], self._members[self._moved(turn, place)]

    def _moved(self, turn: IntArray, place: IntArray) -> IntArray:
        if self._bounds is None:
            return place
        chunk = np.searchsorted(self._bounds, place, side="right") - 1
        first = self._bounds[chunk]
        key = draws(self._key, turn * JITTER_CHUNKS + chunk)
        return first + permute(place - first, self._bounds[chunk + 1] - first, key)
