"""Does the law of N and D hold the truth? Simulated collapse points over sizes and budgets, 10 % error each.

    python benchmarks/joint_law_recovery.py [--quick] [--draws 200]

For each design and true form: how often the 95 % intervals of F*(7B, 200B tokens) and of gamma at the largest model
hold the truth, the half-width of gamma's / 1.96, how often the true form has the least AIC, and, for comparison, the
root mean square log error of F*(7B, 200B) by the joint law and by F*(C) fitted to all points as if D did not matter.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.joint import FORMS, fit_joint_law
from kisl_plugin.fit.law_estimate import CollapsePoint, refit_laws

SIZES = (137e6, 300e6, 562e6, 1.05e9, 3e9)
TARGET = (7e9, 200e9)
ERROR, SEED = 0.1, 2509
ROW = "{:<28}{:<22}{:>10}{:>10}{:>10}{:>8}{:>8}{:>8}"
HEADINGS = ("design", "truth", "F*(7B) in", "gamma in", "gamma ±", "chosen", "joint", "F*(C)")
Cell = tuple[float, float]
DESIGNS: dict[str, list[Cell]] = {
    "7: five N, 58–100B at 300M": [(n, 100e9) for n in SIZES] + [(300e6, 58e9), (300e6, 75e9)],
    "15: five N × 58–100B": [(n, d) for n in SIZES for d in (58e9, 75e9, 100e9)],
    "15: five N × 25–100B": [(n, d) for n in SIZES for d in (25e9, 50e9, 100e9)],
}


@dataclass(frozen=True)
class Truth:
    """A form of `FORMS` by name, its F*(N, D) and d log F* / d log D."""

    name: str
    f_star: Callable[[float, float], float]
    gamma: Callable[[float, float], float]


def _offset(n: float, d: float) -> float:
    return 60 * (n / 3e9) ** -0.5 * (d / 100e9) ** 1.3


TRUTHS = (
    Truth("power law", lambda n, d: 100 * (n / 3e9) ** -0.5 * (d / 100e9) ** 1.3, lambda n, d: 1.3),
    Truth("scaled law", lambda n, d: (70 * (n / 3e9) ** -0.8 + 30) * (d / 100e9) ** 1.3, lambda n, d: 1.3),
    Truth("offset law", lambda n, d: _offset(n, d) + 40, lambda n, d: 1.3 * _offset(n, d) / (_offset(n, d) + 40)),
    Truth("tokens per parameter", lambda n, d: 100 * (d / n * 0.03) ** 0.6, lambda n, d: 0.6),
)


def study(design: str, truth: Truth, draws: int) -> str:
    """One row of the table."""
    rng, seen = np.random.default_rng(SEED), []
    cells = DESIGNS[design]
    exact = np.array([truth.f_star(n, d) for n, d in cells])
    target, compute = truth.f_star(*TARGET), [6 * n * d for n, d in cells]
    for _ in range(draws):
        f_star = exact * np.exp(rng.normal(0, ERROR, len(cells)))
        law = fit_joint_law([_point(cell, value) for cell, value in zip(cells, f_star.tolist(), strict=True)])
        found, (low, high) = law.predict(*TARGET), law.gamma_interval
        alone = refit_laws(compute, f_star, np.full(len(cells), ERROR), [6 * TARGET[0] * TARGET[1]])
        seen.append(
            (
                found.interval[0] <= target <= found.interval[1],
                low <= truth.gamma(*law.gamma_at) <= high,
                (high - low) / 2 / 1.96,
                law.best.name == truth.name,
                np.log(found.f_star / target) ** 2,
                np.log(alone.predictions[0, 0] / target) ** 2,
            )
        )
    covered, gamma, width, chosen, joint, by_compute = np.mean(np.array(seen, dtype=float), axis=0)
    numbers = (f"{covered:.2f}", f"{gamma:.2f}", f"{width:.2f}", f"{chosen:.2f}")
    return ROW.format(design, truth.name, *numbers, f"{joint**0.5:.2f}", f"{by_compute**0.5:.2f}")


def _point(cell: Cell, f_star: float) -> CollapsePoint:
    factor = float(np.exp(1.96 * ERROR))
    return CollapsePoint(
        params=int(cell[0]), tokens=int(cell[1]), f_star=f_star, interval=(f_star / factor, f_star * factor)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="eight draws of each, about a minute")
    parser.add_argument("--draws", type=int, default=200, help="per design and truth (default: 200)")
    args = parser.parse_args()
    print(f"Candidates: {', '.join(form.formula for form in FORMS)}; joint, F*(C): log error of F*(7B, 200B)")
    print(ROW.format(*HEADINGS))
    for design in DESIGNS:
        for truth in TRUTHS:
            print(study(design, truth, 8 if args.quick else args.draws), flush=True)


if __name__ == "__main__":
    main()
