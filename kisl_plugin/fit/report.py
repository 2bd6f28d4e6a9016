"""What is assembled from the observations: a curve for each N and D, and the laws, predictions and checks across them.

The table, the page, the figures and fit.json all read the `FitReport` made here.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.cards import Selection
from kisl_plugin.fit.collapse_points import OPEN, CollapsePoint, Target, ray_of
from kisl_plugin.fit.curve import CollapseCurve, fit_collapse_curve, wilson
from kisl_plugin.fit.hold_out import HeldOut, Verdict, hold_out, law_verdicts
from kisl_plugin.fit.joint import FEWEST_BUDGETS, JointLaw, fit_data_law, fit_joint_law
from kisl_plugin.fit.law import FEWEST_MODELS, InfusionLaw, law_through
from kisl_plugin.fit.noise import LACK_OF_FIT, LARGEST_TAU, SEEDS, RunNoise
from kisl_plugin.fit.observations import (
    AUTO,
    Chance,
    Experiment,
    Floor,
    Observation,
    Point,
    SetAside,
    belongs_to,
    check_chance,
    experiments,
    find_floor,
    matching_baselines,
    merge_groups,
    outcome_matrix,
    pool_by_frequency,
)
from kisl_plugin.fit.predict import Laws, Prediction, predict, sweep_of
from kisl_plugin.fit.results import read_results
from kisl_plugin.fit.text import NOT_IDENTIFIED, OK_IF_RUNS_VARY, count, needs_sizes

__all__ = ["CurveReport", "FitOptions", "FitReport", "LawReport", "fit_results"]

# Runs that differ in one of these are no replicates of each other
_SETTINGS = ("engine", "form", "template", "spacing", "window", "seq_length")


@dataclass(frozen=True)
class _BackgroundPoint:
    """Bits per byte on the background text at one frequency: the mean of `runs` runs."""

    frequency: int
    bits_per_byte: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class CurveReport:
    """The curve of the models with N = `params` trained on D = `tokens`.

    `runs` have F > 0, one entry for each run and frequency; `baselines` are the F = 0 runs that match them. `pairing`
    says whether the fit knew which triple was right in which run; `floor_warning`, what another floor would change.
    `letter` tells experiments of one N and D apart, "" where there is one.
    """

    params: int
    tokens: int
    floor: Floor
    runs: tuple[Observation, ...]
    baselines: tuple[Observation, ...]
    curve: CollapseCurve
    pairing: str
    floor_warning: str
    letter: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model and its budget, such as `137M on 2.6B tokens`."""
        return f"{count(self.params)}{self.letter} on {count(self.tokens)} tokens"

    @property
    def experiment(self) -> str | None:
        """The letter alone."""
        return self.letter.lstrip("·") or None

    @property
    def fitted(self) -> dict[str, Any]:
        """What was fitted; None without a collapse point, since the numbers would be read as if there were one."""
        names = ("a", "b", "c", "f_star", "f_star_interval", "peak", "peak_interval")
        return {name: getattr(self.curve, name) if self.curve.ok else None for name in names}

    @property
    def seeds(self) -> tuple[tuple[int, int | None], ...]:
        """The distinct pairs of injection and training seed."""
        pairs = {run.seeds for run in self.runs}
        return tuple(sorted(pairs, key=lambda pair: (pair[0], pair[1] is not None, pair[1] or 0)))

    @property
    def points(self) -> tuple[Point, ...]:
        """The memorisation rate at each frequency, runs summed."""
        return pool_by_frequency((run.frequency, run.correct, run.total) for run in self.runs)

    @property
    def residuals(self) -> tuple[float, ...]:
        """The standardised residual of each of `runs`, run-to-run noise included; NaN where no curve was fitted."""
        F, k, n = zip(*((run.frequency, run.correct, run.total) for run in self.runs), strict=True)
        return tuple(self.curve.residuals(F, k, n).tolist())

    @property
    def has_replicates(self) -> bool:
        """Whether some frequency has more than one run."""
        return len(self.runs) > len(self.points)

    @property
    def controls(self) -> tuple[Point, ...]:
        """The control triples that are right at each frequency."""
        return pool_by_frequency((run.frequency, run.control_correct or 0, run.control_total or 0) for run in self.runs)

    @property
    def background(self) -> tuple[_BackgroundPoint, ...]:
        """Mean bits per byte at each frequency, from F = 0 on."""
        values: dict[int, list[float]] = defaultdict(list)
        for run in (*self.baselines, *self.runs):
            if run.bits_per_byte is not None:
                values[run.frequency].append(run.bits_per_byte)
        return tuple(_BackgroundPoint(F, sum(bits) / len(bits), len(bits)) for F, bits in sorted(values.items()))


