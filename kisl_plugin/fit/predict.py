"""The best F of a model that was not trained, from the laws of those that were.

Hidden here: which law predicts what, and what has to be said with the number. At a measured token budget it is that
budget's own law. The joint law is narrower there but assumes more: where F* levels off at an E, its 95 % intervals of
7B from six to nine points held F* in 40 to 96 % of simulations, those of the budget's own law in 93 to 100 %.
"""

import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.fit import text as human
from kisl_plugin.fit.collapse_points import OPEN, RAY, CollapsePoint, Interval, Target
from kisl_plugin.fit.joint import JointLaw
from kisl_plugin.fit.law import FEWEST_MODELS, InfusionLaw
from kisl_plugin.fit.text import count, share_of_budget
from kisl_plugin.grid import GRID, TINY, Facts, Run, yaml_of
from kisl_plugin.llama import DEMO_VOCABULARY, VOCABULARY, model_of
from kisl_plugin.plan import InjectionSettings, read_settings
from kisl_plugin.runcard import RunCard
from kisl_plugin.schedule import MOST_SAMPLES

__all__ = ["MeasuredSweep", "Prediction", "parse_count", "parse_target", "predict", "sweep_of", "write_configs"]

EXAMPLE = "params=7e9,tokens=2e12 (or 7B, 2T)"
LARGEST = 10**18  # parameters, tokens or triples: beyond any model or corpus
SAME = 0.01  # sizes and budgets that differ by no more are called equal
MAX_FRACTION = InjectionSettings.max_fraction
GAMMAS = 0.0, 1.5  # d log F* / d log D where it was not measured; the paper says that F* rises more than D does


def parse_target(text: str) -> Target:
    """Read `params=N,tokens=D`; numbers as 7e9, 7B, 1.05b or 2T.

    Raises:
        InputError: a key is unknown, repeated or missing, or its value is not a whole number of at least 1.
    """
    values: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in ("params", "tokens") or key in values:
            problem = "is given twice" if key in values else "is not one of params=… and tokens=…"
            raise InputError(f"--predict {text!r}: {part.strip()!r} {problem}; give {EXAMPLE}")
        values[key] = parse_count(value, f"--predict {text!r}: {key} is {value!r}", EXAMPLE)
    for key in {"params", "tokens"} - set(values):
        raise InputError(f"--predict {text!r}: {key} is missing; give {EXAMPLE}")
    return Target(**values)


def parse_count(text: str, where: str, example: str) -> int:
    """Read a whole number: 3000000000, 1.05e9, 3B. `where` and `example` are for the message.

    Raises:
        InputError: it is not a whole number of at least 1.
    """
    number = human.read_number(text)
    if number is None:
        raise InputError(f"{where}; expected a number such as {example}")
    value = number[0] * number[1]
    if not 1 <= value <= LARGEST or value != int(value):
        raise InputError(f"{where}; expected a whole number from 1 to {float(LARGEST):g}, such as {example}")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class MeasuredSweep:
    """How the sweep injected: for each field the value that most of its run cards have (None: none has it).

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


def sweep_of(cards: Iterable[RunCard]) -> MeasuredSweep:
    """Summarise the run cards of a sweep, those of runs without injection left out."""
    values: dict[str, Counter[Any]] = defaultdict(Counter)
    lengths = []
    for card in cards:
        groups = card.groups or {"": {"frequency": card.frequency or 0, "count": int(card.triples["count"])}}
        exposures = sum(group["frequency"] * group["count"] for group in groups.values())
        if not exposures:
            continue
        # The optional keys of a card are of any type: what is of the wrong kind is left out
        if isinstance(card.injected_tokens, int) and card.injected_tokens > 0:
            lengths.append(card.injected_tokens / exposures)
        window, template = None, card.template
        match card.window:
            case [int() | float() as start, int() | float() as end]:
                window = float(start), float(end)
        for name, value, kinds in (
            ("triples", card.triples["count"], int),
            ("source", card.triples.get("source"), str),
            ("form", card.form, str),
            ("template", tuple(template) if isinstance(template, list) else template, int | tuple),
            ("spacing", card.spacing, str),
            ("window", window, tuple),
            ("seq_length", card.seq_length or None, int),
            ("vocabulary", card.model.get("vocab_size") or None, int),
        ):
            if isinstance(value, kinds):
                values[name][value] += 1
    most = {name: counter.most_common(1)[0][0] for name, counter in values.items()}
    return MeasuredSweep(tokens_per_statement=sum(lengths) / len(lengths) if lengths else None, **most)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The best F of a model with N = `params` trained on D = `tokens`, and what it costs.

    `f_star` is None where no law reaches so far: `words` then say what is needed. `interval` is the 95 % interval
    (None at an open end); where there is none, `interval_missing` says why. `source` names the law. `decades` is how
    far C lies outside the range that the law was fitted to, in powers of ten (0 inside); `words` says so.
    `triples` are those planned, `exposures` F* × triples, `injected_tokens` their tokens over the run and
    `injected_fraction` the share of D that those take (None where the run cards do not say it).
    """

    params: int
    tokens: int
    compute: float
    f_star: float | None = None
    interval: Interval | None = None
    interval_missing: str = "there is no law"
    source: str = "no law"
    decades: float | None = None
    words: str = ""
    triples: int | None
    exposures: float | None = None
    injected_tokens: float | None = None
    injected_fraction: float | None = None
    caveats: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """F* with its interval, or why it has none."""
        if self.f_star is None or self.interval is None:
            value = "no F*" if self.f_star is None else f"F* = {human.estimate(self.f_star)}"
            return f"{value} (no interval: {self.interval_missing})"
        return human.f_star_in_words(self.f_star, self.interval)

    @property
    def headline(self) -> str:
        """The prediction in one line, always with its interval."""
        return f"{self.in_words} for N = {human.count(self.params)}, D = {human.count(self.tokens)}"


