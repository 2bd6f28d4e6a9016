"""Which law predicts: that of the target's own token budget, else the joint one, else another budget's or a size's.

At a measured budget the joint law is narrower but assumes more. Where F* levels off at an E, its 95 % intervals of
7B from six to nine points held F* in 40 to 96 % of simulations, those of the budget's own law in 93 to 100 %.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log

from kisl_plugin.fit import human
from kisl_plugin.fit.laws.data_law import DataLaw
from kisl_plugin.fit.laws.joint import JointLaw
from kisl_plugin.fit.laws.law import FEWEST_MODELS, InfusionLaw
from kisl_plugin.fit.laws.points import OPEN, CollapsePoint, Interval
from kisl_plugin.fit.planner.target import Target

SAME = 0.01  # sizes and budgets that differ by no more are called equal
PAPERS_LAW = (
    "the paper's law knows C alone, but F* falls with N and rises with D: where D changes it can be wrong "
    "(by 0.19 to 0.70 in log F* in simulations), and the effect of D was not measured here"
)


@dataclass(frozen=True, kw_only=True)
class Laws:
    """The laws of a sweep: over N and D, of each token budget (with its D), of each size."""

    joint: JointLaw | None = None
    infusion: Sequence[tuple[int, InfusionLaw]] = ()
    data: Sequence[DataLaw] = ()


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What one law says of the target; `points` are those it was fitted to.

    `interval` is None where the law has none; `interval_missing` then says why.
    """

    f_star: float
    interval: Interval | None
    interval_missing: str
    source: str
    points: tuple[CollapsePoint, ...]
    caveats: tuple[str, ...]


def guess(target: Target, points: Sequence[CollapsePoint], laws: Laws) -> Guess | None:
    """What the law that knows most about the target says; None without a law, or where its F* is no number."""
    found = _guess(target, points, laws)
    return found if found is not None and 0 < found.f_star < inf else None


def same(one: int, other: int) -> bool:
    """Whether two sizes or budgets differ by 1 % at most."""
    return abs(one / other - 1) <= SAME


def _guess(target: Target, points: Sequence[CollapsePoint], laws: Laws) -> Guess | None:
    at_budget = [pair for pair in laws.infusion if same(pair[0], target.tokens)]
    if laws.joint is not None and not any(_known(law.interval(target.compute)) for _, law in at_budget):
        return _joint(target, points, laws.joint)
    of_size = [law for law in laws.data if same(law.params, target.params)]
    if at_budget or (laws.infusion and not of_size):
        tokens, law = min(at_budget or laws.infusion, key=lambda pair: abs(log(pair[0] / target.tokens)))
        return _infusion(target, points, tokens, law)
    return _data(target, points, of_size[0]) if of_size else None


def _joint(target: Target, points: Sequence[CollapsePoint], law: JointLaw) -> Guess:
    found = law.predict(target.params, target.tokens)
    each = ", ".join(f"{form.formula} {form.weight:.0%}" for form in law.forms)
    spread = f"the joint forms ({each}) give F* = {human.interval(*found.spread)}, each before its own error"
    return Guess(
        f_star=found.f_star,
        interval=_known(found.interval),
        interval_missing="the points leave no measure of error",
        source=f"{len(law.forms)} joint laws of N and D through {law.points} collapse points, weighted by AIC",
        points=tuple(points),
        caveats=(spread, *law.caveats),
    )


def _infusion(target: Target, points: Sequence[CollapsePoint], tokens: int, law: InfusionLaw) -> Guess:
    at = human.count(tokens)
    caveats = [] if same(tokens, target.tokens) else [f"every model was trained on D = {at}: {PAPERS_LAW}"]
    interval = _known(law.interval(target.compute))
    if interval and law.models == FEWEST_MODELS:
        caveats.append(f"the interval's errors: {law.interval_method}")
    return Guess(
        f_star=law.predict(target.compute),
        interval=interval,
        interval_missing=law.interval_method.removeprefix("none: "),
        source=f"the infusion law F*(C) of {law.models} models at D = {at}",
        points=_of(points, lambda point: point.tokens == tokens),
        caveats=(*caveats, *law.caveats),
    )


def _data(target: Target, points: Sequence[CollapsePoint], law: DataLaw) -> Guess:
    return Guess(
        f_star=law.predict(target.tokens),
        interval=_known(law.interval(target.tokens)),
        interval_missing="two budgets without intervals of F* leave no measure of error",
        source=f"F*(D) ∝ D^gamma of N = {human.count(law.params)} at {law.points} budgets",
        points=_of(points, lambda point: point.params == law.params),
        caveats=law.caveats,
    )


def _known(interval: Interval) -> Interval | None:
    """The interval with ends that are no positive number open; None where both are."""
    low, high = (end if end is not None and 0 < end < inf else None for end in interval)
    return None if (low, high) == OPEN else (low, high)


def _of(points: Sequence[CollapsePoint], wanted: Callable[[CollapsePoint], bool]) -> tuple[CollapsePoint, ...]:
    return tuple(point for point in points if wanted(point))
