"""F* as a law of N and D together: candidate forms, weighed by Akaike's criterion.

F* falls with N and rises with D, so F*(C) alone cannot hold where D varies. AIC = deviance + 2·parameters with
known errors: those of the curves and one scatter for all forms, the least that any of them needs. Predictions are
averaged over the forms with weights exp(-AIC/2), their variance holding the spread between forms (Burnham and
Anderson 2002); standard errors are linearised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit.laws.form_fit import FormFit, fit_form, full_rank, left_out_errors, noise_about
from kisl_plugin.fit.laws.forms import FORMS, NESTED, OFFSET, POWER, Form
from kisl_plugin.fit.laws.points import CollapsePoint, FloatArray, Interval, log_errors, positive
from kisl_plugin.fit.laws.scatter import Noise

FEWEST_POINTS = 4
FEWEST_FOR_ALL = 9
FORMS_WITHOUT_E = (
    f"below {FEWEST_FOR_ALL} points only the forms without E are tried: where F* levels off at an E, predictions for "
    "larger N are too low and their intervals too narrow"
)
LEAST_WEIGHT = 0.01  # of a form that counts for the spread of predictions


class JointPrediction(NamedTuple):
    """F* with its 95 % interval (a model's scatter in it), and the least and largest F* of the forms that count."""

    f_star: float
    interval: tuple[float, float]
    spread: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class JointForm:
    """One form as fitted. `intervals` (95 %) are of alpha and gamma; None where the parameter is at a bound."""

    name: str
    formula: str
    parameters: dict[str, float]
    intervals: dict[str, Interval]
    deviance: float
    aic: float
    weight: float
    leave_one_out_error: float
    fit: FormFit = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class JointLaw:
    """F*(N, D), averaged over `forms` (best first). `gamma` is d log F* / d log D at `gamma_at` (N, D)."""

    forms: tuple[JointForm, ...]
    gamma: float
    gamma_interval: tuple[float, float]
    gamma_at: tuple[int, int]
    scatter: float
    df: float
    points: int
    reference: tuple[int, int]
    caveats: tuple[str, ...]

    @property
    def best(self) -> JointForm:
        """The form with the least AIC."""
        return self.forms[0]

    def predict(self, params: float, tokens: float) -> JointPrediction:
        """F* of a model with N = `params` trained on D = `tokens`."""
        n, d = self._relative(params, tokens)
        logs = [float(form.fit.log_f_star(n, d)) for form in self.forms]
        mean, error = self._average(logs, [form.fit.log_f_star_error(n, d) for form in self.forms])
        reach = self._noise.quantile * np.hypot(error, self.scatter)
        shown = [log for log, form in zip(logs, self.forms, strict=True) if form.weight >= LEAST_WEIGHT]
        with np.errstate(over="ignore"):  # points that hardly part N from D leave an end at infinity
            ends = np.exp([mean, mean - reach, mean + reach, min(shown), max(shown)]).tolist()
        return JointPrediction(ends[0], (ends[1], ends[2]), (ends[3], ends[4]))

    def gamma_of(self, params: float, tokens: float) -> tuple[float, tuple[float, float]]:
        """The exponent d log F* / d log D at N, D with its 95 % interval, averaged over the forms."""
        n, d = self._relative(params, tokens)
        gammas = [form.fit.gamma(n, d) for form in self.forms]
        mean, error = self._average(gammas, [form.fit.gamma_error(n, d) for form in self.forms])
        reach = self._noise.quantile * error
        return mean, (mean - reach, mean + reach)

    @property
    def _noise(self) -> Noise:
        return self.best.fit.noise

    def _relative(self, params: float, tokens: float) -> FloatArray:
        asked = np.array([positive("params", [params])[0], positive("tokens", [tokens])[0]])
        return np.asarray(np.log(asked / np.array(self.reference, dtype=np.float64)))

    def _average(self, values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
        weight, each = np.array([form.weight for form in self.forms]), np.array(values)
        mean = float(weight @ each)
        return mean, float(np.sqrt(weight @ (np.square(errors) + (each - mean) ** 2)))


def fit_joint_law(points: Sequence[CollapsePoint]) -> JointLaw:
    """Fit F*(N, D) to collapse points, all four forms from nine points on, below that the two log-linear ones.

    Raises:
        InputError: fewer than four points, all of one N or of one D, or N and D that vary together.
    """
    _check(points)
    reference = max(point.params for point in points), max(point.tokens for point in points)
    n = np.log(np.array([point.params for point in points]) / reference[0])
    d = np.log(np.array([point.tokens for point in points]) / reference[1])
    if not full_rank(POWER.basis(n, d)):
        raise InputError(
            f"N and D vary together in all {len(points)} collapse points, as D = N^k does, so what F* owes to each "
            "cannot be told: add a model of another D at one of these N"
        )
    f_star = positive("f_star", [point.f_star for point in points])
    errors = log_errors(f_star, [point.interval for point in points])
    candidates = FORMS if len(points) >= FEWEST_FOR_ALL else (POWER, NESTED)
    fits = _fits(candidates, n, d, np.log(f_star), errors)
    forms = _weighed(fits, n, d, np.log(f_star), reference)
    largest = max(points, key=lambda point: (point.params, point.tokens))
    law = JointLaw(
        forms=forms,
        gamma=float("nan"),
        gamma_interval=(float("nan"), float("nan")),
        gamma_at=(largest.params, largest.tokens),
        scatter=fits[0].noise.scatter,
        df=fits[0].noise.df,
        points=len(points),
        reference=reference,
        caveats=(FORMS_WITHOUT_E,) if candidates is not FORMS else (),
    )
    gamma, interval = law.gamma_of(*law.gamma_at)
    return replace(law, gamma=gamma, gamma_interval=interval)


def _check(points: Sequence[CollapsePoint]) -> None:
    sizes, budgets = len({point.params for point in points}), len({point.tokens for point in points})
    if len(points) < FEWEST_POINTS or sizes < 2 or budgets < 2:
        raise InputError(
            f"{len(points)} collapse points of {sizes} N and {budgets} D; a law of N and D takes {FEWEST_POINTS} "
            "points or more, of two N and two D at least"
        )
    positive("params", [point.params for point in points])
    positive("tokens", [point.tokens for point in points])


def _fits(
    candidates: Sequence[Form], n: FloatArray, d: FloatArray, y: FloatArray, errors: FloatArray | None
) -> list[FormFit]:
    """The candidates, all under the least scatter that one of them needs."""
    first = Noise(errors, 0.0 if errors is not None else 1.0, float("inf"), len(y))
    tried = [fit_form(form, n, d, y, first) for form in candidates]
    noise = min((noise_about(found, n, d, y, errors) for found in tried), key=lambda noise: noise.scatter)
    return [fit_form(form, n, d, y, noise) for form in candidates]


def _weighed(
    fits: Sequence[FormFit], n: FloatArray, d: FloatArray, y: FloatArray, reference: tuple[int, int]
) -> tuple[JointForm, ...]:
    aic = np.array([found.deviance + 2 * found.form.parameters for found in fits])
    weight = np.exp(-(aic - aic.min()) / 2)
    forms = [
        JointForm(
            name=found.form.name,
            formula=found.form.formula,
            parameters=_parameters(found, reference),
            intervals=_intervals(found),
            deviance=found.deviance,
            aic=float(aic[at]),
            weight=float(weight[at] / weight.sum()),
            leave_one_out_error=_root_mean_square(left_out_errors(found, n, d, y)),
            fit=found,
        )
        for at, found in enumerate(fits)
    ]
    return tuple(sorted(forms, key=lambda form: form.aic))


def _root_mean_square(errors: FloatArray) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.sqrt((known**2).mean())) if len(known) else float("nan")


def _parameters(found: FormFit, reference: tuple[int, int]) -> dict[str, float]:
    """A, alpha, gamma and E, as the form's formula has them."""
    names = found.form.linear + found.form.nonlinear
    fitted = dict(zip(names, found.theta.tolist(), strict=True))
    N, D = (float(np.log(value)) for value in reference)
    gamma, rho = fitted["gamma"], fitted.get("rho", 0.0)
    alpha = fitted.get("alpha", gamma)
    level, tokens = fitted["log F*"], gamma * D
    with np.errstate(divide="ignore"):
        log_A = level + np.log1p(-rho) + alpha * N - tokens
    parameters = {"A": float(np.exp(log_A)), "gamma": gamma}
    if "alpha" in fitted:
        parameters["alpha"] = alpha
    if "rho" in fitted:
        parameters["E"] = float(rho * np.exp(level - (0.0 if found.form is OFFSET else tokens)))
    return parameters


def _intervals(found: FormFit) -> dict[str, Interval]:
    intervals: dict[str, Interval] = {}
    for at, name in enumerate(found.form.linear + found.form.nonlinear):
        if name in ("alpha", "gamma"):
            value, reach = float(found.theta[at]), found.noise.quantile * float(np.sqrt(found.covariance[at, at]))
            intervals[name] = (value - reach, value + reach) if reach else (None, None)
    return intervals
