"""The best F of a model that was not trained, from the laws of those that were."""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit import text as human
from kisl_plugin.fit.joint import DataLaw, JointLaw
from kisl_plugin.fit.law import FEWEST_MODELS, InfusionLaw
from kisl_plugin.fit.law_estimate import OPEN, CollapsePoint, Interval
from kisl_plugin.fit.text import UNITS
from kisl_plugin.grid import percent
from kisl_plugin.plan import InjectionSettings
from kisl_plugin.runcard import RunCard

# The model and the budget that a prediction is asked for: `params=7e9,tokens=2e12`.

EXAMPLE = "params=7e9,tokens=2e12 (or 7B, 2T)"
KEYS = ("params", "tokens")
LARGEST = 1e18  # beyond any model or corpus: a slip of the finger
_POWERS = {unit: round(math.log10(size)) for size, unit in UNITS}


@dataclass(frozen=True)
class Target:
    """A model of N = `params` parameters (all of them) to be trained on D = `tokens` tokens."""

    params: int
    tokens: int

    @property
    def compute(self) -> float:
        """C = 6·N·D floating-point operations."""
        return 6.0 * self.params * self.tokens


def parse_target(text: str) -> Target:
    """Read `params=N,tokens=D`; numbers as 7e9, 7B, 1.05b or 2T.

    Raises:
        InputError: a key is unknown, twice there or missing, or its value is no whole number of at least 1.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or key not in KEYS:
            raise InputError(
                f"--predict {text!r}: {part.strip()!r} is not one of params=… and tokens=…; give {EXAMPLE}"
            )
        if key in found:
            raise InputError(f"--predict {text!r}: {key} is given twice; give {EXAMPLE}")
        found[key] = _count(value, key, text)
    for key in KEYS:
        if key not in found:
            raise InputError(f"--predict {text!r}: {key} is missing; give {EXAMPLE}")
    return Target(found["params"], found["tokens"])


def parse_triples(text: str) -> int:
    """Read a number of triples: 100000, 1e5, 100K.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    return _whole(text, f"--triples {text!r}", "1e5 or 100K")


def parse_size(text: str) -> int:
    """Read a number of parameters: 3000000000, 1.05e9, 3B.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    return _whole(text, f"--hold-out {text!r}", "1.05e9 or 3B")


def _count(value: str, key: str, text: str) -> int:
    return _whole(value, f"--predict {text!r}: {key} is {value!r}", EXAMPLE)


def _whole(value: str, said: str, example: str) -> int:
    try:
        number = _number(value)
    except ValueError:
        raise InputError(f"{said}; expected a number such as {example}") from None
    if not (1 <= number <= LARGEST and number == int(number)):  # NaN is not
        raise InputError(f"{said}; expected a whole number from 1 to {LARGEST:g}, such as {example}")
    return int(number)


def _number(text: str) -> float:
    power = _POWERS.get(text[-1:].upper())
    # Not 1.05 × 1e9, which floating point makes 1,050,000,000.0000001
    return float(text) if power is None else float(f"{text[:-1].strip()}e{power}")


# What is predicted for a model that was not trained.


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The best F of a model with N = `params` trained on D = `tokens`, and what it costs.

    `f_star` is None where no law reaches so far: `words` then say what it takes. `interval` is the 95 % interval
    (None at an open end); where there is none, `interval_missing` says why. `source` names the law. `decades` is how
    far C lies outside the range that the law was fitted to, in powers of ten (0 inside); `words` says so.
    `triples` are those planned, `tokens_per_statement` is the sweep's mean (None: its run cards do not say it).
    """

    params: int
    tokens: int
    compute: float
    f_star: float | None
    interval: Interval | None
    interval_missing: str
    source: str
    decades: float | None
    words: str
    triples: int | None
    tokens_per_statement: float | None
    caveats: tuple[str, ...]

    @property
    def exposures(self) -> float | None:
        """F* × triples."""
        return None if self.f_star is None or self.triples is None else self.f_star * self.triples

    @property
    def injected_tokens(self) -> float | None:
        """Statement tokens over the run."""
        if self.exposures is None or self.tokens_per_statement is None:
            return None
        return self.exposures * self.tokens_per_statement

    @property
    def injected_fraction(self) -> float | None:
        """Their share of D."""
        return None if self.injected_tokens is None else self.injected_tokens / self.tokens

    @property
    def ends(self) -> str:
        """The interval in words: `95 %: 21.0–58.9`."""
        if self.interval is None:
            return f"no interval: {self.interval_missing}"
        return f"95 %: {human.interval(*self.interval)}"

    @property
    def headline(self) -> str:
        """The prediction in one line, never without its interval."""
        model = f"N = {human.count(self.params)}, D = {human.count(self.tokens)}"
        if self.f_star is None:
            return f"no F* for {model}"
        return f"F* = {human.estimate(self.f_star)} ({self.ends}) for {model}"


# Which law predicts: that of the target's own token budget, else the joint one, else another budget's or a size's.
#
# At a measured budget the joint law is narrower but assumes more. Where F* levels off at an E, its 95 % intervals of
# 7B from six to nine points held F* in 40 to 96 % of simulations, those of the budget's own law in 93 to 100 %.

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


