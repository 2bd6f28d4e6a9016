"""F* as a law of N and D together, and of D at one N.

F* falls with N and rises with D, so F*(C) alone cannot hold where D varies. Hidden here: the candidate forms, how they
are fitted (weighted least squares of log F*) and how they are weighed. AIC = deviance + 2·parameters with known errors:
those of the curves and one scatter for all forms, the least that any of them needs. Predictions are averaged over the
forms with weights exp(-AIC/2); their variance includes the spread between forms (Burnham and Anderson 2002). Standard
errors are linearised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import nan
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from kisl_plugin.errors import InputError
from kisl_plugin.fit.collapse_points import OPEN, CollapsePoint, FloatArray, Interval, Noise, estimate_noise, log_errors
from kisl_plugin.fit.law import LARGEST_ALPHA, SMALLEST_ALPHA

__all__ = ["JointLaw", "fit_data_law", "fit_joint_law"]

FEWEST_BUDGETS = 2
FEWEST_POINTS = 4
FEWEST_FOR_ALL_FORMS = 9
LEAST_WEIGHT = 0.01  # of a form that counts for the spread of predictions

# Bounds; rho is the share of E in F* at the largest N and D.
_BOUNDS = {
    "log F*": (-np.inf, np.inf),
    "alpha": (SMALLEST_ALPHA, LARGEST_ALPHA),
    "gamma": (-5.0, 5.0),
    "rho": (0.0, 1.0),
}
_STARTS = tuple(product((0.1, 0.4, 1.2), (0.05, 0.5, 0.9)))  # of alpha and rho
_STEP = 1e-5  # of numerical derivatives by a parameter
_STEP_OF_D = 1e-3  # of numerical derivatives by log D


@dataclass(frozen=True)
class _Form:
    """log F* [...] at n = log N and d = log D relative to the largest of each, as a function of the parameters.

    The first parameter is log F* there. A form without rho is linear in all its parameters.
    """

    name: str
    formula: str
    parameters: tuple[str, ...]
    log_f_star: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

    def design(self, n: FloatArray, d: FloatArray) -> FloatArray:
        """The columns [M, P] of the linear regression of a linear form."""
        # A column is what log F* gains where its parameter grows by 1
        return np.stack([self.log_f_star(unit, n, d) for unit in np.eye(len(self.parameters))], axis=-1)


def _with_constant(falling: FloatArray, rho: FloatArray) -> FloatArray:
    """log((1 - rho)·e^falling + rho)."""
    rho = np.clip(rho, 0.0, 1.0)  # a numerical derivative steps over the bound
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(np.log1p(-rho) + falling, np.log(rho)))


_LINEAR = ("log F*", "gamma", "alpha")
_BENT = (*_LINEAR, "rho")
_POWER = _Form("power law", "A·D^gamma / N^alpha", _LINEAR, lambda theta, n, d: theta[0] + theta[1] * d - theta[2] * n)
_SCALED = _Form(
    "scaled law",
    "D^gamma·(A/N^alpha + E)",
    _BENT,
    lambda theta, n, d: theta[0] + theta[1] * d + _with_constant(-theta[2] * n, theta[3]),
)
_OFFSET = _Form(
    "offset law",
    "A·D^gamma / N^alpha + E",
    _BENT,
    lambda theta, n, d: theta[0] + _with_constant(theta[1] * d - theta[2] * n, theta[3]),
)
_NESTED = _Form("tokens per parameter", "A·(D/N)^gamma", _LINEAR[:2], lambda theta, n, d: theta[0] + theta[1] * (d - n))
_OF_D = _Form("data law", "A·D^gamma", _LINEAR[:2], lambda theta, n, d: theta[0] + theta[1] * (d + 0 * n))


@dataclass(frozen=True)
class _Points:
    """log F* [M] and standard errors [M] (None: unknown) at n, d [M]; `reference` are the largest N and D."""

    n: FloatArray
    d: FloatArray
    y: FloatArray
    errors: FloatArray | None
    reference: FloatArray

    @classmethod
    def of(cls, points: Sequence[CollapsePoint]) -> "_Points":
        N, D, F = np.array([(point.params, point.tokens, point.f_star) for point in points], dtype=np.float64).T
        errors = log_errors(F, [point.interval for point in points])
        return cls(np.log(N / N.max()), np.log(D / D.max()), np.log(F), errors, np.array([N.max(), D.max()]))

    def fit(self, form: _Form, weight: FloatArray, start: FloatArray | None = None) -> tuple[FloatArray, float]:
        """The best parameters [P] and the deviance Σ weight·residual²; points of weight 0 are left out."""
        root = np.sqrt(weight)
        if "rho" not in form.parameters:
            design = root[:, None] * form.design(self.n, self.d)
            theta = np.asarray(np.linalg.lstsq(design, root * self.y, rcond=None)[0], dtype=np.float64)
        else:
            lower, upper = np.array([_BOUNDS[name] for name in form.parameters]).T
            # These forms bend, so the least-squares problem has several minima: starts over alpha and rho, with log F*
            # and gamma from the log-linear form.
            linear = self.fit(_POWER, weight)[0][:2]
            fits = [
                least_squares(
                    lambda theta: root * (self.y - form.log_f_star(theta, self.n, self.d)),
                    np.clip(at, lower, upper),
                    bounds=(lower, upper),
                    x_scale="jac",
                    **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-10),
                )
                for at in ([[*linear, *bend] for bend in _STARTS] if start is None else [start])
            ]
            theta = min(fits, key=lambda fit: float(fit.cost)).x
            for bound in (lower, upper):  # the optimiser stays inside and stops just short of a bound
                theta = np.where(np.abs(theta - bound) < 1e-6, bound, theta)
        return theta, float(weight @ (self.y - form.log_f_star(theta, self.n, self.d)) ** 2)


def _full_rank(n: FloatArray, d: FloatArray) -> bool:
    """Whether points at n, d [M] separate the effects of N and D."""
    return bool(np.linalg.matrix_rank(_POWER.design(n, d), 1e-8) == 3)


def _gradient(function: Callable[[FloatArray], FloatArray], theta: FloatArray) -> FloatArray:
    """Derivatives [P, ...] of a function by its parameters [P], by central differences."""
    steps = _STEP * np.eye(len(theta))
    return np.array([(function(theta + step) - function(theta - step)) / (2 * _STEP) for step in steps])


class JointPrediction(NamedTuple):
    """F* with its 95 % interval (a model's scatter included), and the least and largest F* of the forms that count."""

    f_star: float
    interval: Interval
    spread: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class JointForm:
    """One form as fitted. `intervals` (95 %) are of alpha and gamma; open where the parameter is at a bound.

    `aic` is deviance + 2·parameters, `weight` Akaike's. `leave_one_out_error` is the root mean square of
    log(predicted / measured) of each point by the form fitted to the others; NaN where those never separate N from D.
    """

    name: str
    formula: str
    parameters: dict[str, float]
    intervals: dict[str, Interval]
    deviance: float
    aic: float
    weight: float
    leave_one_out_error: float
    _form: _Form = field(repr=False, compare=False)
    _theta: FloatArray = field(repr=False, compare=False)
    _covariance: FloatArray = field(repr=False, compare=False)  # [P, P]; 0 for a parameter at its bound

    def log_f_star(self, n: FloatArray, d: FloatArray) -> tuple[float, float]:
        """Return log F* at n, d and its standard error."""
        return self._with_error(lambda theta: self._form.log_f_star(theta, n, d))

    def gamma(self, n: FloatArray, d: FloatArray) -> tuple[float, float]:
        """Return d log F* / d log D at n, d and its standard error."""
        ends = d + _STEP_OF_D * np.array([-1.0, 1.0])
        return self._with_error(lambda theta: np.diff(self._form.log_f_star(theta, n, ends))[0] / (2 * _STEP_OF_D))

    def _with_error(self, quantity: Callable[[FloatArray], FloatArray]) -> tuple[float, float]:
        # Delta method: variance of q(theta) = gradient' · covariance · gradient.
        gradient = _gradient(quantity, self._theta)
        variance = float(gradient @ self._covariance @ gradient)
        return float(quantity(self._theta)), max(variance, 0.0) ** 0.5


@dataclass(frozen=True, kw_only=True)
class JointLaw:
    """F*(N, D), averaged over `forms` (best first), or F*(D) of one N.

    `gamma` is d log F* / d log D at `gamma_at`, the largest model. `scatter` and `df` as in the infusion law. From two
    budgets of one N the intervals contain the curves' errors only; without any measure of error they are open.
    """

    forms: tuple[JointForm, ...]
    gamma_at: tuple[int, int]
    scatter: float
    df: float
    points: int
    tokens_range: tuple[int, int]
    caveats: tuple[str, ...]
    noise: Noise = field(repr=False, compare=False)
    _reference: FloatArray = field(repr=False, compare=False)

    @property
    def best(self) -> JointForm:
        """The form with the least AIC."""
        return self.forms[0]

    @property
    def params(self) -> int:
        """N of the largest model."""
        return self.gamma_at[0]

    @property
    def gamma(self) -> float:
        """The exponent of D at the largest model."""
        return self.gamma_of(*self.gamma_at)[0]

    @property
    def gamma_interval(self) -> Interval:
        """Its 95 % interval."""
        return self.gamma_of(*self.gamma_at)[1]

    def predict(self, params: float, tokens: float) -> JointPrediction:
        """F* of a model with N = `params` trained on D = `tokens`."""
        logs, mean, error = self._average(JointForm.log_f_star, params, tokens)
        counts = np.array([form.weight >= LEAST_WEIGHT for form in self.forms])
        reach = self.noise.quantile * np.hypot(error, self.noise.scatter)
        with np.errstate(over="ignore"):  # points that hardly separate N from D give an infinite end
            f_star, low, high = np.exp([mean, mean - reach, mean + reach]).tolist()
            spread = float(np.exp(logs[counts].min())), float(np.exp(logs[counts].max()))
        return JointPrediction(f_star, (low, high) if self.noise.known else OPEN, spread)

    def gamma_of(self, params: float, tokens: float) -> tuple[float, Interval]:
        """The exponent d log F* / d log D at N, D with its 95 % interval, averaged over the forms."""
        _, mean, error = self._average(JointForm.gamma, params, tokens)
        reach = self.noise.quantile * error
        return mean, (mean - reach, mean + reach) if self.noise.known else OPEN

    def _average(
        self,
        quantity: "Callable[[JointForm, FloatArray, FloatArray], tuple[float, float]]",
        params: float,
        tokens: float,
    ) -> tuple[FloatArray, float, float]:
        """A quantity of each form at N, D, its Akaike-weighted mean, and the standard error of the mean."""
        n, d = np.log(np.array([params, tokens]) / self._reference)
        values, errors = np.array([quantity(form, n, d) for form in self.forms]).T
        weight = np.array([form.weight for form in self.forms])
        # The variance of a mixture: Σ weight·(error² + (value - mean)²).
        mean = float(weight @ values)
        return values, mean, float(np.sqrt(weight @ (errors**2 + (values - mean) ** 2)))


def fit_data_law(points: Sequence[CollapsePoint]) -> JointLaw:
    """Fit F* ∝ D^gamma to collapse points of one N at two D or more.

    Raises:
        InputError: several N, or fewer than two D.
    """
    sizes, budgets = {point.params for point in points}, {point.tokens for point in points}
    if len(sizes) != 1 or len(budgets) < FEWEST_BUDGETS:
        raise InputError(
            f"collapse points of {len(sizes)} N and {len(budgets)} D; the law of D needs one N and two D or more"
        )
    law = _fit((_OF_D,), _Points.of(points), points)
    if len(points) > 2:
        return law
    if law.noise.known:
        caveat = "two points: the line fits by construction, and scatter about it cannot be seen"
    else:
        caveat = "two points without intervals of F* give no measure of error"
    return replace(law, caveats=(caveat,))


def fit_joint_law(points: Sequence[CollapsePoint]) -> JointLaw:
    """Fit F*(N, D) to collapse points: all four forms from nine points on, below that the two log-linear ones.

    Raises:
        InputError: fewer than four points, all of one N or of one D, or N and D that vary together.
    """
    sizes, budgets = len({point.params for point in points}), len({point.tokens for point in points})
    if len(points) < FEWEST_POINTS or sizes < 2 or budgets < 2:
        raise InputError(
            f"{len(points)} collapse points of {sizes} N and {budgets} D; a law of N and D needs {FEWEST_POINTS} "
            "points or more, of at least two N and two D"
        )
    data = _Points.of(points)
    if not _full_rank(data.n, data.d):
        raise InputError(
            f"N and D vary together in all {len(points)} collapse points, as D = N^k does, so their effects on F* "
            "cannot be separated: add a model of another D at one of these N"
        )
    if len(points) >= FEWEST_FOR_ALL_FORMS:
        return _fit((_POWER, _SCALED, _OFFSET, _NESTED), data, points)
    caveat = (
        f"below {FEWEST_FOR_ALL_FORMS} points only the forms without E are tried: where F* levels off at an E, "
        "predictions for larger N are too low and their intervals too narrow"
    )
    return replace(_fit((_POWER, _NESTED), data, points), caveats=(caveat,))


def _fit(candidates: Sequence[_Form], data: _Points, points: Sequence[CollapsePoint]) -> JointLaw:
    # One scatter for all forms, the least that any of them needs.
    even = np.ones(len(points)) if data.errors is None else data.errors**-2.0
    starts = [data.fit(form, even)[0] for form in candidates]

    def noise_about(form: _Form, start: FloatArray) -> Noise:
        return estimate_noise(data.errors, len(points), len(start), lambda weight: data.fit(form, weight, start)[1])

    noise = min(map(noise_about, candidates, starts), key=lambda noise: noise.scatter)
    weights = noise.weights(len(points))
    forms = [_fit_form(form, data, weights, start, noise) for form, start in zip(candidates, starts, strict=True)]
    # Akaike weights: exp(-AIC/2) over their sum, relative to the least AIC so that none underflows.
    relative = np.exp((min(form.aic for form in forms) - np.array([form.aic for form in forms])) / 2)
    forms = [replace(form, weight=float(share)) for form, share in zip(forms, relative / relative.sum(), strict=True)]
    largest = max(points, key=lambda point: (point.params, point.tokens))
    budgets = [point.tokens for point in points]
    return JointLaw(
        forms=tuple(sorted(forms, key=lambda form: form.aic)),
        gamma_at=(largest.params, largest.tokens),
        scatter=noise.scatter if noise.known else nan,
        df=noise.df,
        points=len(points),
        tokens_range=(min(budgets), max(budgets)),
        caveats=(),
        noise=noise,
        _reference=data.reference,
    )


def _fit_form(form: _Form, data: _Points, weights: FloatArray, start: FloatArray, noise: Noise) -> JointForm:
    """One form under the noise; its Akaike weight is not known yet."""
    theta, deviance = data.fit(form, weights, start)

    # The covariance is the inverse of the Fisher information; parameters at their bounds are held there.
    lower, upper = np.array([_BOUNDS[name] for name in form.parameters]).T
    free = (theta > lower + 1e-4) & (theta < upper - 1e-4) | ("rho" not in form.parameters)
    slopes = _gradient(lambda at: form.log_f_star(at, data.n, data.d), theta)[free]
    covariance = np.zeros((len(theta), len(theta)))
    covariance[np.ix_(free, free)] = np.linalg.pinv((slopes * weights) @ slopes.T, hermitian=True)

    # Each point by the form fitted to the others, where those still separate N from D
    errors = []
    for at in range(len(data.y)):
        others = np.arange(len(data.y)) != at
        if _full_rank(data.n[others], data.d[others]):
            without, _ = data.fit(form, weights * others, theta)
            errors.append(float(form.log_f_star(without, data.n[at], data.d[at]) - data.y[at]))

    # A, gamma, alpha and E as the formula has them, with N and D no longer relative to the largest.
    fitted = dict(zip(form.parameters, theta.tolist(), strict=True))
    log_N, log_D = np.log(data.reference).tolist()
    level, gamma, rho = fitted["log F*"], fitted["gamma"], fitted.get("rho", 0.0)
    alpha = fitted.get("alpha", gamma if form is _NESTED else 0.0)
    with np.errstate(divide="ignore"):
        parameters = {"A": float(np.exp(level + np.log1p(-rho) + alpha * log_N - gamma * log_D)), "gamma": gamma}
    if "alpha" in fitted:
        parameters["alpha"] = alpha
    if "rho" in fitted:
        parameters["E"] = float(rho * np.exp(level - (0.0 if form is _OFFSET else gamma * log_D)))

    deviations = np.sqrt(np.diag(covariance)).tolist()
    reach = {name: noise.quantile * error for name, error in zip(form.parameters, deviations, strict=True)}
    intervals: dict[str, Interval] = {
        name: (fitted[name] - reach[name], fitted[name] + reach[name]) if reach[name] else OPEN
        for name in ("gamma", "alpha")
        if name in reach
    }
    return JointForm(
        name=form.name,
        formula=form.formula,
        parameters=parameters,
        intervals=intervals,
        deviance=deviance,
        aic=deviance + 2 * len(theta),
        weight=nan,
        leave_one_out_error=float(np.sqrt(np.mean(np.square(errors)))) if errors else nan,
        _form=form,
        _theta=theta,
        _covariance=covariance,
    )
