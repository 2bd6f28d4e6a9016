"""The infusion law as others fit it, for comparison: unweighted, without intervals."""

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import huber, logsumexp

from kisl_plugin.fit.laws.points import FloatArray
from kisl_plugin.fit.laws.shape import LARGEST_ALPHA, SMALLEST_ALPHA

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