# What the runs of a sweep have in common, from their run cards.


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How the sweep injected: of each, what most of its run cards say (None: none says it).

    `triples` is the number of injected triples, `tokens_per_statement` the mean over the cards, `vocabulary` padded.
    """

    triples: int | None = None
    tokens_per_statement: float | None = None
    source: str | None = None
    form: str | None = None
    template: int | tuple[int, ...] | None = None
    spacing: str | None = None
    window: tuple[float, float] | None = None
    seq_length: int | None = None
    vocabulary: int | None = None


def sweep_of(cards: Iterable[RunCard]) -> Sweep:
    """What the run cards of a sweep say, those of runs without injection left out."""
    injected = [card for card in cards if _exposures(card) > 0]
    # Of the optional keys nothing was checked when the card was read
    tokens = [(card.injected_tokens, _exposures(card)) for card in injected if isinstance(card.injected_tokens, int)]
    lengths = [spent / exposures for spent, exposures in tokens if spent > 0]
    return Sweep(
        triples=_most((card.triples["count"] for card in injected), int),
        tokens_per_statement=sum(lengths) / len(lengths) if lengths else None,
        source=_most((card.triples.get("source") for card in injected), str),
        form=_most((card.form for card in injected), str),
        template=_most((_template(card) for card in injected), (int, tuple)),
        spacing=_most((card.spacing for card in injected), str),
        window=_most((_window(card) for card in injected), tuple),
        seq_length=_most((card.seq_length for card in injected), int) or None,
        vocabulary=_most((card.model.get("vocab_size") for card in injected), int) or None,
    )


def _exposures(card: RunCard) -> int:
    if card.groups is not None:
        return sum(group["frequency"] * group["count"] for group in card.groups.values())
    return (card.frequency or 0) * int(card.triples["count"])


def _template(card: RunCard) -> int | tuple[int, ...] | None:
    return tuple(card.template) if isinstance(card.template, list) else card.template


def _window(card: RunCard) -> tuple[float, float] | None:
    match card.window:
        case [int() | float() as start, int() | float() as end]:
            return float(start), float(end)
    return None


def _most(values: Iterable[Any], kind: type | tuple[type, ...]) -> Any:
    """The value that is there most often, among those of the right kind."""
    found = Counter(value for value in values if isinstance(value, kind)).most_common(1)
    return found[0][0] if found else None


# What is to be said of a prediction: how far it reaches, what it would take, what may be wrong with it.

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


# The best F of a model that was not trained, from the laws of those that were.


def predict(
    target: Target, points: Sequence[CollapsePoint], laws: Laws, sweep: Sweep, triples: int | None = None
) -> Prediction:
    """Predict F*, and what it costs to inject `triples` (as many as the sweep's where None).

    `points` are those that the laws were fitted to. Without a law there is no number: `words` say what it takes.
    """
    found = guess(target, points, laws)
    planned = sweep.triples if triples is None else triples
    if found is None:
        return _nothing(target, points, planned, sweep)
    return Prediction(
        params=target.params,
        tokens=target.tokens,
        compute=target.compute,
        f_star=found.f_star,
        interval=found.interval,
        interval_missing="" if found.interval else found.interval_missing,
        source=found.source,
        decades=abs(decades_outside(target, found.points)),
        words=distance(target, found.points),
        triples=planned,
        tokens_per_statement=sweep.tokens_per_statement,
        caveats=(*caveats(target, found, points, sweep, planned), *found.caveats),
    )


def _nothing(target: Target, points: Sequence[CollapsePoint], triples: int | None, sweep: Sweep) -> Prediction:
    return Prediction(
        params=target.params,
        tokens=target.tokens,
        compute=target.compute,
        f_star=None,
        interval=None,
        interval_missing="there is no law",
        source="no law",
        decades=None,
        words=what_it_takes(target, points),
        triples=triples,
        tokens_per_statement=sweep.tokens_per_statement,
        caveats=(),
    )


# A prediction as lines for a terminal and as JSON.

WIDTH = 80
INDENT = 19


def render(prediction: Prediction) -> str:
    """Lines of at most 80 columns: the prediction, what it costs, how far it reaches, what may be wrong with it."""
    model = f"N = {human.count(prediction.params)}, D = {human.count(prediction.tokens)}"
    rows = [("best F", _best(prediction)), *_costs(prediction)]
    if prediction.f_star is not None:
        rows += [("by", prediction.source), ("reach", prediction.words)]
    lines = [f"Prediction for {model} (C = {prediction.compute:.3g})", *(_row(*row) for row in rows)]
    return "\n".join([*lines, *map(_caveat, prediction.caveats)])


def as_json(prediction: Prediction) -> dict[str, Any]:
    """The prediction as fit.json holds it: null where a value is not known."""
    return {
        "params": prediction.params,
        "tokens": prediction.tokens,
        "compute": prediction.compute,
        "f_star": _finite(prediction.f_star),
        "f_star_interval": prediction.interval and [_finite(end) for end in prediction.interval],
        "interval_missing": prediction.interval_missing or None,
        "source": prediction.source,
        "decades": _finite(prediction.decades),
        "words": prediction.words,
        "triples": prediction.triples,
        "exposures": _finite(prediction.exposures),
        "injected_tokens": _finite(prediction.injected_tokens),
        "injected_fraction": _finite(prediction.injected_fraction),
        "caveats": list(prediction.caveats),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _best(prediction: Prediction) -> str:
    if prediction.f_star is None:
        return f"not known: {prediction.words}"
    return f"{human.estimate(prediction.f_star)} ({prediction.ends})"


def _costs(prediction: Prediction) -> list[tuple[str, str]]:
    rows = []
    if prediction.exposures is not None:
        rows.append(("exposures", f"{human.count(prediction.exposures)}: F × {prediction.triples:,} triples"))
    if prediction.injected_tokens is not None and prediction.injected_fraction is not None:
        share = share_of_budget(prediction.injected_fraction)
        rows.append(("injected tokens", f"{human.count(prediction.injected_tokens)}, {share}"))
    return rows


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name}".ljust(INDENT), subsequent_indent=" " * INDENT)


def _caveat(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
