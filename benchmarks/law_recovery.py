"""Does the infusion law's interval hold the truth? Simulated collapse points, fitted as kisl-fit fits them.

    python benchmarks/law_recovery.py [--quick] [--draws 1000]

For each design (sizes of models at one D) and truth, F* of every model is drawn with a known error (its curve's) and,
where asked, a scatter about the law that no curve shows. Printed: how often the 95 % intervals of F*(7B), alpha and E
hold the truth (the mean over the truths and the worst of them), how far the ends of the one of F*(7B) are from the
estimate as factors and the ends of alpha's (medians), and how often E is told from 0 where it is above 0. Then how
often random falling sequences reach the paper's R², and the speed of refits.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.fit.law import share_by_chance
from kisl_plugin.fit.law_estimate import Estimate, estimate, refit_laws

FloatArray = NDArray[np.float64]
TOKENS, TARGET = 100e9, 7e9
FIVE = (137e6, 300e6, 562e6, 1.05e9, 3e9)
SMALL = (14e6, 31e6, 70e6)
ALPHAS, SHARES = (0.15, 0.3, 0.5, 1.0), (0.0, 0.2, 0.6)  # of E in F*(3B)
PAPERS_R2, SEED = 0.9685, 2509
ROW = "{:<31}{:>13}{:>13}{:>13}{:>14}{:>14}{:>8}"
HEADINGS = ("design", "F*(7B) in", "alpha in", "E in", "F*(7B) ×", "alpha", "E > 0")


@dataclass(frozen=True)
class Design:
    """Models of these sizes, each F* with this log error and this scatter; `told`: whether the error is known."""

    name: str
    sizes: tuple[float, ...]
    error: float
    scatter: float = 0.0
    told: bool = True

    @property
    def compute(self) -> FloatArray:
        return 6 * TOKENS * np.array(self.sizes)


DESIGNS = (
    Design("137M–3B, 10 %", FIVE, 0.1),
    Design("137M–3B, 20 %", FIVE, 0.2),
    Design("137M–1.05B, 10 %", FIVE[:4], 0.1),
    Design("14M–3B, 10 %", (*SMALL, *FIVE), 0.1),
    Design("14M, 200M, 3B × 3 seeds, 10 %", (14e6, 200e6, 3e9), 0.1 / 3**0.5),
    Design("137M–3B, 10 %, scatter 10 %", FIVE, 0.1, 0.1),
    Design("137M–3B, 10 %, scatter 20 %", FIVE, 0.1, 0.2),
    Design("14M–3B, 10 %, scatter 10 %", (*SMALL, *FIVE), 0.1, 0.1),
    Design("137M–3B, 10 %, errors not told", FIVE, 0.1, told=False),
    Design("14M–3B, 10 %, errors not told", (*SMALL, *FIVE), 0.1, told=False),
)


@dataclass(frozen=True)
class Truth:
    """F* is 100 at 3B, of which E is the share `rho`."""

    alpha: float
    rho: float

    def f_star(self, params: FloatArray) -> FloatArray:
        return 100 * ((1 - self.rho) * (params / FIVE[-1]) ** -self.alpha + self.rho)

    @property
    def constant(self) -> float:
        return 100 * self.rho


@dataclass(frozen=True)
class Seen:
    """What one draw showed: whether intervals hold the truth, factors to the ends of F*(7B), ends of alpha."""

    holds: tuple[bool, bool, bool]
    factors: tuple[float, float]
    alphas: tuple[float, float]
    e_told: bool


def draw(design: Design, truth: Truth, rng: np.random.Generator) -> Seen:
    """One set of collapse points; the new model at 7B has the scatter too."""
    sizes = np.array(design.sizes)
    law = truth.f_star(sizes)
    f_star = law * np.exp(rng.normal(0, np.hypot(design.error, design.scatter), len(sizes)))
    target = float(truth.f_star(np.array([TARGET]))[0] * np.exp(rng.normal(0, design.scatter)))
    errors = np.full(len(sizes), design.error) if design.told else None
    found, at = estimate(design.compute, f_star, errors, True), 6 * TOKENS * TARGET
    low, high = (float(end) for end in found.interval(at) if end is not None)
    best = float(found.predict(np.array([at]))[0])
    (alpha_low, alpha_high), (e_low, e_high) = _ends(found)
    return Seen(
        holds=(low <= target <= high, alpha_low <= truth.alpha <= alpha_high, e_low <= truth.constant <= e_high),
        factors=(low / best, high / best),
        alphas=(alpha_low, alpha_high),
        e_told=e_low > 0,
    )


def _ends(found: Estimate) -> tuple[tuple[float, float], tuple[float, float]]:
    """The intervals of alpha and E, an open end at its bound."""
    if found.region is None:
        raise ValueError("every design here has a measure of error")
    low, high = found.region.alpha_interval
    e_low, e_high = found.region.constant_interval
    return (low or 0.0, 3.0 if high is None else high), (e_low or 0.0, float("inf") if e_high is None else e_high)


def study(design: Design, truths: list[Truth], draws: int) -> str:
    """One row of the table."""
    rng = np.random.default_rng(SEED)
    seen = [[draw(design, truth, rng) for _ in range(draws)] for truth in truths]
    holds = np.array([[one.holds for one in of_truth] for of_truth in seen]).mean(axis=1)  # [truths, 3]
    cells = [f"{mean:.3f} {worst:.3f}" for mean, worst in zip(holds.mean(axis=0), holds.min(axis=0), strict=True)]
    every = [one for of_truth in seen for one in of_truth]
    factors = np.median([one.factors for one in every], axis=0)
    alphas = np.median([one.alphas for one, truth in _with(seen, truths) if truth.alpha == 0.3], axis=0)
    told = np.mean([one.e_told for one, truth in _with(seen, truths) if truth.rho > 0])
    return ROW.format(
        design.name,
        *cells,
        f"{factors[0]:.2f} … {factors[1]:.2f}",
        f"{alphas[0]:.2f} … {alphas[1]:.2f}",
        f"{told:.2f}",
    )


def _with(seen: list[list[Seen]], truths: list[Truth]) -> list[tuple[Seen, Truth]]:
    return [(one, truth) for of_truth, truth in zip(seen, truths, strict=True) for one in of_truth]


def chance() -> str:
    """How often random falling sequences over the paper's sizes reach its R²."""
    shares = {models: share_by_chance(np.log(FIVE[:models]), PAPERS_R2) for models in (5, 4)}
    told = ", ".join(f"{100 * share:.0f} % of {models} points" for models, share in shares.items())
    return f"Random falling sequences that reach R² = {PAPERS_R2}: {told}"


