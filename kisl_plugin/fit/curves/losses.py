"""Other people's estimators, for comparison: Chinchilla's Huber loss on logs, and least squares on shares.

Neither knows how many items stand behind a share, so neither gives an interval that can be trusted.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber

from kisl_plugin.fit.curves.likelihood import Cells, FloatArray, rate

BINOMIAL, HUBER_LOG, LEAST_SQUARES = "binomial", "huber-log", "least-squares"
LOSSES = (BINOMIAL, HUBER_LOG, LEAST_SQUARES)
HUBER = 1e-3  # Hoffmann et al. 2022 (arXiv 2203.15556)
STARTING_B, STARTS = (0.1, 0.5, 2.0), 7


def minimise(cells: Cells, loss: str) -> FloatArray:
    """The curve [3] of least loss for one sweep, by L-BFGS-B from many starts, within the estimator's bounds."""
    share = cells.share[0]

    def total(theta: FloatArray) -> float:
        fitted = rate(cells.frequency, theta[None], cells.floor)[0]
        if loss == LEAST_SQUARES:
            return float(((share - fitted) ** 2).sum())
        # A share of 0 has no log; half an item is the least that could have been counted
        least = 0.5 / cells.total[0]
        return float(huber(HUBER, np.log(np.maximum(share, least)) - np.log(np.maximum(fitted, least))).sum())

    bounds = list(zip(cells.lower, cells.upper, strict=True))
    height = np.log(np.clip((share.max() - cells.floor) / (1 - cells.floor), 0.01, 0.99))
    places = np.linspace(np.log(cells.frequency[0]), np.log(cells.frequency[-1]), STARTS)
    found: list[Any] = [
        minimize(total, (height, b, at), method="L-BFGS-B", bounds=bounds) for b in STARTING_B for at in places
    ]
    return np.asarray(min(found, key=lambda fit: float(fit.fun)).x)
