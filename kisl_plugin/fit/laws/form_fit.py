"""One form of F*(N, D) fitted to collapse points: weighted least squares of log F*."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import least_squares

from kisl_plugin.fit.laws.forms import Form
from kisl_plugin.fit.laws.points import FloatArray
from kisl_plugin.fit.laws.scatter import Noise, find_noise

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