@dataclass(frozen=True, kw_only=True)
class LawReport:
    """The law through the collapse points of one token budget, or of models with D = `ratio`·N (`tokens` is None).

    `law` is None below three sizes. `letter` is the experiment's, "" where there is one.
    """

    tokens: int | None
    points: tuple[CollapsePoint, ...]
    law: InfusionLaw | None
    ratio: float | None = None
    letter: str = ""

    @property
    def params(self) -> tuple[int, ...]:
        """N of each collapse point."""
        return tuple(point.params for point in self.points)

    @property
    def conditional(self) -> int:
        """How many of the collapse points hold only if runs vary."""
        return sum(point.conditional for point in self.points)

    @property
    def experiment(self) -> str | None:
        """The letter alone."""
        return self.letter.lstrip("·") or None

    @property
    def where(self) -> str:
        """`D = 58B` or `D = 20·N`, with the experiment: `D = 58B, experiment A`."""
        where = f"D = {self.ratio:.3g}·N" if self.tokens is None else f"D = {count(self.tokens)}"
        return f"{where}, experiment {self.experiment}" if self.experiment else where


# The tables of a report


class Table(list[dict[str, Any]]):
    """Rows as dicts that have the same keys in the same order."""

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")  # it has no types without another package
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(list(self))


OBSERVATION_COLUMNS = (
    *("params", "tokens", "frequency", "group", "seed", "train_seed"),
    *("correct", "total", "control_correct", "control_total", "bits_per_byte"),
    *("task", "engine", "form", "model", "path"),
)


