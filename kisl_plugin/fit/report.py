"""From results to curves, laws and predictions: what kisl-fit prints and writes."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit import text as human
from kisl_plugin.fit.curve import CollapseCurve, fit_collapse_curve
from kisl_plugin.fit.curve_estimate import SEEDS, wilson
from kisl_plugin.fit.joint import (
    FEWEST_BUDGETS,
    DataLaw,
    HeldOut,
    JointLaw,
    Verdict,
    fit_data_law,
    fit_joint_law,
    hold_out,
    judge,
)
from kisl_plugin.fit.law import FEWEST_MODELS, InfusionLaw, fit_infusion_law
from kisl_plugin.fit.law_estimate import OPEN, CollapsePoint, Interval
from kisl_plugin.fit.observations import (
    AUTO,
    Chance,
    Floor,
    Observation,
    SetAside,
    check_chance,
    choose_baselines,
    find_floor,
)
from kisl_plugin.fit.predict import Laws, Prediction, Target, predict, sweep_of
from kisl_plugin.fit.results import RESULTS_TASK, FloatArray, Outcomes, read_outcomes, read_results
from kisl_plugin.fit.text import NO_COLLAPSE, NOT_IDENTIFIED, count

# All that kisl-fit found, as the table, the page and fit.json show it.


@dataclass(frozen=True)
class Point:
    """All items asked at one frequency, the runs summed."""

    frequency: int
    correct: int
    total: int

    @property
    def share(self) -> float:
        """The memorisation rate P."""
        return self.correct / self.total


@dataclass(frozen=True, kw_only=True)
class RunPoint:
    """One run at one frequency, its groups summed: what the curve is fitted to.

    `control`, `by_sum` and `bits_per_byte` are None where they are not known, or not of this frequency alone.
    """

    path: str
    model: str
    seed: int
    train_seed: int | None
    frequency: int
    correct: int
    total: int
    control: Point | None
    by_sum: int | None
    bits_per_byte: float | None
    relations: Mapping[str, tuple[int, int]]

    @property
    def share(self) -> float:
        """The memorisation rate P of this run."""
        return self.correct / self.total


@dataclass(frozen=True)
class Background:
    """Bits per byte on the background text at one frequency: the mean of `runs` runs."""

    frequency: int
    bits_per_byte: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class CurveReport:
    """The curve of the models with N parameters trained on D tokens.

    `points`, `controls` and `by_sum` hold the runs summed, by frequency (> 0); `background` begins at F = 0 where such
    runs are; `relations` are the points of each relation. `seeds` are those of the injection and of training (None
    where the run cards do not say it). `pairing` says in words whether the fit knew which triple was right when.
    """

    params: int
    tokens: int
    floor: Floor
    runs: tuple[RunPoint, ...]
    points: tuple[Point, ...]
    controls: tuple[Point, ...]
    by_sum: tuple[Point, ...]
    background: tuple[Background, ...]
    relations: Mapping[str, tuple[Point, ...]]
    seeds: tuple[tuple[int, int | None], ...]
    curve: CollapseCurve
    pairing: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What this model is called in words."""
        return f"{count(self.params)} on {count(self.tokens)} tokens"

    @property
    def has_replicates(self) -> bool:
        """Whether a frequency was run more than once."""
        return len(self.runs) > len(self.points)

    @property
    def compute(self) -> float:
        """C = 6·N·D in floating-point operations."""
        return 6.0 * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class LawReport:
    """The law of one token budget, through the models whose curves show a collapse point."""

    tokens: int
    params: tuple[int, ...]
    law: InfusionLaw | None


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """Everything that was found. `laws` has one entry per token budget, the one with most sizes first."""

    task: str
    chance: Chance
    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    curves: tuple[CurveReport, ...]
    laws: tuple[LawReport, ...]
    data_laws: tuple[DataLaw, ...]
    joint: JointLaw | None
    held_out: tuple[HeldOut, ...]
    verdicts: tuple[Verdict, ...]
    predictions: tuple[Prediction, ...]
    notes: tuple[str, ...]

    @property
    def budgets(self) -> list[int]:
        """The token budgets D, in order."""
        return sorted({found.tokens for found in self.curves})

    @property
    def headline(self) -> LawReport | None:
        """The token budget with most sizes, if it has a law."""
        return self.laws[0] if self.laws and self.laws[0].law else None

    @property
    def missing_law(self) -> str:
        """What it would take to fit a law; empty where there is one."""
        if self.headline:
            return ""
        takes = f"it takes {FEWEST_MODELS} models of different N with a collapse point (ok) at one token budget D"
        if not self.laws:
            return f"no infusion law: {takes}"
        sizes = ", ".join(count(params) for params in self.laws[0].params) or "none"
        return f"no infusion law: {takes}; here D = {count(self.laws[0].tokens)} has most: {sizes}"


