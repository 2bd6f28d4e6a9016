"""The candidate forms of F*(N, D), each with log F* linear in its coefficients once its shape is given.

log F* = coefficients · basis(N, D) + shape. The shape (alpha, rho[, gamma]) holds what is not linear; rho is the
share of E in F* at the reference model, the largest N and D.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.laws.points import FloatArray
from kisl_plugin.fit.laws.shape import LARGEST_ALPHA, SMALLEST_ALPHA

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