@dataclass(frozen=True, kw_only=True)
class Laws:
    """The laws of a sweep: over N and D, of each token budget (with its D), of each size, along a ray (with D/N)."""

    joint: JointLaw | None = None
    ray: tuple[float, InfusionLaw] | None = None
    infusion: Sequence[tuple[int, InfusionLaw]] = ()
    data: Sequence[JointLaw] = ()


def same(one: int, other: int) -> bool:
    """Whether two sizes or budgets differ by 1 % at most."""
    return abs(one / other - 1) <= SAME


def predict(
    target: Target, points: Sequence[CollapsePoint], laws: Laws, sweep: MeasuredSweep, triples: int | None = None
) -> Prediction:
    """Predict F*, and what it costs to inject `triples` (as many as the sweep's where None).

    By the law of the target's own budget, else the joint law, else the law along its ray or of its own size. `points`
    are those that the laws were fitted to. Without such a law, or where its F* is not a number, there is no prediction:
    `words` say what is needed, and what another budget's law gives there.
    """
    prediction = Prediction(
        params=target.params,
        tokens=target.tokens,
        compute=target.compute,
        triples=sweep.triples if triples is None else triples,
    )
    at_budget = [pair for pair in laws.infusion if same(pair[0], target.tokens)]
    of_size = [law for law in laws.data if same(law.params, target.params)]
    f_star, ends, source, missing, fitted = math.nan, OPEN, "", "", points
    ratio = target.tokens / target.params
    along_ray = laws.ray[1] if laws.ray and max(laws.ray[0] / ratio, ratio / laws.ray[0]) <= RAY else None
    caveats: tuple[str, ...] = ()
    if laws.joint is not None and not any(_usable(law.interval(target.compute)) for _, law in at_budget):
        joint = laws.joint
        f_star, ends, spread = joint.predict(target.params, target.tokens)
        forms = ", ".join(f"{form.formula} {human.whole_percent(form.weight)}" for form in joint.forms)
        each = f"the joint forms ({forms}) give F* = {human.interval(*spread)}, before their own errors"
        caveats = (each, *joint.caveats)
        source = f"{len(joint.forms)} joint laws of N and D through {joint.points} collapse points, weighted by AIC"
        missing = "the points give no measure of error"
    elif law := at_budget[0][1] if at_budget else along_ray:
        where = f"along D = {ratio:.3g}·N"
        if at_budget:
            tokens = at_budget[0][0]
            fitted, where = [point for point in points if point.tokens == tokens], f"at D = {human.count(tokens)}"
        f_star, ends = law.predict(target.compute), law.interval(target.compute)
        source = f"the infusion law F*(C) of {law.models} models {where}"
        missing, caveats = law.interval_method.removeprefix("none: "), law.caveats
        if _usable(ends) and law.models == FEWEST_MODELS:
            caveats = (f"errors of the interval: {law.interval_method}", *caveats)
    elif laws.infusion and not of_size:
        return replace(
            prediction,
            words=_at_another_budget(target, laws.infusion),
            interval_missing="the effect of D was not measured",
        )
    elif of_size:
        own = of_size[0]
        f_star, ends, _ = own.predict(target.params, target.tokens)
        fitted = [point for point in points if point.params == own.params]
        source = f"F*(D) ∝ D^gamma of N = {human.count(own.params)} at {own.points} budgets"
        missing, caveats = "two budgets without intervals of F* give no measure of error", own.caveats
    if not 0 < f_star < math.inf:
        tokens, _ = next(iter(Counter(point.tokens for point in points).most_common(1)), (0, 0))
        sizes = sorted(point.params for point in points if point.tokens == tokens)
        return replace(prediction, words=human.needs_sizes(FEWEST_MODELS, sizes, tokens))
    decades, words = _distance(target, fitted)
    interval, tokens_each = _usable(ends), sweep.tokens_per_statement
    exposures = None if prediction.triples is None else f_star * prediction.triples
    injected = None if exposures is None or tokens_each is None else exposures * tokens_each
    prediction = replace(
        prediction,
        f_star=f_star,
        interval=interval,
        interval_missing="" if interval else missing,
        source=source,
        decades=decades,
        words=words,
        exposures=exposures,
        injected_tokens=injected,
        injected_fraction=None if injected is None else injected / target.tokens,
    )
    return replace(prediction, caveats=(*_caveats(prediction, points, sweep), *caveats))