# What is asked of a sweep beside its curves and laws.


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The size nearest to `hold_out` is predicted from the others.

    Each of `predict` is predicted for `triples` triples (None: as many as the sweep's).

    Raises:
        InputError: `hold_out` is no size.
    """

    hold_out: float | None = None
    predict: Sequence[Target] = ()
    triples: int | None = None

    def __post_init__(self) -> None:
        if self.hold_out is not None and not 0 < self.hold_out < float("inf"):
            raise InputError(f"--hold-out {self.hold_out}: expected a number of parameters above 0, such as 1.05e9")


# From collapse points to laws: of each token budget, of each size, jointly; what was held out, and the verdicts.


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


# Observations of one model → its runs, its points, and what was measured beside them.

RunKey = tuple[str, float, str]


def runs_of(observations: Sequence[Observation]) -> list[list[int]]:
    """The places of the observations that are of one run and frequency (groups that share it), run by run."""
    places: dict[tuple[int, RunKey], list[int]] = defaultdict(list)
    for at, seen in enumerate(observations):
        places[seen.frequency, _key(seen)].append(at)
    return [places[key] for key in sorted(places)]


def _key(seen: Observation) -> RunKey:
    # Results that were never a file may share their path.
    return (seen.path, seen.date, seen.card.created)


def run_points(observations: Sequence[Observation]) -> tuple[RunPoint, ...]:
    """One RunPoint per run and frequency, in the order of `runs_of`."""
    frequencies: dict[RunKey, set[int]] = defaultdict(set)
    for seen in observations:
        frequencies[_key(seen)].add(seen.frequency)
    return tuple(
        _run_point(parts, alone=len(frequencies[_key(parts[0])]) == 1)
        for parts in ([observations[at] for at in places] for places in runs_of(observations))
    )


def by_run(right: FloatArray, observations: Sequence[Observation]) -> FloatArray:
    """Outcomes [T, observations] → [T, runs] in the order of `runs_of`: groups of one run hold different triples."""
    columns = [right[:, places] for places in runs_of(observations)]
    return np.column_stack(
        [np.where(np.isnan(column).all(axis=1), np.nan, np.nansum(column, axis=1)) for column in columns]
    )


def _run_point(parts: Sequence[Observation], alone: bool) -> RunPoint:
    """`alone`: the run has this frequency only, so that what the whole model does belongs to it."""
    first = parts[0]
    sums = [seen.by_sum for seen in parts if seen.by_sum is not None]
    control = Point(first.frequency, first.control_correct or 0, first.control_total) if first.control_total else None
    return RunPoint(
        path=first.path,
        model=first.model,
        seed=first.seed,
        train_seed=first.train_seed,
        frequency=first.frequency,
        correct=sum(seen.correct for seen in parts),
        total=sum(seen.total for seen in parts),
        control=control if alone else None,
        by_sum=sum(sums) if len(sums) == len(parts) else None,
        bits_per_byte=first.bits_per_byte if alone else None,
        relations=_relations(parts),
    )


def _relations(parts: Sequence[Observation]) -> Mapping[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for seen in parts:
        for relation, (correct, total) in seen.relations.items():
            before = sums.get(relation, (0, 0))
            sums[relation] = (before[0] + correct, before[1] + total)
    return sums


def pool(cells: Iterable[tuple[int, int, int]]) -> tuple[Point, ...]:
    """(F, correct, total) summed by F, in order."""
    sums: dict[int, list[int]] = {}
    for frequency, correct, total in cells:
        both = sums.setdefault(frequency, [0, 0])
        both[0] += correct
        both[1] += total
    return tuple(Point(frequency, *sums[frequency]) for frequency in sorted(sums) if sums[frequency][1])


def points_of(runs: Sequence[RunPoint]) -> tuple[Point, ...]:
    """The memorisation rate at each frequency."""
    return pool((run.frequency, run.correct, run.total) for run in runs)


def controls_of(runs: Sequence[RunPoint]) -> tuple[Point, ...]:
    """The share of control triples that are right at each frequency."""
    return pool((run.frequency, run.control.correct, run.control.total) for run in runs if run.control)


def by_sum_of(runs: Sequence[RunPoint]) -> tuple[Point, ...]:
    """The share that is right by summed likelihood; none where any run does not say it."""
    if any(run.by_sum is None for run in runs):
        return ()
    return pool((run.frequency, run.by_sum or 0, run.total) for run in runs)


def background_of(runs: Sequence[RunPoint]) -> tuple[Background, ...]:
    """Mean bits per byte at each frequency."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        if run.bits_per_byte is not None:
            values[run.frequency].append(run.bits_per_byte)
    return tuple(Background(F, sum(seen) / len(seen), len(seen)) for F, seen in sorted(values.items()))


def relations_of(runs: Sequence[RunPoint]) -> Mapping[str, tuple[Point, ...]]:
    """The points of each relation, relations in order of their ids."""
    names = sorted({relation for run in runs for relation in run.relations})
    return {
        name: pool((run.frequency, *run.relations[name]) for run in runs if name in run.relations) for name in names
    }


def seeds_of(runs: Sequence[RunPoint]) -> tuple[tuple[int, int | None], ...]:
    """The distinct pairs of injection and training seed."""
    pairs = {(run.seed, run.train_seed) for run in runs}
    return tuple(sorted(pairs, key=lambda pair: (pair[0], pair[1] is not None, pair[1] or 0)))


# Observations of one N and D → their curve and what was measured beside it.

# Runs that differ in one of these are not replicates of each other
SETTINGS = ("engine", "form", "template", "spacing", "window", "seq_length")


def curve_report(group: Sequence[Observation], chance: Chance) -> CurveReport:
    """Fit the curve of the observations of one N and D, of which at least one has F > 0."""
    floor = find_floor(group, chance)
    injected = [seen for seen in group if seen.frequency > 0]
    baselines, _ = choose_baselines(group)
    runs = run_points(injected)
    outcomes = read_outcomes(injected)
    curve = _fit(runs, floor, None if outcomes is None else by_run(outcomes.right, injected))
    return CurveReport(
        params=group[0].params,
        tokens=group[0].tokens,
        floor=floor,
        runs=runs,
        points=points_of(runs),
        controls=controls_of(runs),
        by_sum=by_sum_of(runs),
        background=background_of((*run_points(baselines), *runs)),
        relations=relations_of(runs),
        seeds=seeds_of(runs),
        curve=curve,
        pairing=_pairing(curve, outcomes, injected),
        notes=(*floor.notes, *_below(runs, floor), *_notes(group, injected)),
    )


def _fit(runs: Sequence[RunPoint], floor: Floor, right: FloatArray | None) -> CollapseCurve:
    frequencies = [run.frequency for run in runs]
    if floor.value >= 1:  # no share above it is left for a curve
        return CollapseCurve(
            status=NOT_IDENTIFIED,
            message="the guessing floor is 1, as its F = 0 runs got every item right; give another with --chance",
            floor=floor.value,
            frequency_range=(min(frequencies), max(frequencies)),
        )
    return fit_collapse_curve(
        frequencies,
        [run.correct for run in runs],
        [run.total for run in runs],
        floor=floor.value,
        floor_error=math.sqrt(floor.value * (1 - floor.value) / floor.total) if floor.total else 0.0,
        outcomes=right,
    )


def _pairing(curve: CollapseCurve, outcomes: Outcomes | None, injected: Sequence[Observation]) -> str:
    if curve.paired and outcomes is not None:
        return f"paired over {len(outcomes.keys):,} triples"
    if outcomes is not None:
        return ""
    without = sum(seen.samples is None for seen in injected)
    if without:
        return f"not paired by triple: {without} of {len(injected)} results have no samples (lm_eval --log_samples)"
    return "not paired by triple: the samples do not tell which triple was right"


def _below(runs: Sequence[RunPoint], floor: Floor) -> list[str]:
    """Counts that no curve above the floor can have made."""
    if all(wilson(run.correct, run.total)[1] < floor.value for run in runs):
        return ["every run lies below the guessing floor: it is not theirs; give another with --chance"]
    return []


def _notes(group: Sequence[Observation], injected: Sequence[Observation]) -> list[str]:
    notes = []
    for key in SETTINGS:
        values = {json.dumps(getattr(seen.card, key)) for seen in injected}
        if len(values) > 1:
            notes.append(f"its runs differ in {key} ({', '.join(sorted(values))}): they are no replicates")
    if len({seen.card.triples.get("sha256") for seen in injected}) > 1:
        notes.append("its runs differ in their triples (sha256): they are no replicates")
    if len({seen.card.parent is None for seen in injected}) > 1:
        notes.append("it mixes runs from scratch with runs continued from a checkpoint")
    idle = sorted({str(seen.group) for seen in group if seen.frequency == 0 and not seen.baseline})
    if idle:
        notes.append(f"groups at F = 0 beside injected ones are neither points nor the floor: {', '.join(idle)}")
    return notes


# What was found, in sentences: the terminal and the page say the same.

NO_NOISE = {
    "seeds": "no run-to-run noise is seen between seeds",
    "lack of fit": "no run-to-run noise is seen about the curve, whose form this assumes",
    "none": "run-to-run noise cannot be told: no seeds, and too few frequencies",
}


def many(number: int, noun: str) -> str:
    """`1 curve`, `2 curves`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def finding(report: FitReport) -> str:
    """The report in one sentence: nothing is claimed that the fit does not show."""
    if not report.curves:
        return "No collapse curve: no run with injected facts could be used."
    found = [one for one in report.curves if one.curve.ok]
    if not found:
        return _no_collapse(report.curves)
    if len(found) == 1:
        return f"{found[0].name}: memory peaks at {f_star(found[0].curve)} and then falls."
    return f"{len(found)} of {many(len(report.curves), 'model')} show a collapse point; {_across(report, found)}."


def _across(report: FitReport, found: Sequence[CurveReport]) -> str:
    """How F* goes with N at the token budget with most sizes."""
    budget = report.laws[0]
    at = sorted((one for one in found if one.tokens == budget.tokens), key=lambda one: one.params)
    ends = [f"{human.estimate(one.curve.f_star)} ({human.interval(*one.curve.f_star_interval)})" for one in at]
    if len(at) < 2:
        return "no two of them were trained on the same number of tokens"
    goes = f"at D = {human.count(budget.tokens)} F* goes from {ends[0]} for {human.count(at[0].params)}"
    law = f"; the infusion law's alpha is {valued(budget.law.alpha, budget.law.alpha_interval)}" if budget.law else ""
    return f"{goes} to {ends[-1]} for {human.count(at[-1].params)}{law}"


def _no_collapse(curves: Sequence[CurveReport]) -> str:
    if len(curves) == 1:
        return f"No collapse point is shown for {curves[0].name}: {curves[0].curve.status}{_excluded(curves[0].curve)}."
    statuses = sorted({reported.curve.status for reported in curves})
    return f"No collapse point is shown for any of {many(len(curves), 'model')}: {', '.join(statuses)}."


def _excluded(curve: CollapseCurve) -> str:
    if not curve.status.startswith(NO_COLLAPSE) or not math.isfinite(curve.largest_fall):
        return ""
    aside = "" if curve.tau_source == SEEDS else ", noise between runs aside"
    return f" (a fall of more than {curve.largest_fall:.2f} is excluded{aside})"


def f_star(curve: CollapseCurve) -> str:
    """F* with its interval, where there is one."""
    ends = "" if curve.f_star_interval == OPEN else "95 % interval "
    return f"F* = {human.estimate(curve.f_star)} ({ends}{human.interval(*curve.f_star_interval)})"


def noise(curve: CollapseCurve) -> str:
    """The run-to-run noise and what its size is from; empty for a curve that was not fitted."""
    if math.isnan(curve.tau):
        return ""
    if math.isfinite(curve.df):
        return f"run-to-run noise tau = {curve.tau:.2f} (SD of log-odds, from {curve.tau_source}, {curve.df:.3g} df)"
    return NO_NOISE.get(curve.tau_source, "no run-to-run noise is seen")


def tests(curve: CollapseCurve) -> str:
    """The p-values that a status rests on, of the tests that were made."""
    made = (("fall", curve.fall_p), ("unimodal", curve.unimodal_p), ("form", curve.form_p))
    return ", ".join(f"{name} {human.probability(p)}" for name, p in made if not math.isnan(p))


def remarks(found: CurveReport) -> list[str]:
    """What else is to be known of one curve: its status if it is not ok, noise, pairing, floor, notes."""
    curve = found.curve
    status = "" if curve.ok else f"{curve.status}: {curve.message}"
    floor = f"floor {found.floor.value:.3f}: {found.floor.source}"
    return [part for part in (status, tests(curve), noise(curve), found.pairing, floor, *found.notes) if part]


def law_sentence(found: LawReport) -> str:
    """The law of one token budget with its intervals and caveats."""
    law = found.law
    if law is None:
        return ""
    alpha = f"alpha = {valued(law.alpha, law.alpha_interval)}, E = {valued(law.E, law.E_interval)}"
    sizes = ", ".join(human.count(params) for params in found.params)
    caveats = "".join(f"; {caveat}" for caveat in law.caveats)
    return (
        f"Infusion law F*(C) = A/C^alpha + E at D = {human.count(found.tokens)} ({sizes}): {alpha}, "
        f"A = {law.A:.4g}{fit_quality(law)}{without_constant(law)}{caveats}."
    )


def without_constant(law: InfusionLaw) -> str:
    """What the law is with E = 0, where both were fitted."""
    bare = law.without_E
    return f"; with E = 0: alpha = {valued(bare.alpha, bare.alpha_interval)}" if bare else ""


def fit_quality(law: InfusionLaw) -> str:
    """R², only beside what it is worth."""
    return "" if math.isnan(law.r2) else f", R² = {law.r2:.4f}"


def valued(value: float, interval: Interval) -> str:
    """A law's parameter with its 95 % interval, where it has one."""
    ends = "" if interval == OPEN else f" ({human.interval(*interval, parameter)})"
    return f"{parameter(value)}{ends}"


def parameter(value: float) -> str:
    """A law's parameter to three digits."""
    return f"{value:.3g}"


def joint_sentences(law: JointLaw) -> list[str]:
    """The best form in N and D, how F* goes with D, and what the others are worth."""
    at = f"N = {human.count(law.gamma_at[0])}, D = {human.count(law.gamma_at[1])}"
    numbers = ", ".join(
        f"{name} = {valued(value, law.best.intervals.get(name, OPEN))}" for name, value in law.best.parameters.items()
    )
    others = "; ".join(f"{form.formula} {weight(form.weight)}" for form in law.forms[1:])
    said = [
        f"Joint law of {law.points} points: F* = {law.best.formula} with {numbers}, of Akaike weight "
        f"{weight(law.best.weight)}{f' ({others})' if others else ''}",
        f"F* goes with D as d log F* / d log D = {valued(law.gamma, law.gamma_interval)} at {at}",
    ]
    return [*said, *law.caveats]


def weight(share: float) -> str:
    """An Akaike weight."""
    return "< 1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")


