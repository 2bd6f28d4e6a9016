"""What tests a law: models predicted from models of other sizes, and the paper's three signs that it does not hold."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit.collapse_points import CollapsePoint, FloatArray, Interval, Target, log_errors, ray_of
from kisl_plugin.fit.joint import FEWEST_POINTS, fit_joint_law
from kisl_plugin.fit.law import FEWEST_MODELS, law_through
from kisl_plugin.fit.text import NOT_UNIMODAL, OK, OK_IF_RUNS_VARY, count

__all__ = ["HeldOut", "Verdict", "hold_out", "law_verdicts"]

TOLERANCE = 0.20  # of the largest model, predicted from the smaller ones
SIGNIFICANT = 0.05
DRAWS, SEED = 10_000, 2509


@dataclass(frozen=True, kw_only=True)
class HeldOut(Target):
    """A model against a law of models of other sizes, named by `source`; `ratio` = predicted / measured.

    `inside`: whether the intervals of the measured and of the predicted F* agree: the log ratio is within the root of
    the sum of squares of their halves that face each other. None where the prediction has no interval.
    """

    measured: float
    measured_interval: Interval
    predicted: float
    interval: Interval
    ratio: float
    inside: bool | None
    source: str
    words: str


_AGREEMENT = {
    True: "within the intervals",
    False: "outside the intervals",
    None: "without an interval: three models without intervals of F* give no measure of error",
}


def hold_out(points: Sequence[CollapsePoint], params: int) -> tuple[HeldOut, ...]:
    """Predict each model with N = `params` from models of other sizes, largest D first.

    By the infusion law of those at its D where there are three, else by the law in N and D of all of them, else, where
    all were trained on the same D/N, by the infusion law along that ray.

    Raises:
        InputError: no point has that N, or the others make no law.
    """
    own = sorted((point for point in points if point.params == params), key=lambda point: -point.tokens)
    if not own:
        sizes = ", ".join(str(size) for size in sorted({point.params for point in points})) or "none"
        raise InputError(f"hold_out {params}: no collapse point has this N; expected one of {sizes}")
    others = [point for point in points if point.params != params]
    held_out = []
    for point in own:
        models, where = [other for other in others if other.tokens == point.tokens], "at its D"
        joint = None
        if len({other.params for other in models}) < FEWEST_MODELS:
            try:
                joint = fit_joint_law(others)
            except InputError:
                ratio = ray_of([point, *others])
                if ratio is None or len({other.params for other in others}) < FEWEST_MODELS:
                    continue
                models, where = others, f"along D = {ratio:.3g}·N"
        if joint:
            predicted, (low, high), _ = joint.predict(point.params, point.tokens)
            source = f"the law of N and D of {len(others)} models of other sizes"
        else:
            law = law_through(models)
            predicted, (low, high) = law.predict(point.compute), law.interval(point.compute)
            source = f"the infusion law F*(C) of {law.models} other models {where}"
        ratio, inside = float(predicted / point.f_star), None
        if low is not None and high is not None:
            # The halves of the two intervals that face each other add as standard errors do
            measured, end = (point.interval[1], low) if ratio > 1 else (point.interval[0], high)
            half = math.inf if measured is None else math.log(measured / point.f_star)
            inside = abs(math.log(ratio)) <= math.hypot(half, math.log(end / predicted))
        missed = "exactly" if ratio == 1 else f"{abs(ratio - 1) * 100:.1f} % too {'high' if ratio > 1 else 'low'}"
        held_out.append(
            HeldOut(
                params=point.params,
                tokens=point.tokens,
                measured=float(point.f_star),
                measured_interval=point.interval,
                predicted=predicted,
                interval=(low, high),
                ratio=ratio,
                inside=inside,
                source=source,
                words=f"predicted {missed}, {_AGREEMENT[inside]}",
            )
        )
    if not held_out:
        raise InputError(
            f"hold_out {params}: the other sizes make no law; it needs collapse points of {FEWEST_MODELS} of them at "
            f"one D or one D/N, or {FEWEST_POINTS} of two N and two D"
        )
    return tuple(held_out)


@dataclass(frozen=True)
class Verdict:
    """`passed` is None where the data cannot tell."""

    name: str
    passed: bool | None
    sentence: str


def law_verdicts(statuses: Sequence[str], points: Sequence[CollapsePoint]) -> tuple[Verdict, Verdict, Verdict]:
    """Whether curves are unimodal, F* falls with size, and the law extrapolates.

    Args:
        statuses: of all curves. The first verdict fails where one is rejected by its order-restricted test.
        points: the collapse points of the curves that are ok.
    """
    rejected, fine = statuses.count(NOT_UNIMODAL), statuses.count(OK) + statuses.count(OK_IF_RUNS_VARY)
    passed, sentence = None, "no curve shows a collapse"
    if rejected:
        passed, sentence = False, f"not unimodal: {rejected} of {len(statuses)} curves"
    elif fine:
        passed, sentence = True, f"{fine} of {len(statuses)} curves rise, then fall; none rises again beyond chance"
    unimodal = Verdict("unimodal curves", passed, sentence)

    budgets: dict[int, list[CollapsePoint]] = defaultdict(list)
    for point in sorted(points, key=lambda point: (point.tokens, point.params)):
        budgets[point.tokens].append(point)

    # Fails where the law of the smaller models misses the largest one of any D, or of a ray, by more than 20 %
    passed, sentence = (
        None,
        f"no D and no D/N has {FEWEST_MODELS + 1} sizes, the largest to be predicted from the others",
    )
    groups = [*budgets.values(), *([points] if ray_of(points) else [])]
    enough = [group for group in groups if len({point.params for point in group}) > FEWEST_MODELS]
    if enough:
        largest = [hold_out(group, max(point.params for point in group))[0] for group in enough]
        worst = max(largest, key=lambda model: abs(model.ratio - 1))
        passed, model = abs(worst.ratio - 1) <= TOLERANCE, f"N = {count(worst.params)} at D = {count(worst.tokens)}"
        sentence = f"{model}, left out: {worst.words}; ±{100 * TOLERANCE:.0f} % is allowed"
        if not passed and worst.inside:
            sentence += ", but the errors alone may miss by as much"
    falls = Verdict("F* falls with size", *_falls_with_size(list(budgets.values())))
    return unimodal, falls, Verdict("extrapolation", passed, sentence)


def _falls_with_size(budgets: Sequence[Sequence[CollapsePoint]]) -> tuple[bool | None, str]:
    """Failed where F* rises with N at one D, passed where it falls, beyond the errors at p < 0.05; and in words."""
    several = [group for group in budgets if len({point.params for point in group}) > 1]
    if not several:
        return None, "no D has collapse points of two sizes"
    errors = [log_errors([p.f_star for p in group], [p.interval for p in group]) for group in several]
    measured = [(error, group) for error, group in zip(errors, several, strict=True) if error is not None]
    if not measured:
        return None, "no interval of F* is known, so a rise cannot be distinguished from chance"
    # Bonferroni over the D
    rise, fall = (min(1.0, len(measured) * min(_p_of_change(*pair, way) for pair in measured)) for way in (1, -1))
    if rise < SIGNIFICANT:
        return False, f"F* rises with N at one D beyond its errors (p = {rise:.2g})"
    if fall < SIGNIFICANT:
        return True, f"F* falls with N at one D (p = {fall:.2g}); no rise beyond the errors (p = {rise:.2g})"
    return None, f"the errors show neither a rise (p = {rise:.2g}) nor a fall (p = {fall:.2g}) with N"


def _p_of_change(errors: FloatArray, group: Sequence[CollapsePoint], way: int) -> float:
    """The p-value of "no two sizes differ" against a rise (1) or a fall (-1) from a smaller to a larger size."""
    # The statistic is the largest (difference of log F*) / (its error) of all pairs of sizes; its distribution, were
    # all F* the same, is drawn.
    larger = np.array([[b.params > a.params for b in group] for a in group])
    scale = np.where(larger, np.hypot(errors[:, None], errors), np.inf)

    def largest_change(y: FloatArray) -> FloatArray:
        return np.asarray(((y[:, None, :] - y[:, :, None]) / scale).max(axis=(1, 2)))

    observed = largest_change(way * np.log([point.f_star for point in group])[None])[0]
    null = np.random.default_rng(SEED).normal(size=(DRAWS, len(group))) * errors
    return float((1 + (largest_change(null) >= observed).sum()) / (1 + DRAWS))
