"""F* as a law of N and D together: candidate forms, weighed by Akaike's criterion.

F* falls with N and rises with D, so F*(C) alone cannot hold where D varies. AIC = deviance + 2·parameters with
known errors: those of the curves and one scatter for all forms, the least that any of them needs. Predictions are
averaged over the forms with weights exp(-AIC/2), their variance holding the spread between forms (Burnham and
Anderson 2002); standard errors are linearised.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from kisl_plugin.errors import InputError
from kisl_plugin.fit.law import FEWEST_MODELS, fit_infusion_law
from kisl_plugin.fit.law_estimate import (
    LARGEST_ALPHA,
    OPEN,
    SMALLEST_ALPHA,
    CollapsePoint,
    FloatArray,
    Interval,
    Noise,
    find_noise,
    log_errors,
    positive,
)
from kisl_plugin.fit.text import count

# F*(D) ∝ D^gamma of models with one N: weighted least squares of log F* on log D.

FEWEST_BUDGETS = 2


@dataclass(frozen=True, kw_only=True)
class DataLaw:
    """F* = level·(D / centre)^gamma at N = `params`.

    `scatter` and `df` as in the infusion law. From two budgets with intervals of F* the intervals hold the curves'
    errors only; without any measure of error they are open.
    """

    params: int
    gamma: float
    gamma_interval: Interval
    scatter: float
    df: float
    points: int
    tokens_range: tuple[int, int]
    caveats: tuple[str, ...]
    level: float = field(repr=False)
    centre: float = field(repr=False)
    errors: tuple[float, float] = field(repr=False)  # of log level and of gamma
    noise: Noise = field(repr=False, compare=False)

    def predict(self, tokens: float) -> float:
        """F* of the model trained on D = `tokens`."""
        return float(self.level * (positive("tokens", [tokens])[0] / self.centre) ** self.gamma)

    def interval(self, tokens: float) -> Interval:
        """The 95 % interval of that F*, a model's scatter in it."""
        if not self.noise.known:
            return OPEN
        away = np.log(positive("tokens", [tokens])[0] / self.centre)
        error = np.sqrt(self.errors[0] ** 2 + (away * self.errors[1]) ** 2 + self.scatter**2)
        factor = float(np.exp(self.noise.quantile * error))
        return self.predict(tokens) / factor, self.predict(tokens) * factor


def fit_data_law(points: Sequence[CollapsePoint]) -> DataLaw:
    """Fit F* ∝ D^gamma to collapse points of one N, from two D on.

    Raises:
        InputError: several N, or fewer than two D.
    """
    sizes, budgets = {point.params for point in points}, {point.tokens for point in points}
    if len(sizes) != 1 or len(budgets) < FEWEST_BUDGETS:
        raise InputError(
            f"collapse points of {len(sizes)} N and {len(budgets)} D; the law of D takes one N and two D or more"
        )
    D = positive("tokens", [point.tokens for point in points])
    F = positive("f_star", [point.f_star for point in points])
    errors = log_errors(F, [point.interval for point in points])
    noise = find_noise(errors, len(D), len(D) - 2, lambda weights: np.array([_line(D, F, w)[-1] for w in weights]))
    centre, log_level, gamma, level_error, gamma_error, _ = _line(D, F, noise.weight)
    reach = noise.quantile * gamma_error
    return DataLaw(
        params=points[0].params,
        gamma=gamma,
        gamma_interval=(gamma - reach, gamma + reach) if noise.known else OPEN,
        scatter=noise.scatter if noise.known else float("nan"),
        df=noise.df,
        points=len(D),
        tokens_range=(int(D.min()), int(D.max())),
        caveats=tuple(_caveats(noise, len(D))),
        level=float(np.exp(log_level)),
        centre=centre,
        errors=(level_error, gamma_error),
        noise=noise,
    )


def _line(D: FloatArray, F: FloatArray, weight: FloatArray) -> tuple[float, float, float, float, float, float]:
    """Weighted mean D, log F* there, gamma, their standard errors, and the deviance."""
    total = weight.sum()
    centre = float((weight * np.log(D)).sum() / total)
    away, y = np.log(D) - centre, np.log(F)
    spread = float((weight * away**2).sum())
    level, gamma = float((weight * y).sum() / total), float((weight * away * y).sum() / spread)
    deviance = float((weight * (y - level - gamma * away) ** 2).sum())
    return float(np.exp(centre)), level, gamma, float(total**-0.5), spread**-0.5, deviance


