"""From collapse points to laws: of each token budget, of each size, jointly; what was held out, and the verdicts."""

import math
from collections import defaultdict
from collections.abc import Sequence

from kisl_plugin.errors import InputError
from kisl_plugin.fit.human import count
from kisl_plugin.fit.laws.data_law import FEWEST_BUDGETS, DataLaw, fit_data_law
from kisl_plugin.fit.laws.hold_out import HeldOut, hold_out
from kisl_plugin.fit.laws.joint import JointLaw, fit_joint_law
from kisl_plugin.fit.laws.law import FEWEST_MODELS, fit_infusion_law
from kisl_plugin.fit.laws.points import CollapsePoint
from kisl_plugin.fit.report.gathered import CurveReport, LawReport


def collapse_points(curves: Sequence[CurveReport]) -> tuple[CollapsePoint, ...]:
    """The points that laws are fitted to: of the curves whose status is ok."""
    return tuple(
        CollapsePoint(
            params=found.params,
            tokens=found.tokens,
            f_star=found.curve.f_star,
            interval=found.curve.f_star_interval,
        )
        for found in curves
        if found.curve.ok
    )


def infusion_laws(curves: Sequence[CurveReport], points: Sequence[CollapsePoint]) -> tuple[LawReport, ...]:
    """One per token budget that was trained on, the one with most sizes first."""
    laws = [_law(tokens, [p for p in points if p.tokens == tokens]) for tokens in {found.tokens for found in curves}]
    return tuple(sorted(laws, key=lambda law: (len(law.params), law.tokens), reverse=True))


def _law(tokens: int, points: Sequence[CollapsePoint]) -> LawReport:
    params = tuple(point.params for point in points)
    if len(points) < FEWEST_MODELS:
        return LawReport(tokens=tokens, params=params, law=None)
    law = fit_infusion_law(
        [point.compute for point in points],
        [point.f_star for point in points],
        [point.interval for point in points],
    )
    return LawReport(tokens=tokens, params=params, law=law)


def data_laws(points: Sequence[CollapsePoint]) -> tuple[DataLaw, ...]:
    """F*(D) of each size that has collapse points at two token budgets or more."""
    sizes: dict[int, list[CollapsePoint]] = defaultdict(list)
    for point in points:
        sizes[point.params].append(point)
    return tuple(
        fit_data_law(at) for _, at in sorted(sizes.items()) if len({point.tokens for point in at}) >= FEWEST_BUDGETS
    )


def joint_law(points: Sequence[CollapsePoint]) -> tuple[JointLaw | None, str]:
    """The law in N and D where the points bear one; else, where both vary, what it takes."""
    try:
        return fit_joint_law(points), ""
    except InputError as reason:
        vary = min(len({point.params for point in points}), len({point.tokens for point in points})) > 1
        return None, f"no law in N and D: {reason}" if vary else ""


def held_out(points: Sequence[CollapsePoint], params: float | None) -> tuple[HeldOut, ...]:
    """What the other sizes predict of the size nearest to `params`; nothing where None.

    Raises:
        InputError: there are too few other sizes.
    """
    if params is None:
        return ()
    sizes = sorted({point.params for point in points})
    if not sizes:
        raise InputError(f"--hold-out {params:g}: no model has a collapse point (status ok) that could be held out")
    nearest = min(sizes, key=lambda size: abs(math.log(size / params)))
    try:
        return hold_out(points, nearest)
    except InputError as error:
        raise InputError(f"--hold-out {params:g}: N = {count(nearest)} is nearest; {error}") from None
