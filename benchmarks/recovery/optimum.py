"""Is the estimator's optimum the optimum? Beside an own likelihood, profiled over a dense grid and polished by scipy.

For every F* and b of the grid the height is found by bisection: P is linear in it, so the likelihood is concave.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from kisl_plugin.fit.curve_estimate import LARGEST_B, REACH, SMALLEST_HEIGHT, Cells, survey
from recovery.draws import counts, generator
from recovery.plan import Plan, shared
from recovery.tables import Section, table
from recovery.targets import Target
from recovery.truths import FloatArray, Truth

NAME = "optimum"
CASES = {
    "no floor": (Truth(300, 0.3, 0.7, 3000, 8), Truth(3000, 0.15, 0.98, 500, 6)),
    "floor 0.25": (Truth(300, 0.3, 0.7, 3000, 8, 0.25), Truth(1000, 0.15, 0.98, 500, 6, 0.25)),
    "n = 50": (Truth(300, 0.3, 0.7, 50, 8), Truth(15000, 0.6, 0.98, 50, 6)),
    "n = 50, floor 0.25": (Truth(300, 0.3, 0.7, 50, 8, 0.25), Truth(30, 0.15, 0.4, 50, 6, 0.25)),
    "peak 0.1": (Truth(300, 0.3, 0.1, 500, 8), Truth(300, 0.3, 0.1, 50, 6)),
    "peak 0.1, floor 0.05": (Truth(300, 0.3, 0.1, 500, 8, 0.05), Truth(300, 0.3, 0.1, 50, 6, 0.05)),
    "just above a floor 0.25": (Truth(300, 0.3, 0.27, 500, 8, 0.25), Truth(1000, 0.6, 0.26, 50, 6, 0.25)),
}
OF_OPTIMUM = 9  # sets the seeds of these draws apart
PLACES, SMALLEST_B, STEEPNESSES = 240, 1e-3, 70
BISECTIONS, HALVED_OFTEN = 30, 55
POLISHED, NEAR = 4, 10.0  # of the highest hilltops, those so near to the highest in log-likelihood
SURE = 1e-12  # P is at most 1 less this
MOST = 1e-6


@dataclass(frozen=True)
class Compared:
    """By how much [B] the estimator's log-likelihoods lie above those of the grid."""

    case: str
    items: int
    differences: FloatArray

    def __str__(self) -> str:
        return f"{self.case} n={self.items}: {self.differences.min():.1e} … {self.differences.max():.1e}"


@dataclass(frozen=True)
class Counted:
    """One sweep [K] and its floor."""

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    floor: float

    def relative(self, log_f_star: FloatArray, b: FloatArray) -> FloatArray:
        """The curve over its peak [..., K]."""
        x = self.frequency / np.exp(log_f_star)[..., None]
        return np.asarray(np.exp(np.maximum(b[..., None] * (np.log(x) - x + 1), -600)))

    def value(self, height: FloatArray, relative: FloatArray) -> FloatArray:
        """Log-likelihoods [...]."""
        share = np.minimum(self.floor + (1 - self.floor) * height[..., None] * relative, 1 - SURE)
        wrong = self.total - self.correct
        return np.asarray((self.correct * np.log(share) + wrong * np.log1p(-share)).sum(axis=-1))

    def best(self, relative: FloatArray, halvings: int) -> FloatArray:
        """The largest log-likelihoods over the height [...]."""
        low, high = np.full(relative.shape[:-1], SMALLEST_HEIGHT), np.ones(relative.shape[:-1])
        for _ in range(halvings):
            middle = (low + high) / 2
            share = np.minimum(self.floor + (1 - self.floor) * middle[..., None] * relative, 1 - SURE)
            wrong = self.total - self.correct
            rising = (relative * (self.correct / share - wrong / (1 - share))).sum(axis=-1) > 0
            low, high = np.where(rising, middle, low), np.where(rising, high, middle)
        ends = [self.value(end, relative) for end in (low, high)]
        return np.asarray(np.maximum(*ends))


def run(plan: Plan, processes: int) -> Section:
    truths_of_a_case = 1 if plan.quick else None
    jobs = [(case, truth, plan.optimum) for case, truths in CASES.items() for truth in truths[:truths_of_a_case]]
    found = shared(NAME, compare, jobs, processes)
    return Section("The optimum", _text(found), _targets(found))


def compare(job: tuple[str, Truth, int]) -> Compared:
    case, truth, draws = job
    correct = counts(generator(OF_OPTIMUM, *truth.key), truth.rates, truth.items, draws)
    total = np.full(correct.shape, float(truth.items))
    ours = survey(Cells(truth.frequency, correct, total, truth.floor)).log_likelihood
    grids = [maximum(Counted(truth.frequency, row, total[0], truth.floor)) for row in correct]
    return Compared(case, truth.items, ours - np.array(grids))


def maximum(counted: Counted) -> float:
    """The largest log-likelihood within the estimator's bounds: a dense grid, its highest hilltops polished."""
    ends = np.log(counted.frequency[0]) - REACH, np.log(counted.frequency[-1]) + REACH
    places, steepness = np.linspace(*ends, PLACES), np.append(0.0, np.geomspace(SMALLEST_B, LARGEST_B, STEEPNESSES))
    grid = counted.best(counted.relative(*np.meshgrid(places, steepness, indexing="ij")), BISECTIONS)

    def negative(point: FloatArray) -> float:
        return -float(counted.best(counted.relative(point[0], point[1]), HALVED_OFTEN))

    best = -float(grid.max())
    for place, b in _hilltops(grid):
        polished = minimize(
            negative,
            (places[place], steepness[b]),
            method="Nelder-Mead",
            bounds=(ends, (0.0, LARGEST_B)),
            options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 1000},
        )
        best = min(best, float(polished.fun))
    return -best


def _hilltops(grid: FloatArray) -> list[tuple[int, int]]:
    """The highest points of the grid that none of their eight neighbours exceeds."""
    around = np.pad(grid, 1, constant_values=-np.inf)
    rows, columns = grid.shape
    shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    top = (grid >= grid.max() - NEAR) & np.all(
        [grid >= around[i : i + rows, j : j + columns] for i, j in shifts], axis=0
    )
    order = np.argsort(np.where(top, -grid, np.inf), axis=None)[: min(POLISHED, int(top.sum()))]
    return [(int(at) // columns, int(at) % columns) for at in order]


def _targets(found: Sequence[Compared]) -> tuple[Target, ...]:
    every = np.concatenate([one.differences for one in found])
    misses = [
        f"{one.case} n={one.items}: {difference:.2g}"
        for one in found
        for difference in one.differences
        if abs(difference) > MOST
    ]
    asked = f"differs by at most {MOST:g}"
    seen = f"{-min(0.0, every.min()):.1e} below, {max(0.0, every.max()):.1e} above it ({len(every)} data sets)"
    return (Target(f"{NAME}: log-likelihood beside a dense grid", asked, seen, tuple(misses)),)


def _text(found: Sequence[Compared]) -> str:
    words = (
        f"An own likelihood over {PLACES} F* × {STEEPNESSES + 1} b, the height by bisection; then Nelder–Mead from the "
        f"highest hilltops, {POLISHED} at most."
    )
    headings = ("case", "n", "data sets", "estimator below the grid by at most", "above it by at most")
    rows = [
        (one.case, str(one.items), str(len(one.differences)), *(f"{max(0.0, gap):.1e}" for gap in _gaps(one)))
        for one in found
    ]
    return words + "\n\n" + table(headings, rows)


def _gaps(one: Compared) -> tuple[float, float]:
    return -float(one.differences.min()), float(one.differences.max())