def data_law_sentence(law: DataLaw) -> str:
    """How F* of one size goes with D."""
    reach = "–".join(human.count(tokens) for tokens in law.tokens_range)
    caveats = "".join(f"; {caveat}" for caveat in law.caveats)
    gamma = valued(law.gamma, law.gamma_interval)
    return f"F*(D) ∝ D^gamma at N = {human.count(law.params)} (D = {reach}): gamma = {gamma}{caveats}"


def held_out_sentence(held: HeldOut) -> str:
    """What the other sizes say of the one that was held out."""
    measured = f"{human.estimate(held.measured)} ({human.interval(*held.measured_interval)})"
    predicted = f"{human.estimate(held.predicted)} ({human.interval(*held.interval)})"
    model = f"N = {human.count(held.params)} at D = {human.count(held.tokens)}"
    return f"Held out {model}: measured F* = {measured}; {held.source} gives {predicted}: {held.words}"


def verdict_word(verdict: Verdict) -> str:
    """`passed`, `failed`, or `cannot tell`."""
    return "cannot tell" if verdict.passed is None else "passed" if verdict.passed else "failed"


# From results to curves, laws and predictions: what kisl-fit prints and writes.

Watch = Callable[[str, int, int], None]
NOTHING_ELSE = Asked()


def in_silence(what: str, done: int, total: int) -> None:
    """Show no progress."""


