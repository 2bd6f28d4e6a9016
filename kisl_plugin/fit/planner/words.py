"""What is to be said of a prediction: how far it reaches, what it would take, what may be wrong with it."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from kisl_plugin.configs.render import percent
from kisl_plugin.fit import human
from kisl_plugin.fit.laws.law import FEWEST_MODELS
from kisl_plugin.fit.laws.points import CollapsePoint
from kisl_plugin.fit.planner.sources import Guess, same
from kisl_plugin.fit.planner.sweep import Sweep
from kisl_plugin.fit.planner.target import Target
from kisl_plugin.settings import InjectionSettings

MAX_FRACTION = InjectionSettings.max_fraction


def decades_outside(target: Target, points: Sequence[CollapsePoint]) -> float:
    """How far the target's C lies outside the range of the points', in powers of ten; 0 inside, below 0 underneath."""
    over = math.log10(target.compute / max(point.compute for point in points))
    under = math.log10(target.compute / min(point.compute for point in points))
    return over if over > 0 else min(0.0, under)


def distance(target: Target, points: Sequence[CollapsePoint]) -> str:
    """How far outside the measured range of C, in words; N and D are named where they lie outside theirs."""
    decades = decades_outside(target, points)
    said = "inside the measured range of C"
    if decades:
        end = "beyond the largest" if decades > 0 else "below the smallest"
        said = f"{abs(decades):.2g} decades {end} measured C"
    outside = [
        *_outside("N", target.params, [point.params for point in points]),
        *_outside("D", target.tokens, [point.tokens for point in points]),
    ]
    return f"{said} ({', '.join(outside)})" if outside else said


def _outside(name: str, value: int, measured: Sequence[int]) -> Iterator[str]:
    for end, times in ((max(measured), value / max(measured)), (min(measured), min(measured) / value)):
        if times > 1 and not same(value, end):
            which = "largest" if value > end else "smallest"
            by = f"{times:.2g}×" if value > end else f"1/{times:.2g} of"
            yield f"{name} = {human.count(value)} is {by} the {which}, {human.count(end)}"


def what_it_takes(target: Target, points: Sequence[CollapsePoint]) -> str:
    """The runs that a prediction would take, and what is there."""
    takes = (
        f"a prediction takes {FEWEST_MODELS} or more models of different N with a collapse point (status ok) at one D, "
        f"best at D = {human.count(target.tokens)}"
    )
    if not points:
        return f"{takes}; here no model has one"
    tokens = Counter(point.tokens for point in points).most_common(1)[0][0]
    sizes = ", ".join(human.count(params) for params in sorted({p.params for p in points if p.tokens == tokens}))
    return f"{takes}; here D = {human.count(tokens)} has most: {sizes}"


def share_of_budget(fraction: float) -> str:
    """A share of D: `0.15% of D`, `8.3 times D`."""
    return f"{percent(fraction)} of D" if fraction <= 1 else f"{fraction:.2g} times D"


def caveats(
    target: Target, found: Guess, points: Sequence[CollapsePoint], sweep: Sweep, triples: int | None
) -> Iterator[str]:
    """What to know beside the law's own caveats, that it cannot be done first."""
    if sweep.tokens_per_statement is None:
        if triples is not None and found.f_star * triples > target.tokens:
            yield f"not possible: {human.count(found.f_star * triples)} exposures are more than D has tokens"
        yield "the run cards do not say how many tokens a statement has: injected tokens are not known"
    elif triples is not None:
        yield from _of_the_budget(found, triples * sweep.tokens_per_statement / target.tokens)
    for point in points:
        if same(point.params, target.params) and same(point.tokens, target.tokens):
            measured = f"{human.estimate(point.f_star)} (95 %: {human.interval(*point.interval)})"
            yield f"this model was measured: F* = {measured}; a law is for models that were not"
    if found.f_star < 1:
        yield "F* is below 1: a triple stated once is beyond it already"
    if triples is None:
        yield "the run cards do not say how many triples there are: exposures are not known"
    elif sweep.triples not in (None, triples):
        yield (
            f"F* was measured with {sweep.triples:,} triples and no law knows their number: that it holds for "
            f"{triples:,} is an assumption"
        )


def _of_the_budget(found: Guess, share_of_one: float) -> Iterator[str]:
    """`share_of_one`: of the budget, what stating every triple once takes."""
    share, high = found.f_star * share_of_one, found.interval[1] if found.interval else None
    if share > 1:
        yield f"not possible: the statements take {share_of_budget(share)}, more than the whole budget"
    elif share > MAX_FRACTION:
        yield (
            f"not trainable: the statements take {share_of_budget(share)}, and kisl.max_fraction allows "
            f"{MAX_FRACTION:.0%}: fewer triples or more tokens"
        )
    elif high is not None and high * share_of_one > MAX_FRACTION:
        yield f"at the upper end of F* the statements take {share_of_budget(high * share_of_one)}"
