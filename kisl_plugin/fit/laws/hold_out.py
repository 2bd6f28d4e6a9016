"""Predict what the law did not see, and by how much it missed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit.laws.joint import FEWEST_POINTS, fit_joint_law
from kisl_plugin.fit.laws.law import FEWEST_MODELS, fit_infusion_law
from kisl_plugin.fit.laws.points import CollapsePoint, Interval


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