def observation_table(observations: Iterable[Observation]) -> Table:
    """One row for each observation: first what decides the run, then what was right, then where it is from."""
    table = Table()
    for one in observations:
        own = {"seed": one.seeds[0], "train_seed": one.seeds[1], "engine": one.card.engine, "form": one.card.form}
        table.append({key: own[key] if key in own else getattr(one, key) for key in OBSERVATION_COLUMNS})
    return table


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """All results of a task. `laws` has one entry per experiment and token budget, the one with most sizes first.

    `other_tasks` are the reports of further tasks of the same runs: their curves stand beside those of this one.
    """

    task: str
    chance: Chance
    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    curves: tuple[CurveReport, ...]
    laws: tuple[LawReport, ...]
    data_laws: tuple[JointLaw, ...]
    joint: JointLaw | None
    held_out: tuple[HeldOut, ...]
    verdicts: tuple[Verdict, ...]
    predictions: tuple[Prediction, ...]
    notes: tuple[str, ...]
    other_tasks: tuple["FitReport", ...] = ()

    @property
    def tasks(self) -> tuple["FitReport", ...]:
        """The reports of all tasks, this one first."""
        return self, *self.other_tasks

    @property
    def headline(self) -> LawReport | None:
        """The token budget with most sizes, if it has a law."""
        return self.laws[0] if self.laws and self.laws[0].law else None

    @property
    def observation_table(self) -> Table:
        """One row for each observation of each task, with the columns of observations.csv."""
        return observation_table(one for task in self.tasks for one in task.observations)

    @property
    def curve_table(self) -> Table:
        """One row for each curve of each task; the fitted values are None where its status is not ok."""
        table = Table()
        for task in self.tasks:
            for one in task.curves:
                values = one.fitted
                for name in ("f_star", "peak"):
                    values[f"{name}_low"], values[f"{name}_high"] = values[f"{name}_interval"] or OPEN
                row = {"task": task.task, "params": one.params, "tokens": one.tokens, "experiment": one.experiment}
                row |= {"runs": len(one.runs), "status": one.curve.status}
                row |= {key: values[key] for key in ("f_star", "f_star_low", "f_star_high")}
                row |= {key: values[key] for key in ("peak", "peak_low", "peak_high", "a", "b", "c")}
                table.append({**row, "floor": one.floor.value, "tau": one.curve.tau})
        return table

    @property
    def missing_law(self) -> str:
        """What a law needs that is not there; empty where there is a law."""
        if self.headline:
            return ""
        sizes, tokens = (self.laws[0].params, self.laws[0].tokens) if self.laws else ((), 0)
        return f"no infusion law: {needs_sizes(FEWEST_MODELS, sizes, tokens or 0)}"


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is computed beside curves and laws.

    `noise` is the run-to-run noise tau of curves without seeds (None: that of the curves with seeds, if there are any).
    The size nearest to `hold_out` is predicted from the others. Each of `predict` is predicted for `triples` triples
    (None: as many as the sweep's).

    Raises:
        InputError: `hold_out` is no size, or `noise` no standard deviation.
    """

    noise: float | None = None
    hold_out: float | None = None
    predict: Sequence[Target] = ()
    triples: int | None = None

    def __post_init__(self) -> None:
        if self.hold_out is not None and not 0 < self.hold_out < math.inf:
            raise InputError(f"--hold-out {self.hold_out}: expected a number of parameters above 0, such as 1.05e9")
        if self.noise is not None and not 0 <= self.noise <= LARGEST_TAU:
            raise InputError(
                f"--noise {self.noise:g}: expected a standard deviation of log-odds from 0 to {LARGEST_TAU:g}"
            )


def fit_results(
    paths: Sequence[str | Path],
    task: str | Sequence[str] | None = None,
    chance: Chance = AUTO,
    *,
    options: FitOptions | None = None,
    runs: str | Path | None = None,
    select: Selection | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> FitReport:
    """Read lm-eval results under `paths`, fit a curve for each N and D, and the laws through their collapse points.

    `task`: None is kisl_wikidata, or the form of it that the results have. Of several tasks the first has the laws and
    predictions, and the others are in `other_tasks`. `runs` is a CSV with what the run cards of the results lack.
    `select` takes the runs whose card has, for each key, one of the values, as `--select` does: `{"tokens":
    ["307200"], "optimizer.lr": ["0.001", "0.002"]}`. `watch` gets (done, total) as curves are fitted.

    Raises:
        InputError: a path does not exist, there is no results file at all, `chance` is no floor, no run card is of
            `select`, one of several tasks has no results, or `hold_out` leaves too few models.
    """
    options, chance = options or FitOptions(), check_chance(chance)
    if task is not None and not isinstance(task, str):
        names, curves_only = list(dict.fromkeys(task)), FitOptions(noise=options.noise)
        reports = [
            fit_results(
                paths, name, chance, options=curves_only if at else options, runs=runs, select=select, watch=watch
            )
            for at, name in enumerate(names)
        ]
        for report in reports[1:]:
            if not report.observations:
                raise InputError(f"--task {report.task}: {report.set_aside[0].path}: {report.set_aside[0].reason}")
        return replace(
            reports[0],
            other_tasks=tuple(reports[1:]),
            set_aside=tuple(dict.fromkeys(file for report in reports for file in report.set_aside)),
            notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        )
    reading = read_results([Path(path) for path in paths], task, None if runs is None else Path(runs), select)
    notes = list(reading.notes)
    models: dict[tuple[int, int], list[Observation]] = defaultdict(list)
    for one in reading.observations:
        models[one.params, one.tokens].append(one)
    injected: list[tuple[str, list[Observation]]] = []
    letters: dict[Experiment, str] = {(): ""}
    for (params, tokens), every in sorted(models.items()):
        for experiment, group in sorted(experiments(every).items()):
            letter = letters.setdefault(experiment, f"·{chr(ord('A') + len(letters) - 1)}")
            if any(one.frequency > 0 for one in group):
                injected.append((letter, group))
            else:
                notes.append(f"{count(params)}{letter} on {count(tokens)} tokens: only runs at F = 0, so no curve")
    for experiment, letter in letters.items():
        if experiment:
            described = ", ".join(f"{key} = {value}" for key, value in experiment)
            notes.append(f"experiment {letter.lstrip('·')}: {described}")
    curves: list[CurveReport] = []
    noise = None if options.noise is None else RunNoise(options.noise, math.inf, "--noise")
    for letter, group in injected:
        curves.append(_fit_curve(group, chance, noise, letter))
        if watch is not None:
            watch(len(curves), len(injected))
    seeded = [one for one in curves if one.curve.tau_source == SEEDS and one.curve.tau > 0]
    if seeded and noise is None:
        # Curves without seeds have the noise of those with seeds, whose variances weigh as their degrees of freedom
        df = sum(one.curve.df for one in seeded)
        tau = math.sqrt(sum(one.curve.df * one.curve.tau**2 for one in seeded) / df)
        noise = RunNoise(tau, df, f"the seeds of {', '.join(one.name for one in seeded)}")
        curves = [
            _fit_curve(group, chance, noise, letter) if one.curve.tau_source == LACK_OF_FIT else one
            for (letter, group), one in zip(injected, curves, strict=True)
        ]

    # Laws go through the points of the curves that are ok, be it if runs vary, and each through those of one experiment
    laws: list[LawReport] = []
    members = _by_experiment(curves, letters)
    points_of: dict[str, list[CollapsePoint]] = {}
    for letter, group_of_curves in members.items():
        if len({json.dumps(run.card.data) for one in group_of_curves for run in one.runs if run.card.data}) > 1:
            notes.append("the runs are of different data or tokenizers (run card, data): a law across them mixes them")
        points = points_of[letter] = [
            CollapsePoint(
                params=one.params,
                tokens=one.tokens,
                f_star=one.curve.f_star,
                interval=one.curve.f_star_interval,
                conditional=one.curve.status == OK_IF_RUNS_VARY,
            )
            for one in group_of_curves
            if one.curve.ok
        ]
        groups: list[tuple[int | None, float | None, list[CollapsePoint]]] = [
            (budget, None, [point for point in points if point.tokens == budget])
            for budget in {one.tokens for one in group_of_curves}
        ]
        # Where D is in proportion to N, F* along that ray is a law of one variable
        if ray := ray_of(points):
            groups.append((None, ray, points))
        for budget, ratio, own in groups:
            law = law_through(own) if len({point.params for point in own}) >= FEWEST_MODELS else None
            laws.append(LawReport(tokens=budget, points=tuple(own), law=law, ratio=ratio, letter=letter))
    laws.sort(key=lambda law: (-len(law.params), -(law.tokens or 0), law.letter))
    # What there is once is of the experiment with most sizes
    main = laws[0].letter if laws else ""
    points = points_of.get(main, [])
    if len(members) > 1:
        notes.append(
            f"each experiment has its laws; laws of N and D, checks and predictions are those of experiment "
            f"{main.lstrip('·')} (--select chooses another)"
        )
    sizes = {params: [point for point in points if point.params == params] for params in {p.params for p in points}}
    several = [group for _, group in sorted(sizes.items()) if len({point.tokens for point in group}) >= FEWEST_BUDGETS]
    data_laws = tuple(map(fit_data_law, several))
    joint = None
    try:
        joint = fit_joint_law(points)
    except InputError as reason:
        if len(sizes) > 1 and len({point.tokens for point in points}) > 1:
            notes.append(f"no law in N and D: {reason}")
    held_out = _held_out(points_of, options.hold_out)
    usable = Laws(
        joint=joint,
        infusion=[(one.tokens, one.law) for one in laws if one.law and one.tokens and one.letter == main],
        data=data_laws,
        ray=next(((one.ratio, one.law) for one in laws if one.law and one.ratio and one.letter == main), None),
    )
    sweep = sweep_of(one.card for one in reading.observations)
    return FitReport(
        task=reading.task,
        chance=chance,
        observations=reading.observations,
        set_aside=reading.set_aside,
        curves=tuple(curves),
        laws=tuple(laws),
        data_laws=data_laws,
        joint=joint,
        held_out=held_out,
        verdicts=law_verdicts([one.curve.status for one in members.get(main, [])], points),
        predictions=tuple(predict(target, points, usable, sweep, options.triples) for target in options.predict),
        notes=tuple(dict.fromkeys(notes)),
    )


def _by_experiment(curves: Sequence[CurveReport], letters: Mapping[Experiment, str]) -> dict[str, list[CurveReport]]:
    """The curves of each experiment that has a letter; all under "" where none has.

    A curve without a letter (of an N and D at which nothing differs) is of the experiments that its run cards agree
    with, and of all where they agree with none, as a setting that changes with N.
    """
    lettered = {one.letter for one in curves if one.letter}
    described = {letter: experiment for experiment, letter in letters.items() if letter in lettered} or {"": ()}
    members: dict[str, list[CurveReport]] = {letter: [] for letter in described}
    for one in curves:
        agreeing = [letter for letter in described if all(belongs_to(run.card, described[letter]) for run in one.runs)]
        for letter in [one.letter] if one.letter else agreeing or described:
            members[letter].append(one)
    return members


def _held_out(points_of: Mapping[str, Sequence[CollapsePoint]], params: float | None) -> tuple[HeldOut, ...]:
    """The size nearest to `params`, held out in each experiment in which it is."""
    if params is None:
        return ()
    sizes = sorted({point.params for points in points_of.values() for point in points})
    if not sizes:
        raise InputError(f"--hold-out {params:g}: no model has a collapse point (status ok) that could be held out")
    nearest = min(sizes, key=lambda size: abs(math.log(size / params)))
    results, errors = [], []
    for letter, points in points_of.items():
        if any(point.params == nearest for point in points):
            name = f", experiment {letter.lstrip('·')}" if letter else ""
            try:
                results += [replace(one, source=f"{one.source}{name}") for one in hold_out(points, nearest)]
            except InputError as error:
                errors.append(error)
    if not results:
        raise InputError(f"--hold-out {params:g}: N = {count(nearest)} is nearest; {errors[0]}")
    return tuple(results)


def _fit_curve(group: Sequence[Observation], chance: Chance, noise: RunNoise | None, letter: str) -> CurveReport:
    """Fit the curve of the observations of one N and D, of which at least one has F > 0."""
    floor = find_floor(group, chance)
    injected = [one for one in group if one.frequency > 0]
    runs, baselines = merge_groups(injected), merge_groups(matching_baselines(group)[0])
    outcomes = outcome_matrix(runs)
    frequencies, correct, total = zip(*((run.frequency, run.correct, run.total) for run in runs), strict=True)
    # Cards that say what a run was trained on, and how, were compared already: these runs differ in their seeds alone
    same = all(run.card.data and run.card.optimizer for run in runs)
    fit = partial(fit_collapse_curve, frequencies, correct, total, outcomes=outcomes, noise=noise, one_experiment=same)

    def fitted(floor: float, error: float) -> CollapseCurve:
        if floor < 1:
            return fit(floor, floor_error=error)
        return CollapseCurve(  # no share above it is left for a curve
            status=NOT_IDENTIFIED,
            message="the guessing floor is 1, as every item it is measured by is right; set another with --chance",
            floor=floor,
            frequency_range=(min(frequencies), max(frequencies)),
        )

    curve, warning = fitted(floor.value, floor.error), ""
    # A floor that no F = 0 run measured: does the verdict depend on it?
    other = find_floor(group, AUTO) if chance != AUTO else floor
    others = [floor.value - 2 * floor.error, floor.value + 2 * floor.error] if other is floor else [other.value]
    for value in [] if floor.measured else others:
        status = fitted(max(0.0, min(1.0, value)), other.error).status
        if status != curve.status and not warning:
            warning = f"the verdict depends on the guessing floor: with {value:.3f} it is '{status}'"
            warning += "; add a run at F = 0" if other is floor else f" ({other.source})"
    pairing = ""
    if outcomes is None:
        without = sum(one.outcomes is None for one in injected)
        pairing = f"not paired by triple: {without} of {len(injected)} results have no samples (lm_eval --log_samples)"
    elif curve.paired:
        pairing = f"paired over {len(outcomes):,} triples"
    return CurveReport(
        params=group[0].params,
        tokens=group[0].tokens,
        floor=floor,
        runs=runs,
        baselines=baselines,
        curve=curve,
        pairing=pairing,
        floor_warning=warning,
        letter=letter,
        notes=(*floor.notes, *_curve_notes(group, runs, floor)),
    )


def _curve_notes(group: Sequence[Observation], runs: Sequence[Observation], floor: Floor) -> list[str]:
    """What makes the runs of one curve less comparable than seeds of one experiment."""
    notes = []
    # Only counts above the floor can come from the curve
    if all(wilson(run.correct, run.total)[1] < floor.value for run in runs):
        notes.append("every run is below the guessing floor, so it is not theirs; set another with --chance")
    for key in _SETTINGS:
        values = {json.dumps(getattr(run.card, key)) for run in runs}
        if len(values) > 1:
            notes.append(f"its runs differ in {key} ({', '.join(sorted(values))}), so they are no replicates")
    for setting in sorted({key for one in group for key in one.settings}):
        values = {one.settings.get(setting, "default") for one in group}
        if len(values) > 1:
            notes.append(f"its runs were probed with different lm-eval settings: {setting} {', '.join(sorted(values))}")
    if len({run.card.triples.get("sha256") for run in runs}) > 1:
        notes.append("its runs differ in their triples (sha256), so they are no replicates")
    if len({run.card.parent is None for run in runs}) > 1:
        notes.append("some runs are from scratch, others continued from a checkpoint")
    idle = sorted({str(one.group) for one in group if one.frequency == 0 and not one.baseline})
    if idle:
        notes.append(f"groups at F = 0 in a run with injected groups are not used: {', '.join(idle)}")
    return notes
