"""The infusion law F*(C) = A/C^alpha + E, C = 6·N·D (arXiv 2509.19371), of models trained on the same D."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import huber, logsumexp

from kisl_plugin.errors import InputError
from kisl_plugin.fit.law_estimate import (
    LARGEST_ALPHA,
    OPEN,
    SMALLEST_ALPHA,
    Estimate,
    FloatArray,
    Interval,
    estimate,
    log_errors,
    positive,
)

# How much an R² is worth: the share of random falling sequences that some infusion law fits as well.
#
# A random sequence of M collapse points is M independent F*, log-uniform over one decade, sorted so that they fall
# with C. Its R² is the largest that any law A/C^alpha + E with A, E ≥ 0 and alpha in (0, 3] reaches, least squares of
# F*: for each alpha of a grid a line in C^-alpha. Over the five sizes 137M–3B 40 % reach the paper's 0.9685,
# over the four smallest of them 46 %.

SEQUENCES, SEED = 10_000, 2509
DECADE = np.log(10.0)
ALPHAS = np.geomspace(0.01, LARGEST_ALPHA, 120)


def share_by_chance(log_compute: FloatArray, r2: float) -> float:
    """The share of random falling sequences at log C [M] that reach `r2`; its standard error is at most 0.005."""
    depth = np.round(log_compute.max() - np.sort(log_compute), 6)
    return float(np.mean(_reached(tuple(depth.tolist())) >= r2))


@lru_cache(maxsize=32)
def _reached(depth: tuple[float, ...]) -> FloatArray:
    random = np.random.default_rng(SEED).uniform(-DECADE, 0.0, (SEQUENCES, len(depth)))
    return largest_r2(np.array(depth), np.exp(-np.sort(-random, axis=1)))


def largest_r2(depth: FloatArray, f_star: FloatArray) -> FloatArray:
    """The largest R² [B] of any law through F* [B, M] at depth [M] = log(largest C / C)."""
    spread = ((f_star - f_star.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    falling = np.exp((depth - depth.max()) * ALPHAS[:, None])  # [G, M], 1 at the smallest C
    away = falling - falling.mean(axis=1, keepdims=True)
    A = (f_star @ away.T) / (away**2).sum(axis=1)
    E = f_star.mean(axis=1)[:, None] - A * falling.mean(axis=1)
    with_E = A**2 * (away**2).sum(axis=1)
    through = (f_star @ falling.T) / (falling**2).sum(axis=1)
    without_E = through**2 * (falling**2).sum(axis=1) - f_star.shape[1] * f_star.mean(axis=1)[:, None] ** 2
    explained = np.where(A <= 0, 0.0, np.where(E >= 0, with_E, without_E)).max(axis=1)
    return np.asarray(explained / spread)


# The infusion law as others fit it, for comparison: unweighted, without intervals.

HUBER_DELTA = 1e-3  # Hoffmann et al. 2022, Besiroglu et al. 2024
STARTING_ALPHA, STARTING_SHARE = (0.1, 0.4, 1.2), (0.02, 0.4, 0.9)
NO_E = -50.0  # log of the least E / F* at the largest C
GRID, ZOOMS = 61, 6

Coefficients = tuple[float, float, float]


def fit_by_huber(compute: FloatArray, f_star: FloatArray) -> Coefficients:
    """A, alpha and E that minimise Huber(1e-3) of the residuals of log F*, by L-BFGS-B from nine starts."""
    depth, y = np.log(compute.max() / compute), np.log(f_star)
    last = float(y[compute.argmax()])

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        parts = np.stack([theta[0] + theta[1] * depth, np.full_like(depth, theta[2])])
        fitted = logsumexp(parts, axis=0)
        share = np.exp(parts - fitted)
        pull = -np.clip((y - fitted) / HUBER_DELTA, -1, 1)
        gradient = np.array([(pull * share[0]).sum(), (pull * share[0] * depth).sum(), (pull * share[1]).sum()])
        return float(huber(HUBER_DELTA, y - fitted).sum() / HUBER_DELTA), gradient

    bounds = [(None, None), (SMALLEST_ALPHA, LARGEST_ALPHA), (last + NO_E, None)]
    starts = [
        [last + np.log(1 - share), alpha, last + np.log(share)] for alpha in STARTING_ALPHA for share in STARTING_SHARE
    ]
    fits = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    log_A, alpha, log_E = min(fits, key=lambda fit: float(fit.fun)).x
    return float(np.exp(log_A + alpha * np.log(compute.max()))), float(alpha), float(np.exp(log_E))


def fit_by_least_squares(compute: FloatArray, f_star: FloatArray) -> Coefficients:
    """A, alpha and E that minimise the squared residuals of F*: for each alpha a line with A, E ≥ 0."""
    depth = np.log(compute.max() / compute)

    def line(alpha: float) -> tuple[FloatArray, float]:
        columns = np.stack([np.exp(alpha * (depth - depth.max())), np.ones_like(depth)], axis=1)
        coefficients, misfit = nnls(columns, f_star)
        return np.asarray(coefficients, dtype=np.float64), float(misfit)

    alphas = np.geomspace(SMALLEST_ALPHA, LARGEST_ALPHA, GRID)
    for _ in range(ZOOMS):
        at = int(np.argmin([line(float(alpha))[1] for alpha in alphas]))
        best = float(alphas[at])
        alphas = np.linspace(alphas[max(at - 1, 0)], alphas[min(at + 1, len(alphas) - 1)], GRID)
    (smallest, E), _ = line(best)
    return float(smallest * compute.min() ** best), best, float(E)


# What must be read with a law's numbers, in words.


def at_bounds(found: Estimate, free_E: bool) -> list[str]:
    """Bounds that the best law reached."""
    if found.rises:
        return ["F* does not fall with C in these data: they do not support the law"]
    caveats = []
    if free_E and found.shapes.slope[0] >= found.shapes.alpha[0]:
        caveats.append("E is at its bound 0")
    if found.shapes.alpha[0] >= LARGEST_ALPHA:
        caveats.append(f"alpha is at its bound {LARGEST_ALPHA:g}")
    return caveats


def of_constant(distinguishable: bool | None) -> list[str]:
    """Whether there is a frequency below which F* does not fall, however large the model."""
    return ["E is not distinguishable from 0"] if distinguishable is False else []


def of_r2(models: int, r2: float, by_chance: float) -> list[str]:
    """What R² is worth."""
    if models == 3:
        return [
            "three models for three parameters: R² = 1 by construction, so there is none and no interval of a parameter"
        ]
    if not np.isfinite(r2):
        return ["every F* is the same: there is no R²"]
    return [f"{100 * by_chance:.0f} % of random falling sequences of {models} points reach this R² of {r2:.4f}"]


def method(found: Estimate, models: int) -> str:
    """How the intervals were made."""
    noise = found.noise
    if found.region is None:
        return "none: three models without intervals of F* leave no measure of error"
    if models == 3:
        return "predictions: range of the laws that fit the curves' errors; scatter cannot be seen with three models"
    if noise.errors is None:
        return f"profile likelihood, errors from the scatter about the law alone, F(1, {noise.df:.0f})"
    if noise.scatter:
        return (
            f"profile likelihood, the curves' errors and a scatter of {100 * noise.scatter:.0f} %, F(1, {noise.df:.1f})"
        )
    return "profile likelihood, the curves' errors; no scatter beyond them is seen"


# The infusion law F*(C) = A/C^alpha + E, C = 6·N·D (arXiv 2509.19371), of models trained on the same D.

Loss = Literal["weighted-log", "huber-log", "least-squares"]
LOSSES = ("weighted-log", "huber-log", "least-squares")
COMPARISONS = {"huber-log": fit_by_huber, "least-squares": fit_by_least_squares}
FEWEST_MODELS = 3
FEWEST_WITH_R2 = 4


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What the law of the other models says of the one at C: `log_error` is log(predicted / measured)."""

    compute: float
    measured: float
    predicted: float
    interval: Interval
    log_error: float


