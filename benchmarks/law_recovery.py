"""Do the intervals of the laws hold the truth? Simulated collapse points, fitted as kisl-fit fits them.

    python benchmarks/law_recovery.py [--draws 40] [--quick]

One row per design and law. Infusion law: models of one D; F* of every model is drawn with the error of its curve and,
where asked, a scatter about the law that no curve shows. Law of N and D: models of several D with 10 % errors. Columns:
how often the 95 % interval of F*(7B) holds it (mean over the truths, worst truth), the same of the exponent (alpha, or
gamma at the largest model), the ends of the interval of F*(7B) over the estimate (medians), and the root mean square
error of log F*(7B) by kisl's estimate and by the paper's: Huber(1e-3) of log F* for the infusion law; for the law of N
and D, F*(C) fitted to all points as if D did not matter. A last line: how often random decreasing sequences reach the
paper's R².
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import huber

from kisl_plugin.fit import fit_infusion_law
from kisl_plugin.fit.collapse_points import CollapsePoint
from kisl_plugin.fit.joint import fit_joint_law
from kisl_plugin.fit.law import share_by_chance

FloatArray = NDArray[np.float64]
FIVE, SMALL = (137e6, 300e6, 562e6, 1.05e9, 3e9), (14e6, 31e6, 70e6)
TOKENS = 100e9
PAPERS_R2, SEED = 0.9685, 2509
ROW = "{:<32}{:<25}{:>13}{:>13}{:>15}{:>7}{:>7}"
HEADINGS = ("design", "law", "F*(7B) in", "exponent in", "F*(7B) ×", "error", "paper")


@dataclass(frozen=True)
class Design:
    """Models (N, D), each F* with this log error and this scatter; `known`: whether the curves tell the error."""

    name: str
    models: tuple[tuple[float, float], ...]
    error: float = 0.1
    scatter: float = 0.0
    known: bool = True
    target: tuple[float, float] = (7e9, TOKENS)


def at_one_budget(sizes: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple((params, TOKENS) for params in sizes)


def grid(*budgets: float) -> tuple[tuple[float, float], ...]:
    return tuple((params, tokens) for params in FIVE for tokens in budgets)


INFUSION = (
    Design("137M–3B, 10 %", at_one_budget(FIVE)),
    Design("137M–3B, 20 %", at_one_budget(FIVE), 0.2),
    Design("137M–1.05B, 10 %", at_one_budget(FIVE[:4])),
    Design("14M–3B, 10 %", at_one_budget((*SMALL, *FIVE))),
    Design("14M, 200M, 3B × 3 seeds, 10 %", at_one_budget((14e6, 200e6, 3e9)), 0.1 / 3**0.5),
    Design("137M–3B, 10 %, scatter 10 %", at_one_budget(FIVE), 0.1, 0.1),
    Design("137M–3B, 10 %, scatter 20 %", at_one_budget(FIVE), 0.1, 0.2),
    Design("14M–3B, 10 %, scatter 10 %", at_one_budget((*SMALL, *FIVE)), 0.1, 0.1),
    Design("137M–3B, 10 %, errors unknown", at_one_budget(FIVE), known=False),
)
JOINT = (
    Design("7: five N, 58–100B at 300M", (*at_one_budget(FIVE), (300e6, 58e9), (300e6, 75e9)), target=(7e9, 200e9)),
    Design("15: five N × 58–100B", grid(58e9, 75e9, 100e9), target=(7e9, 200e9)),
    Design("15: five N × 25–100B", grid(25e9, 50e9, 100e9), target=(7e9, 200e9)),
)


@dataclass(frozen=True)
class Truth:
    """F*(N, D) = (100 - E)·n^-alpha·d^gamma + E with n, d relative to 3B, 100B; the whole scales with d if `scaled`."""

    law: str
    alpha: float
    E: float
    gamma: float = 0.0
    scaled: bool = False

    def f_star(self, params: float, tokens: float) -> float:
        n, d = params / 3e9, tokens / TOKENS
        return float(((100 - self.E) * n**-self.alpha + self.E / (1 if self.scaled else d**self.gamma)) * d**self.gamma)

    @property
    def gamma_at_largest(self) -> float:
        """d log F* / d log D at 3B, 100B."""
        return self.gamma * (1 if self.scaled else 1 - self.E / 100)


class Outcome(NamedTuple):
    """What one draw gave: whether intervals hold the truth, the ends over the estimate, and errors of log F*."""

    holds: bool
    exponent_holds: bool
    low: float
    high: float
    error: float
    papers_error: float


def by_huber(compute: FloatArray, f_star: FloatArray, at: float) -> float:
    """F* at C = `at` by the paper's (Chinchilla's) way: Huber(1e-3) of log F*, L-BFGS-B from nine starts."""
    depth, y = np.log(compute.max() / compute), np.log(f_star)

    def predicted(theta: FloatArray, depth: FloatArray | float) -> FloatArray:
        return np.asarray(np.logaddexp(theta[0] + theta[1] * depth, theta[2]))

    def loss(theta: FloatArray) -> float:
        return float(huber(1e-3, y - predicted(theta, depth)).sum() / 1e-3)

    last = float(y[compute.argmax()])
    starts = [(last + np.log(1 - s), a, last + np.log(s)) for a in (0.1, 0.4, 1.2) for s in (0.02, 0.4, 0.9)]
    bounds = [(None, None), (1e-3, 3.0), (last - 50, None)]
    fits = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    best = min(fits, key=lambda fit: float(fit.fun)).x
    return float(np.exp(predicted(best, np.log(compute.max() / at))))


def draw(design: Design, truth: Truth, rng: np.random.Generator) -> Outcome:
    """One set of collapse points; the new model at the target has the scatter too."""
    noise = rng.normal(0, np.hypot(design.error, design.scatter), len(design.models))
    f_star = np.array([truth.f_star(*model) for model in design.models]) * np.exp(noise)
    reach = float(np.exp(1.96 * design.error))
    ends = [(float(value) / reach, float(value) * reach) if design.known else (None, None) for value in f_star]
    compute, at = np.array([6 * n * d for n, d in design.models]), 6 * design.target[0] * design.target[1]
    exact = truth.f_star(*design.target)
    expected = exact * float(np.exp(rng.normal(0, design.scatter)))
    if truth.law == "infusion law":
        law = fit_infusion_law(compute, f_star, ends)
        best, interval = law.predict(at), law.interval(at)
        low, high = law.alpha_interval
        holds = (low or 0.0) <= truth.alpha <= (3.0 if high is None else high)
        paper = by_huber(compute, f_star, at)
    else:
        points = [
            CollapsePoint(params=int(n), tokens=int(d), f_star=float(value), interval=interval)
            for (n, d), value, interval in zip(design.models, f_star, ends, strict=True)
        ]
        joint = fit_joint_law(points)
        best, interval, _ = joint.predict(*design.target)
        holds = joint.gamma_interval[0] <= truth.gamma_at_largest <= joint.gamma_interval[1]
        paper = fit_infusion_law(compute, f_star, ends).predict(at)
    low, high = interval[0] or 0.0, interval[1] or float("inf")
    errors = (float(np.log(value / exact)) for value in (best, paper))
    return Outcome(low <= expected <= high, holds, low / best, high / best, *errors)


def row(design: Design, truths: Sequence[Truth], draws: int) -> str:
    """One row of the table."""
    rng = np.random.default_rng(SEED)
    outcomes = np.array([[draw(design, truth, rng) for _ in range(draws)] for truth in truths], dtype=np.float64)
    holds = outcomes[:, :, :2].mean(axis=1)  # [truths, 2]
    coverage = [f"{mean:.3f}, {worst:.2f}" for mean, worst in zip(holds.mean(axis=0), holds.min(axis=0), strict=True)]
    low, high = np.median(outcomes[:, :, 2:4], axis=(0, 1))
    errors = np.sqrt((outcomes[:, :, 4:] ** 2).mean(axis=(0, 1)))
    return ROW.format(
        design.name, truths[0].law, *coverage, f"{low:.2f} … {high:.2f}", *(f"{error:.2f}" for error in errors)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40, help="per design and truth (default: 40)")
    parser.add_argument("--quick", action="store_true", help="three draws and fewer truths, about a minute")
    arguments = parser.parse_args()
    alphas, shares = ((0.3, 1.0), (0.0, 60.0)) if arguments.quick else ((0.15, 0.3, 0.5, 1.0), (0.0, 20.0, 60.0))
    draws = 3 if arguments.quick else arguments.draws
    infusion = [Truth("infusion law", alpha, E) for alpha in alphas for E in shares]
    joint = [
        Truth("N^-alpha·D^gamma", 0.5, 0.0, 1.3),
        Truth("D^gamma·(A/N^alpha + E)", 0.8, 30.0, 1.3, scaled=True),
        Truth("A·D^gamma/N^alpha + E", 0.5, 40.0, 1.3),
        Truth("(D/N)^gamma", 0.6, 0.0, 0.6),
    ]
    print(ROW.format(*HEADINGS))
    rows: list[Callable[[], str]] = [lambda design=design: row(design, infusion, draws) for design in INFUSION]
    rows += [lambda design=design, truth=truth: row(design, [truth], draws) for design in JOINT for truth in joint]
    for one in rows:
        print(one(), flush=True)
    reached = {models: share_by_chance(np.log(FIVE[:models]), PAPERS_R2) for models in (5, 4)}
    words = ", ".join(f"{share:.0%} of {models} points" for models, share in reached.items())
    print(f"Random decreasing sequences that reach R² = {PAPERS_R2}: {words}")


if __name__ == "__main__":
    main()
