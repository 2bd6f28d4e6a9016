"""How much a study draws, and how its jobs are shared among processes."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Job, Result = TypeVar("Job"), TypeVar("Result")
BLOCK = 250  # draws fitted at once; also what a seed gives


@dataclass(frozen=True)
class Plan:
    """Draws of a truth: `fewest` where few are ok, `usual`, and `most` where nearly all are; those of the others."""

    fewest: int
    usual: int
    most: int
    compared: int
    shapes: int
    noisy_shapes: int
    noise: int
    optimum: int
    quick: bool = False


FULL = Plan(fewest=250, usual=500, most=4000, compared=100, shapes=500, noisy_shapes=150, noise=250, optimum=10)
QUICK = Plan(fewest=120, usual=120, most=120, compared=60, shapes=120, noisy_shapes=0, noise=80, optimum=1, quick=True)


def shared(name: str, work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> list[Result]:
    """The results in the order of the jobs, with lines of progress on stderr.

    The jobs are done in a mixed order: of progress one may then judge the whole, and the dear ones are not last.
    """
    began = time.perf_counter()
    order = np.random.default_rng(0).permutation(len(jobs)).tolist()
    mixed = [jobs[job] for job in order]
    with ProcessPoolExecutor(processes) if processes > 1 else nullcontext() as pool:
        results = map(work, mixed) if pool is None else pool.map(work, mixed)
        done = [_told(name, number, len(jobs), began, result) for number, result in enumerate(results, 1)]
    return [done[place] for place in np.argsort(order)]


def _told(name: str, done: int, jobs: int, began: float, result: Result) -> Result:
    print(f"{name} {done} of {jobs}, {time.perf_counter() - began:.0f} s: {result}", file=sys.stderr, flush=True)
    return result


def scaled(plan: Plan, scale: float) -> Plan:
    """The same plan with another number of draws, in whole blocks where truths are drawn in stages."""
    if scale == 1:
        return plan
    counts = {name: value for name, value in vars(plan).items() if name != "quick"}
    return Plan(**{name: max(1, round(value * scale)) for name, value in counts.items()}, quick=plan.quick)
