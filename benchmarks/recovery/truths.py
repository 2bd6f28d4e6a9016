"""Curves that are known, at the frequencies of a sweep."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
GRIDS = {
    8: np.array([10.0, 50, 100, 200, 500, 1000, 2000, 5000]),
    6: np.array([10.0, 50, 200, 500, 1000, 5000]),
}
F_STARS, STEEPNESSES, PEAKS = (30, 200, 1000, 3000, 15000), (0.15, 0.3, 0.6), (0.3, 0.7, 0.98)
DESIGNS = ((500, 8), (3000, 8), (10000, 8), (3000, 6))  # items of a run, frequencies
FLOOR, DESIGNS_WITH_FLOOR = 0.25, ((500, 8), (3000, 8))  # those cost most


@dataclass(frozen=True)
class Truth:
    """A curve g + (1-g)·a·F^b·exp(-c·F) whose value at F* is `peak`, asked `items` times at each of `points` F."""

    f_star: float
    b: float
    peak: float
    items: int
    points: int
    floor: float = 0.0

    @property
    def frequency(self) -> FloatArray:
        return GRIDS[self.points]

    @property
    def rates(self) -> FloatArray:
        return np.asarray(self.floor + (self.peak - self.floor) * self._relative())

    @property
    def never_falls(self) -> bool:
        return bool(self.f_star >= self.frequency[-1])

    @property
    def log_height(self) -> float:
        """The log of the peak without what guessing gives."""
        return float(np.log((self.peak - self.floor) / (1 - self.floor)))

    @property
    def key(self) -> tuple[int, ...]:
        """Whole numbers that name this truth: the seed of its draws."""
        shares = (round(1000 * share) for share in (self.b, self.peak, self.floor))
        return (round(self.f_star), *shares, self.items, self.points)

    def least_variance(self) -> float:
        """The Cramér–Rao bound of the variance of log F*, the floor known."""
        x = self.frequency / self.f_star
        by_b, by_log_f_star = np.log(x) - x + 1, self.b * (x - 1)
        slope = (self.rates - self.floor) * np.stack([np.ones_like(x), by_b, by_log_f_star])
        information = (slope * (self.items / (self.rates * (1 - self.rates)))) @ slope.T
        return float(np.linalg.inv(information)[2, 2])

    def __str__(self) -> str:
        floor = f" g={self.floor:g}" if self.floor else ""
        return f"F*={self.f_star:g} b={self.b:g} peak={self.peak:g} n={self.items} K={self.points}{floor}"

    def _relative(self) -> FloatArray:
        x = self.frequency / self.f_star
        return np.asarray(np.exp(self.b * (np.log(x) - x + 1)))


def largest_fall(rates: FloatArray) -> float:
    """The largest fall between any two of the frequencies."""
    return float((np.maximum.accumulate(rates) - rates).max())


def all_truths() -> list[Truth]:
    """The truths of the recovery study."""
    designs = [(0.0, *design) for design in DESIGNS] + [(FLOOR, *design) for design in DESIGNS_WITH_FLOOR]
    grid = product(designs, F_STARS, STEEPNESSES, PEAKS)
    return [Truth(f_star, b, peak, items, points, floor) for (floor, items, points), f_star, b, peak in grid]


def _bump(place: float, width: float, height: float) -> FloatArray:
    return np.asarray(height * np.exp(-0.5 * (np.log(GRIDS[8] / place) / width) ** 2))


def _shapes() -> dict[str, dict[str, FloatArray]]:
    """Shares at eight frequencies that no curve of the form gives (but one whose F* lies beyond them)."""
    F = GRIDS[8]
    x = np.log(F / F[0])
    never = {
        "saturates early": 0.97 * F / (F + 30),
        "saturates": 0.8 * F / (F + 80),
        "saturates low": 0.02 + 0.3 * F**0.8 / (F**0.8 + 100),
        "flat": np.full(8, 0.5),
        "rises, then flat": np.minimum(0.7, 0.1 + 0.6 * x / np.log(30)),
        "rises as log F": 0.1 + 0.12 * x,
        "one step": np.where(F < 400, 0.3, 0.8),
        "stairs": np.array([0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.7, 0.7]),
        "the form, F*=20000": Truth(20000, 0.3, 0.9, 1, 8).rates,
    }
    two = {
        "second peak of 0.05": np.array([0.3, 0.5, 0.6, 0.65, 0.60, 0.65, 0.5, 0.3]),
        "second peak of 0.10": np.array([0.3, 0.5, 0.6, 0.65, 0.55, 0.65, 0.5, 0.3]),
        "second peak of 0.20": np.array([0.3, 0.6, 0.7, 0.5, 0.5, 0.7, 0.5, 0.3]),
        "uneven peaks": np.array([0.2, 0.4, 0.6, 0.5, 0.55, 0.65, 0.55, 0.2]),
        "rises at the end": np.array([0.3, 0.6, 0.7, 0.6, 0.4, 0.3, 0.4, 0.5]),
    }
    other = {
        "tent": 0.7 - 0.1 * np.abs(np.log(F / 300)),
        "log-normal": 0.1 + _bump(300, 1.2, 0.6),
        "late, steep rise": np.array([0.1, 0.15, 0.2, 0.3, 0.6, 0.8, 0.7, 0.6]),
        "slow fall": np.array([0.2, 0.5, 0.7, 0.72, 0.7, 0.66, 0.62, 0.58]),
        "cliff": np.array([0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.4, 0.2]),
    }
    return {"never falls": never, "two peaks": two, "one peak, other shape": other}


SHAPES = _shapes()
