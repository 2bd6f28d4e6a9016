"""Integer mixing of our own: the same numbers for ever, whatever NumPy's generators do between versions.

A resumed run must draw what the uninterrupted one drew, so nothing here holds a state: every number is a function of
its key and its index.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(values: Any) -> U64:
    """SplitMix64's finaliser (Steele et al. 2014) of unsigned 64-bit values, element by element: a bijection."""
    z = np.asarray(values, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def key_of(*parts: int) -> int:
    """One 64-bit key from a seed and what it is for."""
    key = 0
    for part in parts:
        mixed = mix(np.array([(key + int(part) * _GOLDEN + 1) & _MASK], dtype=np.uint64))
        key = int(mixed[0])
    return key


def draws(key: int, indices: Any) -> U64:
    """The uniform 64-bit numbers at `indices` of the stream `key`."""
    return mix(mix(np.asarray(indices, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)))


def permute(indices: NDArray[np.int64], size: Any, key: Any) -> NDArray[np.int64]:
    """A keyed bijection of 0 … size-1, evaluated at `indices` without storing it.

    A Feistel network of eight rounds over the smallest power of two that holds `size`; what falls outside walks on
    along its cycle until it is inside (Black and Rogaway 2002). `size` and `key` may be arrays of the indices' shape.
    """
    bits = max(2, (int(np.max(size)) - 1).bit_length()) if len(indices) else 2
    size = np.broadcast_to(np.asarray(size, dtype=np.uint64), indices.shape)
    key = np.broadcast_to(np.asarray(key, dtype=np.uint64), indices.shape)
    out = _feistel(indices.astype(np.uint64), bits, key)
    outside = np.flatnonzero(out >= size)
    while len(outside):
        walked = _feistel(out[outside], bits, key[outside])
        out[outside] = walked
        outside = outside[walked >= size[outside]]
    return out.astype(np.int64)


def _feistel(values: U64, bits: int, key: U64) -> U64:
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = values >> low_bits, values & low_mask
    for step in range(ROUNDS):
        step_key = key + np.uint64((step + 1) * _GOLDEN & _MASK)
        if step % 2:
            low = low ^ (mix(high + step_key) & low_mask)
        else:
            high = high ^ (mix(low + step_key) & high_mask)
    return (high << low_bits) | low