def _at_another_budget(target: Target, laws: Sequence[tuple[int, InfusionLaw]]) -> str:
    """F* of the target's N at the nearest measured D, and the range it may have at its own D."""
    tokens, law = min(laws, key=lambda pair: abs(math.log(pair[0] / target.tokens)))
    at = Target(target.params, tokens).compute
    f_star, ends = law.predict(at), law.interval(at)
    factors = sorted((target.tokens / tokens) ** gamma for gamma in GAMMAS)
    low, high = (factor * (f_star if end is None else end) for factor, end in zip(factors, ends, strict=True))
    models, least, most = f"the infusion law F*(C) of {law.models} models", *GAMMAS
    return (
        f"the effect of D was not measured. For this N at D = {human.count(tokens)} {models} gives "
        f"{human.f_star_in_words(f_star, ends)}; at D = {human.count(target.tokens)} F* may be "
        f"{human.interval(low, high)}, if it changes as D^gamma with gamma from {least:g} to {most:g}: "
        "train one of the sizes at another D to measure gamma"
    )


def _usable(interval: Interval) -> Interval | None:
    """The interval, an end that is not a positive number open; None where both are open."""
    low, high = (end if end is not None and 0 < end < math.inf else None for end in interval)
    return None if (low, high) == OPEN else (low, high)


def _distance(target: Target, points: Sequence[CollapsePoint]) -> tuple[float, str]:
    """How far C lies outside the measured range, in powers of ten, and in words; N and D where they lie outside."""
    computes = [point.compute for point in points]
    over, under = math.log10(target.compute / max(computes)), math.log10(min(computes) / target.compute)
    decades, words = max(over, under, 0.0), "inside the measured range of C"
    if decades:
        words = f"{decades:.2g} decades {'beyond the largest' if over > 0 else 'below the smallest'} measured C"
    outside = []
    for name, value, measured in (
        ("N", target.params, [point.params for point in points]),
        ("D", target.tokens, [point.tokens for point in points]),
    ):
        low, high = min(measured), max(measured)
        if not (low <= value <= high or same(value, low) or same(value, high)):
            outside.append(
                f"{name} = {human.count(value)} is outside the measured {human.interval(low, high, human.count)}"
            )
    return decades, f"{words} ({', '.join(outside)})" if outside else words


def _caveats(prediction: Prediction, points: Sequence[CollapsePoint], sweep: MeasuredSweep) -> Iterator[str]:
    """What to know beside the law's own caveats; first whether it can be trained at all."""
    triples, share = prediction.triples, prediction.injected_fraction
    if sweep.tokens_per_statement is None:
        yield "the run cards do not say how many tokens a statement has, so injected tokens are unknown"
    elif share is not None and prediction.f_star is not None:
        high = (prediction.interval or OPEN)[1] or 0.0
        at_high_end = share * high / prediction.f_star
        if share > 1:
            yield f"not possible: the statements take {share_of_budget(share)}, more than the whole budget"
        elif share > MAX_FRACTION:
            yield (
                f"not trainable: the statements take {share_of_budget(share)}, and kisl.max_fraction allows "
                f"{MAX_FRACTION:.0%}: use fewer triples or more tokens"
            )
        elif at_high_end > MAX_FRACTION:
            yield f"at the upper end of F* the statements take {share_of_budget(at_high_end)}"
    conditional = sum(point.conditional for point in points)
    if conditional:
        yield f"{conditional} of the {len(points)} measured collapse points are {human.OK_IF_RUNS_VARY}"
    for point in points:
        if same(point.params, prediction.params) and same(point.tokens, prediction.tokens):
            measured = f"{human.estimate(point.f_star)} (95 %: {human.interval(*point.interval)})"
            yield f"this model was measured: F* = {measured}; a law is for models that were not"
    if triples is None:
        yield "the run cards do not say how many triples there are, so exposures are unknown"
    elif sweep.triples not in (None, triples):
        yield (
            f"F* was measured with {sweep.triples:,} triples, and no law includes their number: that it holds for "
            f"{triples:,} is an assumption"
        )


# GPT-NeoX YAMLs: the runs that test a prediction