def speed(rows: int = 2000) -> str:
    """Seconds for refits of five models, the best of five runs."""
    design, rng = DESIGNS[0], np.random.default_rng(SEED)
    f_star = Truth(0.3, 0.2).f_star(np.array(FIVE)) * np.exp(rng.normal(0, 0.1, (rows, 5)))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        refit_laws(design.compute, f_star, np.full(5, 0.1), [6 * TOKENS * TARGET])
        seconds.append(time.perf_counter() - start)
    return f"{rows} refits of five models: {min(seconds):.3f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer draws and truths, about a minute")
    parser.add_argument("--draws", type=int, default=400, help="per design and truth (default: 400)")
    args = parser.parse_args()
    alphas, shares = ((0.3, 1.0), (0.0, 0.6)) if args.quick else (ALPHAS, SHARES)
    truths = [Truth(alpha, rho) for alpha in alphas for rho in shares]
    print(f"{len(truths)} truths (alpha {alphas}, E / F*(3B) {shares}), {30 if args.quick else args.draws} draws each")
    print("Coverage: mean over truths, worst truth; E > 0: told from 0 where it is; alpha: of truths with 0.3")
    print(ROW.format(*HEADINGS))
    for design in DESIGNS:
        print(study(design, truths, 30 if args.quick else args.draws), flush=True)
    print(chance())
    print(speed())


if __name__ == "__main__":
    main()
