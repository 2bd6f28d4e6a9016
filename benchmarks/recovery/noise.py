"""Run-to-run noise, and the same triples asked in every run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from kisl_plugin.fit.curve_estimate import LOG_F_STAR, LOG_HEIGHT, Sweeps, f_star_interval, fit_sweeps, height_interval
from recovery.draws import generator, same_triples
from recovery.plan import Plan, shared
from recovery.seen import covers
from recovery.tables import Section, number, table
from recovery.targets import Target, shares
from recovery.truths import FloatArray, Truth

NAME = "noise"
TRUTHS = (
    Truth(300, 0.3, 0.7, 1000, 8),
    Truth(1000, 0.2, 0.9, 500, 8),
    Truth(200, 0.5, 0.5, 500, 6),
    Truth(300, 0.4, 0.6, 1000, 6, 0.25),
)
TAUS, SEEDS, DIFFICULTIES = (0.0, 0.1, 0.3), (1, 3, 5), (0.0, 0.6)
COVERAGE = (0.92, 0.98)
OF_NOISE = 8  # sets the seeds of these draws apart
AT_ONCE = 50


@dataclass(frozen=True)
class Noisy:
    truth: Truth
    tau: float
    seeds: int
    difficulty: float

    @property
    def key(self) -> tuple[int, ...]:
        return (OF_NOISE, *self.truth.key, round(1000 * self.tau), self.seeds, round(1000 * self.difficulty))

    def __str__(self) -> str:
        return f"{self.truth} tau={self.tau:g} seeds={self.seeds} difficulty={self.difficulty:g}"


@dataclass(frozen=True)
class Ends:
    """Intervals [B] of log F* and of the log height, and tau [B]."""

    f_star: tuple[FloatArray, FloatArray]
    height: tuple[FloatArray, FloatArray]
    tau: FloatArray


@dataclass(frozen=True)
class Way:
    """Draws whose interval covers F*, and the peak; the median width of that of log F*; the median tau."""

    f_star: int
    peak: int
    width: float
    tau: float


@dataclass(frozen=True)
class Found:
    noisy: Noisy
    draws: int
    paired: Way
    alone: Way

    def __str__(self) -> str:
        return f"{self.noisy}: covers {self.paired.f_star / self.draws:.3f}, {self.alone.f_star / self.draws:.3f}"


def run(plan: Plan, processes: int) -> Section:
    found = shared(NAME, partial(find, plan.noise), _jobs(plan), processes)
    return Section("Run-to-run noise and shared triples", _text(found), _targets(found))


def _jobs(plan: Plan) -> list[Noisy]:
    if plan.quick:
        return [Noisy(TRUTHS[2], 0.1, 3, 0.6), Noisy(TRUTHS[2], 0.1, 1, 0.0)]
    return [Noisy(*values) for values in product(TRUTHS, TAUS, SEEDS, DIFFICULTIES)]


def find(draws: int, noisy: Noisy) -> Found:
    alone, paired = [], []
    for start in range(0, draws, AT_ONCE):
        counted, asked_alike = _draw(noisy, start, min(AT_ONCE, draws - start))
        alone.append(_ends(counted))
        paired.append(_ends(asked_alike))
    return Found(noisy, draws, _summed(noisy.truth, paired), _summed(noisy.truth, alone))


def _draw(noisy: Noisy, start: int, draws: int) -> tuple[Sweeps, Sweeps]:
    truth, rng = noisy.truth, generator(*noisy.key, start)
    of_runs = (draws, noisy.seeds, noisy.tau, noisy.difficulty)
    return same_triples(rng, truth.frequency, truth.rates, truth.floor, truth.items, *of_runs)


def _ends(sweeps: Sweeps) -> Ends:
    fits = fit_sweeps(sweeps)
    sure = fits.uncertainty
    f_star, height = (
        f_star_interval(fits.land, sure.drop(LOG_F_STAR)),
        height_interval(fits.land, sure.drop(LOG_HEIGHT)),
    )
    return Ends(f_star, height, np.sqrt(fits.noise.tau2))


def _summed(truth: Truth, parts: Sequence[Ends]) -> Way:
    low, high = (np.concatenate([part.f_star[end] for part in parts]) for end in (0, 1))
    below, above = (np.concatenate([part.height[end] for part in parts]) for end in (0, 1))
    return Way(
        f_star=int(covers(low, high, float(np.log(truth.f_star))).sum()),
        peak=int(covers(below, above, truth.log_height).sum()),
        width=float(np.median(np.where(np.isnan(high - low), np.inf, high - low))),
        tau=float(np.median(np.concatenate([part.tau for part in parts]))),
    )


def _targets(found: Sequence[Found]) -> tuple[Target, ...]:
    what, hits = [str(one.noisy) for one in found], [one.paired.f_star for one in found]
    name = f"{NAME}: 95 % interval of F* covers, paired by triple"
    return (shares(name, COVERAGE, what, hits, [one.draws for one in found]),)


def _text(found: Sequence[Found]) -> str:
    words = (
        f"{found[0].draws} draws each. A triple's log-odds are the curve's plus its difficulty (normal, the SD told),\n"
        "plus the run's noise (normal, SD tau); the curve is what runs and triples give in the mean. `counts alone`\n"
        "takes items for independent. Widths are medians, of the interval of log F*."
    )
    both = ("F* covered", "peak covered", "width", "median tau")
    ways = [f"{heading}, {way}" for way in ("paired", "counts alone") for heading in both]
    return words + "\n\n" + table(("truth", "difficulty", "tau", "seeds", *ways), map(_row, found))


def _row(one: Found) -> list[str]:
    noisy, draws = one.noisy, one.draws
    values = [v for w in (one.paired, one.alone) for v in (w.f_star / draws, w.peak / draws, w.width, w.tau)]
    named = [str(noisy.truth), *(f"{value:g}" for value in (noisy.difficulty, noisy.tau, noisy.seeds))]
    return named + [number(value) for value in values]
