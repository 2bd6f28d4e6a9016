"""Intervals of single shares."""

import numpy as np
from numpy.typing import ArrayLike

from kisl_plugin.fit.curves.likelihood import FloatArray

NORMAL_95 = 1.959963984540054


def wilson(correct: ArrayLike, total: ArrayLike, quantile: ArrayLike = NORMAL_95) -> tuple[FloatArray, FloatArray]:
    """Wilson's intervals of shares, arguments of any shapes that go together; of 95 % with the usual quantile."""
    k, n, z2 = np.asarray(correct), np.asarray(total), np.square(quantile)
    middle = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(k * (n - k) / n + z2 / 4)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)
