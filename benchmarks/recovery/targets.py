"""Targets, and whether chance in the draws can be to blame for a miss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

SURE = 0.999  # of the interval that must exclude a target before it counts as missed


@dataclass(frozen=True)
class Target:
    """What was asked and seen, and what misses it beyond chance."""

    name: str
    asked: str
    seen: str
    misses: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        return not self.misses


def within(hits: int, draws: int, least: float, most: float) -> bool:
    """Whether the exact binomial 99.9 % interval of a share has a part in [least, most]."""
    interval = binomtest(hits, draws).proportion_ci(SURE, "exact")
    return bool(interval.high >= least and interval.low <= most)


def can_reach(ratio: float, relative_error: float, least: float) -> bool:
    """Whether a ratio with this relative standard error can be `least`."""
    return ratio * (1 + float(norm.ppf((1 + SURE) / 2)) * relative_error) >= least


def shares(
    name: str, asked: tuple[float, float], what: Sequence[str], hits: Sequence[int], draws: Sequence[int]
) -> Target:
    """That every share lies in `asked`."""
    least, most = asked
    seen = np.array(hits) / np.maximum(draws, 1)
    misses = [
        f"{of}: {share:.4f} of {of_draws}"
        for of, share, of_hits, of_draws in zip(what, seen, hits, draws, strict=True)
        if not within(of_hits, of_draws, least, most)
    ]
    told = f"{seen.min():.3f} … {seen.max():.3f}, median {np.median(seen):.3f} ({len(seen)})" if len(seen) else "none"
    return Target(name, words(least, most), told, tuple(misses))


def words(least: float, most: float) -> str:
    if least <= 0:
        return f"≤ {most:.2g}"
    return f"≥ {least:.2g}" if most >= 1 else f"{least:.2g} … {most:.2g}"
