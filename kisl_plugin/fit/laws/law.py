"""The infusion law F*(C) = A/C^alpha + E, C = 6·N·D (arXiv 2509.19371), of models trained on the same D."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from kisl_plugin.errors import InputError

FloatArray = NDArray[np.float64]
Interval = tuple[float | None, float | None]

FEWEST_MODELS = 3
LARGEST_ALPHA = 3.0
SMALLEST_ALPHA = 1e-3
BOUNDS = (np.array([SMALLEST_ALPHA, 0.0]), np.array([LARGEST_ALPHA, 1.0]))
STARTS = [(alpha, rho) for alpha in (0.03, 0.1, 0.3, 1.0, 2.5) for rho in (0.01, 0.5, 0.95)]
PAPERS_R2 = 0.9685
# How often a random falling sequence of so many points reaches the paper's R² (simulated)
REACHED_BY_CHANCE = {4: 47, 5: 39}
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class InfusionLaw:
    """F*(C) = A/C^alpha + E. `r2` is of F*, as in the paper (NaN if every F* is the same).

    `scatter` is the weighted root mean square of the residuals of log F*; `caveats` say what to read with the numbers.
    """

    A: float
    alpha: float
    E: float
    r2: float
    scatter: float
    models: int
    compute_range: tuple[float, float]
    caveats: tuple[str, ...]

    def predict(self, compute: float) -> float:
        """F* at C = 6·N·D floating-point operations (> 0)."""
        return float(self.A / compute**self.alpha + self.E)


def fit_infusion_law(
    compute: Sequence[float] | FloatArray,
    f_star: Sequence[float] | FloatArray,
    intervals: Sequence[Interval] | None = None,
) -> InfusionLaw:
    """Weighted least squares of log F* [M] on C [M], from at least three distinct C.

    Parameters are log F* at the largest C, alpha in (0, 3] and rho = E / F* there in [0, 1]. `intervals` [M] are
    the 95 % intervals of F*, from which the weights come; without one, or where one is open, weights are even.

    Raises:
        InputError: the lengths differ, a value is not above 0, or fewer than three distinct C.
    """
    C, F = _checked(compute, f_star)
    weight = 1 / _log_errors(len(C), intervals)
    largest = C.max()

    def residuals(shape: FloatArray) -> FloatArray:
        return np.asarray(
            weight * (np.log(F) - _level(shape, C / largest, F, weight) - np.log(_bend(shape, C / largest)))
        )

    fits = [least_squares(residuals, start, bounds=BOUNDS, xtol=1e-12, ftol=1e-12) for start in STARTS]
    best = min(fits, key=lambda fit: float(fit.cost))
    alpha, rho = (float(value) for value in best.x)
    there = float(np.exp(_level(best.x, C / largest, F, weight)))
    A, E = there * (1 - rho) * float(largest) ** alpha, there * rho
    return InfusionLaw(
        A=A,
        alpha=alpha,
        E=E,
        r2=_r2(F, A / C**alpha + E),
        scatter=float(np.sqrt((best.fun**2).sum() / (weight**2).sum())),
        models=len(C),
        compute_range=(float(C.min()), float(largest)),
        caveats=(*_at_bounds(alpha, rho), *_worth_of_r2(len(C))),
    )


def _checked(
    compute: Sequence[float] | FloatArray, f_star: Sequence[float] | FloatArray
) -> tuple[FloatArray, FloatArray]:
    C, F = np.asarray(compute, dtype=np.float64), np.asarray(f_star, dtype=np.float64)
    if C.ndim != 1 or C.shape != F.shape:
        raise InputError(f"compute and f_star have shapes {C.shape} and {F.shape}; expected one row each")
    for name, values in (("compute", C), ("f_star", F)):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(f"{name}[{at}] is {values[at]:g}; expected more than 0")
    if len(np.unique(C)) < FEWEST_MODELS:
        raise InputError(f"{len(np.unique(C))} distinct C; the law has three parameters: give {FEWEST_MODELS} or more")
    return C, F


def _log_errors(models: int, intervals: Sequence[Interval] | None) -> FloatArray:
    """Standard errors [M] of log F*; where an interval is open, the median of the others."""
    if intervals is None:
        return np.ones(models)
    if len(intervals) != models:
        raise InputError(f"{len(intervals)} intervals for {models} models; expected one each")
    errors = np.array(
        [np.log(high / low) / (2 * NORMAL_95) if low and high and high > low else np.nan for low, high in intervals]
    )
    known = np.isfinite(errors)
    return np.where(known, errors, np.median(errors[known]) if known.any() else 1.0)


def _bend(shape: FloatArray, relative: FloatArray) -> FloatArray:
    """F*(C) / F*(largest C) at C / largest C."""
    alpha, rho = shape
    return np.asarray((1 - rho) * relative**-alpha + rho)


def _level(shape: FloatArray, relative: FloatArray, F: FloatArray, weight: FloatArray) -> float:
    """The log F* at the largest C that fits best, in closed form."""
    return float(np.average(np.log(F) - np.log(_bend(shape, relative)), weights=weight**2))


def _r2(measured: FloatArray, fitted: FloatArray) -> float:
    spread = float(((measured - measured.mean()) ** 2).sum())
    return 1 - float(((measured - fitted) ** 2).sum()) / spread if spread > 0 else float("nan")


def _at_bounds(alpha: float, rho: float) -> list[str]:
    caveats = []
    if rho > 1 - 1e-4 or alpha < 2 * SMALLEST_ALPHA:
        caveats.append("F* does not fall with C in these data: they do not support the law")
    elif rho < 1e-4:
        caveats.append("E is at its bound 0")
    if alpha > LARGEST_ALPHA - 1e-4:
        caveats.append(f"alpha is at its bound {LARGEST_ALPHA:g}")
    return caveats


def _worth_of_r2(models: int) -> list[str]:
    if models == FEWEST_MODELS:
        return ["three models for three parameters: R² = 1 by construction, it is no evidence"]
    share = REACHED_BY_CHANCE.get(models)
    of = f"{models} points" if share else "five points"
    return [
        f"{share or REACHED_BY_CHANCE[5]} % of random falling sequences of {of} reach R² = {PAPERS_R2}: weak evidence"
    ]
