"""Which law predicts: the joint one where there is one, else the law of a token budget, else that of a size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from kisl_plugin.fit import human
from kisl_plugin.fit.laws.points import CollapsePoint, Interval
from kisl_plugin.fit.planner.target import Target

if TYPE_CHECKING:
    from kisl_plugin.fit.laws.data_law import DataLaw
    from kisl_plugin.fit.laws.joint import JointLaw
    from kisl_plugin.fit.laws.law import InfusionLaw

SAME = 0.01  # sizes and budgets that differ by less are called equal
PAPERS_LAW = (
    "the paper's law knows C alone, but F* falls with N and rises with D: where D changes it can be wrong "
    "(by 0.19 to 0.70 in log F* in simulations), and the effect of D was not measured here"
)


@dataclass(frozen=True, kw_only=True)
class Laws:
    """The laws of a sweep: `infusion` by token budget, `data` by parameters."""

    joint: "JointLaw | None" = None
    infusion: Sequence[tuple[int, "InfusionLaw"]] = ()
    data: Sequence[tuple[int, "DataLaw"]] = ()


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What one law says of the target; `points` are those it was fitted to."""

    f_star: float
    interval: Interval | None
    source: str
    points: tuple[CollapsePoint, ...]
    caveats: tuple[str, ...]

    @property
    def interval_missing(self) -> str:
        """Why there is no interval; empty where there is one."""
        if self.interval is not None:
            return ""
        models = len({(point.params, point.tokens) for point in self.points})
        return f"{models} models are too few to judge the law's error by"


def guess(target: Target, points: Sequence[CollapsePoint], laws: Laws) -> Guess | None:
    """What the law that knows most about the target says; None without a law."""
    if laws.joint is not None:
        return _joint(target, points, laws.joint)
    at_budget = [pair for pair in laws.infusion if same(pair[0], target.tokens)]
    of_size = [pair for pair in laws.data if same(pair[0], target.params)]
    if at_budget or (laws.infusion and not of_size):
        tokens, law = min(at_budget or laws.infusion, key=lambda pair: abs(log(pair[0] / target.tokens)))
        return _infusion(target, points, tokens, law)
    if of_size:
        return _data(target, points, *of_size[0])
    return None


def same(one: int, other: int) -> bool:
    """Whether two sizes or budgets differ by 1 % at most."""
    return abs(one / other - 1) <= SAME


def _joint(target: Target, points: Sequence[CollapsePoint], law: "JointLaw") -> Guess:
    f_star, interval, spread = law.predict(target.params, target.tokens)
    forms = f"{len(law.forms)} joint forms in N and D, weighted by AIC"
    told = f"the joint forms differ: {human.interval(*spread)}"
    return Guess(f_star=f_star, interval=interval, source=forms, points=tuple(points), caveats=(told, *law.caveats))


def _infusion(target: Target, points: Sequence[CollapsePoint], tokens: int, law: "InfusionLaw") -> Guess:
    used = _of(points, lambda point: point.tokens == tokens)
    at = human.count(tokens)
    elsewhere = () if same(tokens, target.tokens) else (f"all of it was measured at D = {at}: {PAPERS_LAW}",)
    return Guess(
        f_star=law.predict(target.compute),
        interval=law.interval(target.compute),
        source=f"the infusion law F*(C) of {law.models} models at D = {at}",
        points=used,
        caveats=(*elsewhere, *law.caveats),
    )


def _data(target: Target, points: Sequence[CollapsePoint], params: int, law: "DataLaw") -> Guess:
    return Guess(
        f_star=law.predict(target.tokens),
        interval=law.interval(target.tokens),
        source=f"F*(D) ∝ D^gamma of N = {human.count(params)}",
        points=_of(points, lambda point: point.params == params),
        caveats=law.caveats,
    )


def _of(points: Sequence[CollapsePoint], wanted: Callable[[CollapsePoint], bool]) -> tuple[CollapsePoint, ...]:
    return tuple(point for point in points if wanted(point))
