"""The infusion law F*(C) = A/C^alpha + E, C = 6·N·D (arXiv 2509.19371), of models trained on the same D."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit.laws.caveats import at_bounds, method, of_constant, of_r2
from kisl_plugin.fit.laws.chance import share_by_chance
from kisl_plugin.fit.laws.comparison import fit_by_huber, fit_by_least_squares
from kisl_plugin.fit.laws.estimate import Estimate, estimate
from kisl_plugin.fit.laws.points import OPEN, FloatArray, Interval, log_errors, positive

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