def _caveats(noise: Noise, points: int) -> list[str]:
    if not noise.known:
        return ["two points without intervals of F* leave no measure of error"]
    if points == 2:
        return ["two points: the line fits by construction, and scatter about it cannot be seen"]
    return []


# The candidate forms of F*(N, D), each with log F* linear in its coefficients once its shape is given.
#
# log F* = coefficients · basis(N, D) + shape. The shape (alpha, rho[, gamma]) holds what is not linear; rho is the
# share of E in F* at the reference model, the largest N and D.

LARGEST_GAMMA = 5.0


@dataclass(frozen=True)
class Form:
    """A form of F*(N, D); n = log N and d = log D are relative to the reference model.

    `basis(n, d)` is [..., L], `shape(theta [S], n, d)` and `gamma(coefficients, theta, n, d)` are [...].
    """

    name: str
    formula: str
    linear: tuple[str, ...]
    nonlinear: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    basis: Callable[[FloatArray, FloatArray], FloatArray]
    shape: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
    gamma: Callable[[FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]

    @property
    def parameters(self) -> int:
        """How many are fitted."""
        return len(self.linear) + len(self.nonlinear)


def _columns(*columns: FloatArray) -> FloatArray:
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def _mixture(falling: FloatArray, rho: FloatArray) -> FloatArray:
    """log((1 - rho)·exp(falling) + rho)."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(np.log1p(-rho) + falling, np.log(rho)))


POWER = Form(
    "power law",
    "A·D^gamma / N^alpha",
    ("log F*", "alpha", "gamma"),
    (),
    (),
    (),
    basis=lambda n, d: _columns(np.ones_like(n), -n, d),
    shape=lambda theta, n, d: np.zeros_like(n),
    gamma=lambda linear, theta, n, d: linear[2] + 0 * n,
)
SCALED = Form(
    "scaled law",
    "D^gamma·(A/N^alpha + E)",
    ("log F*", "gamma"),
    ("alpha", "rho"),
    (SMALLEST_ALPHA, 0.0),
    (LARGEST_ALPHA, 1.0),
    basis=lambda n, d: _columns(np.ones_like(n), d),
    shape=lambda theta, n, d: _mixture(-theta[0] * n, theta[1]),
    gamma=lambda linear, theta, n, d: linear[1] + 0 * n,
)
OFFSET = Form(
    "offset law",
    "A·D^gamma / N^alpha + E",
    ("log F*",),
    ("alpha", "rho", "gamma"),
    (SMALLEST_ALPHA, 0.0, -LARGEST_GAMMA),
    (LARGEST_ALPHA, 1.0, LARGEST_GAMMA),
    basis=lambda n, d: _columns(np.ones_like(n)),
    shape=lambda theta, n, d: _mixture(theta[2] * d - theta[0] * n, theta[1]),
    gamma=lambda linear, theta, n, d: theta[2] * _falling_share(theta[2] * d - theta[0] * n, theta[1]),
)
NESTED = Form(
    "tokens per parameter",
    "A·(D/N)^gamma",
    ("log F*", "gamma"),
    (),
    (),
    (),
    basis=lambda n, d: _columns(np.ones_like(n), d - n),
    shape=lambda theta, n, d: np.zeros_like(n),
    gamma=lambda linear, theta, n, d: linear[1] + 0 * n,
)
FORMS = (POWER, SCALED, OFFSET, NESTED)


def _falling_share(falling: FloatArray, rho: FloatArray) -> FloatArray:
    """1 - E / F*."""
    return np.asarray((1 - rho) * np.exp(falling - _mixture(falling, rho)))


# One form of F*(N, D) fitted to collapse points: weighted least squares of log F*.

STEP = 1e-5  # of numerical derivatives, in the parameters' own units
SINGULAR = 1e-8
EDGE, SNAP = 1e-4, 1e-6  # nearer to a bound has no error; is at it
STARTS = {"alpha": (0.1, 0.4, 1.2), "rho": (0.05, 0.5, 0.9), "gamma": (0.5, 1.5)}


@dataclass(frozen=True)
class FormFit:
    """The best `theta` [P], linear parameters first, their covariance [P, P] and the deviance.

    A parameter at its bound is held there: its row of the covariance is 0.
    """

    form: Form
    theta: FloatArray
    covariance: FloatArray
    deviance: float
    noise: Noise

    @property
    def nonlinear(self) -> FloatArray:
        """The parameters of the shape."""
        return self.theta[len(self.form.linear) :]

    def log_f_star(self, n: FloatArray, d: FloatArray) -> FloatArray:
        """Log F* at log N and log D relative to the reference model."""
        return _log_f_star(self.form, self.theta, n, d)

    def gamma(self, n: FloatArray, d: FloatArray) -> float:
        """The exponent d log F* / d log D there."""
        return float(_gamma(self.form, self.theta, n, d))

    def error_of(self, quantity: Callable[[FloatArray], float]) -> float:
        """The standard error of a quantity of theta, linearised."""
        gradient = np.array([self._derivative(quantity, at) for at in range(len(self.theta))])
        return float(np.sqrt(max(gradient @ self.covariance @ gradient, 0.0)))

    def _derivative(self, quantity: Callable[[FloatArray], float], at: int) -> float:
        if self.covariance[at, at] == 0:
            return 0.0
        up, down = self.theta.copy(), self.theta.copy()
        up[at] += STEP
        down[at] -= STEP
        return (quantity(up) - quantity(down)) / (2 * STEP)

    def log_f_star_error(self, n: FloatArray, d: FloatArray) -> float:
        """The standard error of log F* there."""
        return self.error_of(lambda theta: float(_log_f_star(self.form, theta, n, d)))

    def gamma_error(self, n: FloatArray, d: FloatArray) -> float:
        """The standard error of gamma there."""
        return self.error_of(lambda theta: float(_gamma(self.form, theta, n, d)))


def _log_f_star(form: Form, theta: FloatArray, n: FloatArray, d: FloatArray) -> FloatArray:
    linear, nonlinear = np.split(theta, [len(form.linear)])
    return np.asarray(form.basis(n, d) @ linear + form.shape(_inside(nonlinear), n, d))


def _gamma(form: Form, theta: FloatArray, n: FloatArray, d: FloatArray) -> FloatArray:
    linear, nonlinear = np.split(theta, [len(form.linear)])
    return form.gamma(linear, _inside(nonlinear), n, d)


def _inside(nonlinear: FloatArray) -> FloatArray:
    """Rho, the second of a shape, kept in [0, 1] where a derivative steps over."""
    if len(nonlinear) > 1:
        nonlinear = nonlinear.copy()
        nonlinear[1] = np.clip(nonlinear[1], 0.0, 1.0)
    return nonlinear


def fit_form(form: Form, n: FloatArray, d: FloatArray, y: FloatArray, noise: Noise) -> FormFit:
    """Fit log F* [M] at n, d [M] under `noise`."""
    starts = list(product(*(STARTS[name] for name in form.nonlinear)))
    theta, deviance = _minimise(form, n, d, y, noise.weight, starts)
    return FormFit(form, theta, _covariance(form, theta, n, d, noise.weight), deviance, noise)


def noise_about(found: FormFit, n: FloatArray, d: FloatArray, y: FloatArray, errors: FloatArray | None) -> Noise:
    """The scatter about the form; its shape stays, the linear parameters follow the weights."""
    basis, rest = found.form.basis(n, d), y - found.form.shape(found.nonlinear, n, d)

    def misfit(weights: FloatArray) -> FloatArray:
        return np.array([_linear(basis, rest, np.sqrt(weight))[1] for weight in weights])

    return find_noise(errors, len(y), len(y) - found.form.parameters, misfit)


def left_out_errors(found: FormFit, n: FloatArray, d: FloatArray, y: FloatArray) -> FloatArray:
    """log(predicted / measured) [M] of each point by the form fitted to the others; NaN where they cannot tell."""
    errors = np.full(len(y), np.nan)
    for at in range(len(y)):
        rest = np.arange(len(y)) != at
        if full_rank(found.form.basis(n[rest], d[rest])):
            weight = found.noise.weight[rest]
            theta, _ = _minimise(found.form, n[rest], d[rest], y[rest], weight, [tuple(found.nonlinear)])
            errors[at] = float(_log_f_star(found.form, theta, n[at], d[at])) - y[at]
    return errors


def _minimise(
    form: Form, n: FloatArray, d: FloatArray, y: FloatArray, weight: FloatArray, starts: Sequence[tuple[float, ...]]
) -> tuple[FloatArray, float]:
    """The best theta [P] and its deviance: the linear part in closed form, the shape from several starts."""
    root, basis = np.sqrt(weight), form.basis(n, d)

    def residual(nonlinear: FloatArray) -> FloatArray:
        rest = y - form.shape(nonlinear, n, d)
        return np.asarray(root * (rest - basis @ _linear(basis, rest, root)[0]))

    best = np.empty(0)
    if form.nonlinear:
        fits = [least_squares(residual, start, bounds=(form.lower, form.upper), xtol=1e-10) for start in starts]
        best = _snapped(form, min(fits, key=lambda fit: float(fit.cost)).x)
    linear, deviance = _linear(basis, y - form.shape(best, n, d), root)
    return np.concatenate([linear, best]), deviance


def _snapped(form: Form, nonlinear: FloatArray) -> FloatArray:
    """An optimiser of interior points stops just short of a bound."""
    for bound in (np.array(form.lower), np.array(form.upper)):
        nonlinear = np.where(np.abs(nonlinear - bound) < SNAP, bound, nonlinear)
    return nonlinear


def _linear(basis: FloatArray, y: FloatArray, root: FloatArray) -> tuple[FloatArray, float]:
    """Coefficients [L] and deviance of weighted least squares; `root` [M] is the root of the weights."""
    coefficients: FloatArray = np.asarray(np.linalg.lstsq(root[:, None] * basis, root * y, rcond=None)[0], np.float64)
    return coefficients, float(((root * (y - basis @ coefficients)) ** 2).sum())


def full_rank(basis: FloatArray) -> bool:
    """Whether points with this basis [M, L] tell its coefficients apart."""
    return bool(np.linalg.matrix_rank(basis, SINGULAR) == basis.shape[1])


def _covariance(form: Form, theta: FloatArray, n: FloatArray, d: FloatArray, weight: FloatArray) -> FloatArray:
    """The inverse of the Fisher information [P, P], parameters at their bounds held."""
    free = np.ones(len(theta), dtype=bool)
    if form.nonlinear:
        nonlinear = theta[len(form.linear) :]
        free[len(form.linear) :] = (nonlinear > np.array(form.lower) + EDGE) & (nonlinear < np.array(form.upper) - EDGE)
    steps = np.diag(np.full(len(theta), STEP))[free]
    slopes = np.array(
        [_log_f_star(form, theta + step, n, d) - _log_f_star(form, theta - step, n, d) for step in steps]
    ) / (2 * STEP)
    covariance = np.zeros((len(theta), len(theta)))
    covariance[np.ix_(free, free)] = np.linalg.pinv((slopes * weight) @ slopes.T, hermitian=True)
    return covariance


# F* as a law of N and D together: candidate forms, weighed by Akaike's criterion.
#
# F* falls with N and rises with D, so F*(C) alone cannot hold where D varies. AIC = deviance + 2·parameters with
# known errors: those of the curves and one scatter for all forms, the least that any of them needs. Predictions are
# averaged over the forms with weights exp(-AIC/2), their variance holding the spread between forms (Burnham and
# Anderson 2002); standard errors are linearised.

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


# Predict what the law did not see, and by how much it missed.


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The model with N, D against a law of models of other sizes, named by `source`; `ratio` = predicted / measured.

    `inside`: whether the intervals of the measured and of the predicted F* agree: log ratio within the root of the
    sum of squares of their halves that face each other. None where the prediction has no interval.
    """

    params: int
    tokens: int
    measured: float
    measured_interval: Interval
    predicted: float
    interval: Interval
    ratio: float
    inside: bool | None
    source: str
    words: str


def hold_out(points: Sequence[CollapsePoint], params: int) -> tuple[HeldOut, ...]:
    """Predict each model with N = `params` from models of other sizes, largest D first.

    By the infusion law of those at its D where there are three, else by the law in N and D of all of them.

    Raises:
        InputError: no point has that N, or the others make no law.
    """
    asked = sorted((point for point in points if point.params == params), key=lambda point: -point.tokens)
    if not asked:
        there = ", ".join(str(size) for size in sorted({point.params for point in points})) or "none"
        raise InputError(f"hold_out {params}: no collapse point has this N; expected one of {there}")
    others = [point for point in points if point.params != params]
    found = [held for point in asked if (held := _held(point, others))]
    if not found:
        raise InputError(
            f"hold_out {params}: the other sizes make no law; it takes collapse points of {FEWEST_MODELS} of them at "
            f"one D, or {FEWEST_POINTS} of two N and two D"
        )
    return tuple(found)


def _held(point: CollapsePoint, others: Sequence[CollapsePoint]) -> HeldOut | None:
    found = _by_compute(point, others) or _by_both(point, others)
    if found is None:
        return None
    predicted, interval, source = found
    ratio = float(predicted / point.f_star)
    inside = _agree(point, predicted, interval)
    return HeldOut(
        params=point.params,
        tokens=point.tokens,
        measured=float(point.f_star),
        measured_interval=point.interval,
        predicted=predicted,
        interval=interval,
        ratio=ratio,
        inside=inside,
        source=source,
        words=_words(ratio, inside),
    )


def _by_compute(point: CollapsePoint, others: Sequence[CollapsePoint]) -> tuple[float, Interval, str] | None:
    rest = [other for other in others if other.tokens == point.tokens]
    if len({other.params for other in rest}) < FEWEST_MODELS:
        return None
    law = fit_infusion_law(
        [other.compute for other in rest], [other.f_star for other in rest], [other.interval for other in rest]
    )
    source = f"the infusion law F*(C) of {len(rest)} other models at its D"
    return law.predict(point.compute), law.interval(point.compute), source


def _by_both(point: CollapsePoint, others: Sequence[CollapsePoint]) -> tuple[float, Interval, str] | None:
    try:
        law = fit_joint_law(others)
    except InputError:
        return None
    found = law.predict(point.params, point.tokens)
    return found.f_star, found.interval, f"the law of N and D of {len(others)} models of other sizes"


def _agree(point: CollapsePoint, predicted: float, interval: Interval) -> bool | None:
    low, high = interval
    if low is None or high is None:
        return None
    above = predicted > point.f_star
    facing = (point.interval[1], low) if above else (point.interval[0], high)
    if facing[0] is None:
        return True
    reach = np.hypot(np.log(facing[0] / point.f_star), np.log(facing[1] / predicted))
    return bool(abs(np.log(predicted / point.f_star)) <= reach)


def _words(ratio: float, inside: bool | None) -> str:
    missed = "to the digit" if ratio == 1 else f"{abs(ratio - 1) * 100:.1f} % too {'high' if ratio > 1 else 'low'}"
    agrees = {
        True: "within the intervals",
        False: "outside the intervals",
        None: "no interval, as three models without intervals of F* leave no measure of error",
    }
    return f"predicted {missed}, {agrees[inside]}"


# The paper's three signs that the infusion law does not hold, each with a verdict.

UNIMODAL, MONOTONE, EXTRAPOLATES = "unimodal curves", "F* falls with size", "extrapolation"
OK, NOT_UNIMODAL = "ok", "not unimodal"  # statuses of curves
TOLERANCE = 0.20
SIGNIFICANT = 0.05
DRAWS, SEED = 10_000, 2509


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`passed` is None where the data cannot tell."""

    name: str
    passed: bool | None
    sentence: str


def judge(statuses: Sequence[str], points: Sequence[CollapsePoint]) -> tuple[Verdict, Verdict, Verdict]:
    """The three verdicts from the statuses of all curves and the collapse points of those that are ok."""
    return unimodal(statuses), monotone(points), extrapolates(points)


def unimodal(statuses: Sequence[str]) -> Verdict:
    """Failed where a curve's order-restricted test rejects a single rise and fall."""
    failed, fine = statuses.count(NOT_UNIMODAL), statuses.count(OK)
    if failed:
        return Verdict(name=UNIMODAL, passed=False, sentence=f"not unimodal: {failed} of {len(statuses)} curves")
    if not fine:
        return Verdict(name=UNIMODAL, passed=None, sentence="no curve shows a collapse")
    sentence = f"{fine} of {len(statuses)} curves rise, then fall; none rises again beyond chance"
    return Verdict(name=UNIMODAL, passed=True, sentence=sentence)


def monotone(points: Sequence[CollapsePoint]) -> Verdict:
    """Failed where F* rises with N at one D, passed where it falls, beyond the errors at p < 0.05.

    The largest (log F* difference / its error) of all pairs of sizes, against its distribution were all F* of one
    D the same (10,000 draws), times the number of D.
    """
    budgets = [group for group in _by_tokens(points) if len({point.params for point in group}) > 1]
    if not budgets:
        return Verdict(name=MONOTONE, passed=None, sentence="no D has collapse points of two sizes")
    known = [(errors, group) for group in budgets if (errors := _errors(group)) is not None]
    if not known:
        sentence = "no interval of F* is known, so no rise can be told from chance"
        return Verdict(name=MONOTONE, passed=None, sentence=sentence)
    rises, falls = (min(1.0, len(known) * min(_p_of_change(*pair, way) for pair in known)) for way in (1, -1))
    if rises < SIGNIFICANT:
        return Verdict(
            name=MONOTONE, passed=False, sentence=f"F* rises with N at one D beyond its errors (p = {rises:.2g})"
        )
    if falls < SIGNIFICANT:
        sentence = f"F* falls with N at one D (p = {falls:.2g}); no rise beyond the errors (p = {rises:.2g})"
        return Verdict(name=MONOTONE, passed=True, sentence=sentence)
    sentence = f"neither a rise (p = {rises:.2g}) nor a fall (p = {falls:.2g}) of F* with N is told from the errors"
    return Verdict(name=MONOTONE, passed=None, sentence=sentence)


def extrapolates(points: Sequence[CollapsePoint]) -> Verdict:
    """Failed where the law of the smaller models misses the largest one of any D by more than 20 %."""
    held = [
        hold_out(group, max(point.params for point in group))[0]
        for group in _by_tokens(points)
        if len({point.params for point in group}) > FEWEST_MODELS
    ]
    if not held:
        sentence = f"no D has {FEWEST_MODELS + 1} sizes, the largest to be predicted from the others"
        return Verdict(name=EXTRAPOLATES, passed=None, sentence=sentence)
    worst = max(held, key=lambda found: abs(found.ratio - 1))
    return Verdict(name=EXTRAPOLATES, passed=bool(abs(worst.ratio - 1) <= TOLERANCE), sentence=_missed(worst))


def _missed(worst: HeldOut) -> str:
    at = f"N = {count(worst.params)} at D = {count(worst.tokens)}"
    missed = f"{at}, left out: {worst.words}; ±{100 * TOLERANCE:.0f} % is allowed"
    beyond = abs(worst.ratio - 1) > TOLERANCE
    return f"{missed}, but the errors alone may miss by as much" if beyond and worst.inside else missed


def _by_tokens(points: Sequence[CollapsePoint]) -> list[list[CollapsePoint]]:
    budgets: dict[int, list[CollapsePoint]] = defaultdict(list)
    for point in sorted(points, key=lambda point: (point.tokens, point.params)):
        budgets[point.tokens].append(point)
    return list(budgets.values())


def _errors(group: Sequence[CollapsePoint]) -> FloatArray | None:
    return log_errors([point.f_star for point in group], [point.interval for point in group])


def _p_of_change(errors: FloatArray, group: Sequence[CollapsePoint], way: int) -> float:
    """The p-value of "no two sizes differ" against a rise (1) or a fall (-1) from a smaller to a larger."""
    larger = np.array([[b.params > a.params for b in group] for a in group])
    scale = np.where(larger, np.hypot(errors[:, None], errors), np.inf)
    observed = _largest_change(way * np.log([point.f_star for point in group])[None], scale)[0]
    null = np.random.default_rng(SEED).normal(size=(DRAWS, len(group))) * errors
    return float((1 + (_largest_change(null, scale) >= observed).sum()) / (1 + DRAWS))


def _largest_change(y: FloatArray, scale: FloatArray) -> FloatArray:
    """The largest (later - earlier) / scale [B] of y [B, M]."""
    return np.asarray(((y[:, None, :] - y[:, :, None]) / scale).max(axis=(1, 2)))