@dataclass(frozen=True, kw_only=True)
class InfusionLaw:
    """F*(C) = A/C^alpha + E.

    `r2` is of F*, as in the paper, and `r2_by_chance` the share of random falling sequences of as many points that
    some such law fits as well; both NaN below four models. `scatter` is the standard deviation of log F* about the
    law beyond the curves' errors and `df` its degrees of freedom (infinite: none seen). Interval ends are None
    where open. `e_distinguishable` and `without_E`, the same with E = 0, are None where they say nothing.
    """

    A: float
    alpha: float
    E: float
    r2: float
    r2_by_chance: float
    scatter: float
    df: float
    models: int
    compute_range: tuple[float, float]
    loss: Loss
    alpha_interval: Interval
    E_interval: Interval
    interval_method: str
    e_distinguishable: bool | None
    without_E: "InfusionLaw | None"  # noqa: N815
    leave_one_out: tuple[LeftOut, ...]
    caveats: tuple[str, ...]
    estimate: Estimate | None = field(repr=False, compare=False)

    def predict(self, compute: float) -> float:
        """F* at C = 6·N·D floating-point operations (> 0)."""
        return float(self.A / positive("compute", [compute])[0] ** self.alpha + self.E)

    def interval(self, compute: float) -> Interval:
        """The 95 % interval of the F* of a model at C.

        It holds the law's profile likelihood and the scatter of that model about it. From three models it is the
        range of the laws that fit their errors; (None, None) where nothing is known of the errors.
        """
        at = float(positive("compute", [compute])[0])
        return OPEN if self.estimate is None else self.estimate.interval(at)

    @property
    def leave_one_out_error(self) -> float:
        """Root mean square of the left-out models' log errors; NaN where none could be left out."""
        errors = [left.log_error for left in self.leave_one_out]
        return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")