def fit_results(
    paths: Sequence[str | Path],
    task: str = RESULTS_TASK,
    chance: Chance = AUTO,
    *,
    asked: Asked = NOTHING_ELSE,
    runs: str | Path | None = None,
    watch: Watch = in_silence,
) -> FitReport:
    """Read lm-eval results under `paths`, fit a curve for each N and D, and the laws through their collapse points.

    `runs` is a CSV with what the results' run cards lack; `watch` is told (what, done, total) as curves are fitted.

    Raises:
        InputError: a path does not exist, there is no results file at all, `chance` is no floor, or `hold_out` leaves
            too few models.
    """
    chance = check_chance(chance)
    reading = read_results([Path(path) for path in paths], task, None if runs is None else Path(runs))
    return fit_observations(
        reading.observations,
        task,
        chance,
        asked=asked,
        set_aside=reading.set_aside,
        notes=reading.notes,
        watch=watch,
    )


def fit_observations(
    observations: Sequence[Observation],
    task: str = RESULTS_TASK,
    chance: Chance = AUTO,
    *,
    asked: Asked = NOTHING_ELSE,
    set_aside: Sequence[SetAside] = (),
    notes: Sequence[str] = (),
    watch: Watch = in_silence,
) -> FitReport:
    """The same from observations, such as those that `observations_of` makes of lm_eval's results in memory."""
    chance = check_chance(chance)
    cells: dict[tuple[int, int], list[Observation]] = defaultdict(list)
    for seen in observations:
        cells[seen.params, seen.tokens].append(seen)
    injected = {cell: group for cell, group in sorted(cells.items()) if any(seen.frequency > 0 for seen in group)}
    idle = [
        f"{count(params)} on {count(tokens)} tokens: runs at F = 0 only, so no curve"
        for params, tokens in sorted(set(cells) - set(injected))
    ]
    curves: list[CurveReport] = []
    for done, group in enumerate(injected.values()):
        watch("fitting curves", done, len(injected))
        curves.append(curve_report(group, chance))
    watch("fitting curves", len(injected), len(injected))
    return _with_laws(observations, task, chance, curves, asked, set_aside, (*notes, *idle))


