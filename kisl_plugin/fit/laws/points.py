"""What a law is fitted to: collapse points and their errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kisl_plugin.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Interval = tuple[float | None, float | None]

OPEN: Interval = (None, None)
NORMAL_95 = 1.959963984540054
FLOPS = 6  # per parameter and token: C = 6·N·D
SMALLEST_ERROR = 1e-3  # a collapse point is not known better than to 0.1 %, whatever its interval says


@dataclass(frozen=True, kw_only=True)
class CollapsePoint:
    """F* of the model with N = `params` trained on D = `tokens`, with its 95 % interval (None: an open end)."""

    params: int
    tokens: int
    f_star: float
    interval: Interval = OPEN

    @property
    def compute(self) -> float:
        """C = 6·N·D floating-point operations."""
        return float(FLOPS * self.params * self.tokens)


def log_errors(f_star: ArrayLike, intervals: Sequence[Interval] | None) -> FloatArray | None:
    """Standard errors [M] of log F* from 95 % intervals; None where no interval is closed on either side.

    With one open end the closed side counts, but no less than the median of the closed intervals.

    Raises:
        InputError: not one interval for each F*, or one that does not hold it.
    """
    values = np.asarray(f_star, dtype=np.float64)
    if intervals is None:
        return None
    if len(intervals) != len(values):
        raise InputError(f"{len(intervals)} intervals for {len(values)} F*; expected one each")
    sides = np.array(
        [_sides(at, float(value), ends) for at, (value, ends) in enumerate(zip(values, intervals, strict=True))]
    )
    whole = sides.mean(axis=1)  # NaN where an end is open
    if not np.isfinite(sides).any():
        return None
    known = whole[np.isfinite(whole)] if np.isfinite(whole).any() else sides[np.isfinite(sides)]
    errors = np.where(np.isfinite(whole), whole, np.fmax(np.fmax(sides[:, 0], sides[:, 1]), np.median(known)))
    return np.asarray(np.maximum(errors / NORMAL_95, SMALLEST_ERROR))


def _sides(at: int, value: float, ends: Interval) -> tuple[float, float]:
    """How far the ends are from F*, in logs; NaN for an open one."""
    low, high = ends
    if (low is not None and not 0 < low <= value) or (high is not None and not value <= high < np.inf):
        raise InputError(f"intervals[{at}] is {ends} around F* = {value:g}; expected low <= F* <= high (None: open)")
    return (
        float("nan") if low is None else float(np.log(value / low)),
        float("nan") if high is None else float(np.log(high / value)),
    )


def positive(name: str, values: ArrayLike, fewest: int = 1) -> FloatArray:
    """A row of finite numbers above 0.

    Raises:
        InputError: it is none, or shorter than `fewest`.
    """
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or len(row) < fewest:
        raise InputError(f"{name} has shape {row.shape}; expected one row of {fewest} or more numbers")
    wrong = ~(np.isfinite(row) & (row > 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(f"{name}[{at}] is {row[at]:g}; expected more than 0")
    return row