def fit_infusion_law(
    compute: Sequence[float] | FloatArray,
    f_star: Sequence[float] | FloatArray,
    intervals: Sequence[Interval] | None = None,
    *,
    loss: Loss = "weighted-log",
) -> InfusionLaw:
    """Fit F* [M] at C [M], from at least three distinct C.

    "weighted-log" is least squares of log F* with alpha in (0, 3] and the share of E in F* at the largest C in
    [0, 1], weighted by the curves' errors, from `intervals` [M] (95 %, of F*; without them, even), and the scatter
    about the law. "huber-log" (Huber 1e-3 on log F*, L-BFGS-B) and "least-squares" (of F*) are the practice of the
    paper and of Chinchilla, for comparison: unweighted, without intervals.

    Raises:
        InputError: the lengths differ, a value is not above 0, fewer than three distinct C, or an unknown loss.
    """
    C, F = positive("compute", compute), positive("f_star", f_star)
    if C.shape != F.shape:
        raise InputError(f"compute and f_star have shapes {C.shape} and {F.shape}; expected one row each")
    if len(np.unique(C)) < FEWEST_MODELS:
        raise InputError(f"{len(np.unique(C))} distinct C; the law has three parameters: give {FEWEST_MODELS} or more")
    if loss not in LOSSES:
        raise InputError(f"loss is {loss!r}; expected one of {', '.join(LOSSES)}")
    if loss != "weighted-log":
        return _for_comparison(C, F, loss)
    errors = log_errors(F, intervals)
    return _by_likelihood(C, F, errors, _by_likelihood(C, F, errors))


def _by_likelihood(
    C: FloatArray, F: FloatArray, errors: FloatArray | None, without_E: InfusionLaw | None = None
) -> InfusionLaw:
    """The law beside the one `without_E`; where there is none yet, the law with E = 0."""
    free_E = without_E is not None
    found = estimate(C, F, errors, free_E)
    A, alpha, E = found.coefficients
    r2, by_chance = _r2(C, F, found.predict(C))
    region = found.region if len(C) >= FEWEST_WITH_R2 else None
    distinguishable = not region.holds_zero if region and free_E else None
    return InfusionLaw(
        A=A,
        alpha=alpha,
        E=E,
        r2=r2,
        r2_by_chance=by_chance,
        scatter=found.noise.scatter if found.noise.known else float("nan"),
        df=found.noise.df,
        models=len(C),
        compute_range=(float(C.min()), float(C.max())),
        loss="weighted-log",
        alpha_interval=region.alpha_interval if region else OPEN,
        E_interval=region.constant_interval if region and free_E else OPEN,
        interval_method=method(found, len(C)),
        e_distinguishable=distinguishable,
        without_E=without_E,
        leave_one_out=_leave_one_out(C, F, errors, "weighted-log", free_E),
        caveats=(*at_bounds(found, free_E), *of_constant(distinguishable), *of_r2(len(C), r2, by_chance)),
        estimate=found,
    )


def _for_comparison(C: FloatArray, F: FloatArray, loss: Loss) -> InfusionLaw:
    A, alpha, E = COMPARISONS[loss](C, F)
    r2, by_chance = _r2(C, F, A / C**alpha + E)
    return InfusionLaw(
        A=A,
        alpha=alpha,
        E=E,
        r2=r2,
        r2_by_chance=by_chance,
        scatter=float("nan"),
        df=float("inf"),
        models=len(C),
        compute_range=(float(C.min()), float(C.max())),
        loss=loss,
        alpha_interval=OPEN,
        E_interval=OPEN,
        interval_method=f"none: {loss} is for comparison",
        e_distinguishable=None,
        without_E=None,
        leave_one_out=_leave_one_out(C, F, None, loss),
        caveats=tuple(of_r2(len(C), r2, by_chance)),
        estimate=None,
    )


def _r2(C: FloatArray, measured: FloatArray, fitted: FloatArray) -> tuple[float, float]:
    """R² of F* and the share of random falling sequences that reach it; NaN where they say nothing."""
    spread = float(((measured - measured.mean()) ** 2).sum())
    if len(C) < FEWEST_WITH_R2 or spread <= 0:
        return float("nan"), float("nan")
    r2 = 1 - float(((measured - fitted) ** 2).sum()) / spread
    return r2, share_by_chance(np.log(C), r2)


def _leave_one_out(
    C: FloatArray, F: FloatArray, errors: FloatArray | None, loss: Loss, free_E: bool = True
) -> tuple[LeftOut, ...]:
    """Each model predicted by the law of the others; those that leave fewer than three distinct C are not."""
    found = []
    for at in range(len(C)):
        rest = np.arange(len(C)) != at
        if len(np.unique(C[rest])) >= FEWEST_MODELS:
            predicted, interval = _predict(
                C[rest], F[rest], None if errors is None else errors[rest], loss, free_E, C[at]
            )
            found.append(
                LeftOut(
                    compute=float(C[at]),
                    measured=float(F[at]),
                    predicted=predicted,
                    interval=interval,
                    log_error=float(np.log(predicted / F[at])),
                )
            )
    return tuple(found)


def _predict(
    C: FloatArray, F: FloatArray, errors: FloatArray | None, loss: Loss, free_E: bool, at: float
) -> tuple[float, Interval]:
    if loss != "weighted-log":
        A, alpha, E = COMPARISONS[loss](C, F)
        return float(A / at**alpha + E), OPEN
    found = estimate(C, F, errors, free_E)
    return float(found.predict(np.array([at]))[0]), found.interval(at)