def _with_laws(
    observations: Sequence[Observation],
    task: str,
    chance: Chance,
    curves: Sequence[CurveReport],
    asked: Asked,
    set_aside: Sequence[SetAside],
    notes: Sequence[str],
) -> FitReport:
    points = collapse_points(curves)
    laws, by_size = infusion_laws(curves, points), data_laws(points)
    joint, unfitted = joint_law(points)
    notes = (*notes, *filter(None, [unfitted]))
    known = Laws(
        joint=joint,
        infusion=[(found.tokens, found.law) for found in laws if found.law],
        data=by_size,
    )
    sweep = sweep_of(seen.card for seen in observations)
    held = held_out(points, asked.hold_out)
    if held and held[0].params != asked.hold_out:
        notes = (
            *notes,
            f"of the sizes with a collapse point N = {count(held[0].params)} is nearest to the one to hold out",
        )
    return FitReport(
        task=task,
        chance=chance,
        observations=tuple(observations),
        set_aside=tuple(set_aside),
        curves=tuple(curves),
        laws=laws,
        data_laws=by_size,
        joint=joint,
        held_out=held,
        verdicts=judge([found.curve.status for found in curves], points),
        predictions=tuple(predict(target, points, known, sweep, asked.triples) for target in asked.predict),
        notes=tuple(notes),
    )