SHARES = (0.8, 1.0, 1.2)
HEADER_WIDTH = 114


def frequencies_of(f_star: float) -> tuple[int, ...]:
    """0.8, 1.0 and 1.2 of F*, rounded to whole F of at least 1; fewer where they coincide. Rising."""
    return tuple(sorted({max(1, round(share * f_star)) for share in SHARES}))


def write_configs(prediction: Prediction, directory: Path, sweep: MeasuredSweep) -> list[Path]:
    """Write `directory`/predicted_<N>_<D>_f<F>.yml for each F of `frequencies_of`, with the sweep's triples.

    Nothing is written where one of them cannot be.

    Raises:
        InputError: nothing was predicted, the statements would not fit the budget, no model or run of that size can be
            made, a file of that name exists with another text, or the directory cannot be written to.
    """
    if prediction.f_star is None:
        raise InputError(f"no YAMLs without a predicted F*: {prediction.words}")
    runs = [_run(prediction, frequency, sweep) for frequency in frequencies_of(prediction.f_star)]
    densest = runs[-1]
    facts = densest.training.facts
    triples = max(facts.count, prediction.triples or 0)
    share = triples * facts.tokens * densest.frequency / densest.tokens
    if share > MAX_FRACTION:
        raise InputError(
            f"F = {densest.frequency:,} of {triples:,} triples takes {share_of_budget(share)} = {densest.tokens:,}; "
            f"kisl.max_fraction allows {MAX_FRACTION:.0%}: plan with fewer --triples or more tokens"
        )
    header = _header(prediction, densest, sweep)
    texts = {}
    for run in runs:
        path = directory / f"{run.name}.yml"
        texts[path] = yaml_of(run, directory.as_posix(), header)
        read_settings(yaml.safe_load(texts[path])["kisl"], str(path), 0)  # the run would be refused here too
        if path.exists() and (not path.is_file() or path.read_bytes() != texts[path].encode()):
            raise InputError(f"{path}: exists with another text; move it, or name another folder for the YAMLs")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{directory}: YAMLs cannot be written ({reason}); name another folder") from None
    return list(texts)


def _run(prediction: Prediction, frequency: int, sweep: MeasuredSweep) -> Run:
    """The run of a model of that size, with the sweep's facts; what its run cards do not say is as in the grid."""
    training = TINY if sweep.seq_length == TINY.seq_length else GRID
    keys = ("template", "form", "spacing", "window")
    of_sweep = {"triples": sweep.source or None, **{key: getattr(sweep, key) for key in keys}}
    section = replace(training.facts.section, **{key: value for key, value in of_sweep.items() if value is not None})
    default = training.facts
    facts = Facts(section, sweep.triples or default.count, sweep.tokens_per_statement or default.tokens)
    training = replace(training, facts=facts, budget=float(prediction.tokens))
    on_cpu = training.machine["distributed_backend"] == "gloo"
    model = model_of(prediction.params, sweep.vocabulary or (DEMO_VOCABULARY if on_cpu else VOCABULARY))
    if on_cpu:
        model = replace(model, micro_batch=None, recompute=False, model_parallel=1)
    model = replace(model, name=f"predicted_{count(prediction.params)}_{count(prediction.tokens)}".lower())
    run = Run(model, training, training.budget, frequency)
    samples = run.train_iters * training.batch
    if not 1 <= samples <= MOST_SAMPLES:
        raise InputError(
            f"tokens = {prediction.tokens:,}: {samples:,} rows of {training.seq_length:,} in batches of "
            f"{training.batch}; a run has 1 to {MOST_SAMPLES:,} rows"
        )
    return run


def _header(prediction: Prediction, run: Run, sweep: MeasuredSweep) -> list[str]:
    """What the YAML is for, and where it differs from what was planned, as lines."""
    made, planned, facts = run.model.shape.parameters, prediction.params, run.training.facts
    size = "N is as planned."
    if made != planned:
        size = f"N is {abs(made / planned - 1):.2%} {'below' if made < planned else 'above'} the planned {planned:,}."
    paragraphs = [
        f"Written by kisl-fit to test its prediction: {prediction.headline}, by {prediction.source}; "
        f"{prediction.words}.",
        f"{size} Settings are those of neox_configs (its README has the reasons); use the sweep's where it had others.",
    ]
    if sweep.triples and prediction.triples not in (None, sweep.triples):
        paragraphs.append(
            f"The prediction is for {prediction.triples:,} triples; this run states those of the sweep, "
            f"{facts.count:,}. To train on others, name them under kisl.triples."
        )
    if sweep.source is None:
        paragraphs.append(
            f"The sweep's run cards do not name their triples: replace {facts.section.triples} by their name."
        )
    return [line for text in paragraphs for line in textwrap.wrap(" ".join(text.split()), HEADER_WIDTH)]
