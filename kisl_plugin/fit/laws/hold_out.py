"""Predict what the law did not see, and by how much it missed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit.laws.law import FEWEST_MODELS, fit_infusion_law
from kisl_plugin.fit.laws.points import CollapsePoint, Interval


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The model with N, D against the law of the others at its D: `ratio` = predicted / measured.

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
    words: str


def hold_out(points: Sequence[CollapsePoint], params: int) -> tuple[HeldOut, ...]:
    """Predict each model with N = `params` by the law of the other models at its D, largest D first.

    Raises:
        InputError: no point has that N, or no D is left with three other sizes.
    """
    asked = sorted((point for point in points if point.params == params), key=lambda point: -point.tokens)
    if not asked:
        there = ", ".join(str(size) for size in sorted({point.params for point in points})) or "none"
        raise InputError(f"hold_out {params}: no collapse point has this N; expected one of {there}")
    found = [held for point in asked if (held := _held(point, points))]
    if not found:
        raise InputError(
            f"hold_out {params}: no D has {FEWEST_MODELS} other sizes with a collapse point to predict from"
        )
    return tuple(found)


def _held(point: CollapsePoint, points: Sequence[CollapsePoint]) -> HeldOut | None:
    rest = [other for other in points if other.tokens == point.tokens and other.params != point.params]
    if len({other.params for other in rest}) < FEWEST_MODELS:
        return None
    law = fit_infusion_law(
        [other.compute for other in rest], [other.f_star for other in rest], [other.interval for other in rest]
    )
    predicted, interval = law.predict(point.compute), law.interval(point.compute)
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
        words=_words(ratio, inside),
    )


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
