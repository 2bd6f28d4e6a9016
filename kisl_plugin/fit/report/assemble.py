"""From results folders to curves and laws: what kisl-fit prints and writes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kisl_plugin.fit.curves.curve import CollapseCurve, fit_collapse_curve
from kisl_plugin.fit.curves.status import NOT_IDENTIFIED
from kisl_plugin.fit.human import count
from kisl_plugin.fit.laws.law import FEWEST_MODELS, InfusionLaw, fit_infusion_law
from kisl_plugin.fit.reading.floor import AUTO, Chance, Floor, check_chance, find_floor
from kisl_plugin.fit.reading.observations import Observation, SetAside
from kisl_plugin.fit.reading.results import TASK, read_results

# Runs that differ in one of these are not replicates of each other
SETTINGS = ("engine", "form", "template", "spacing", "window", "seq_length")


@dataclass(frozen=True)
class Point:
    """All items asked at one frequency, the seeds (or groups) summed."""

    frequency: int
    correct: int
    total: int

    @property
    def share(self) -> float:
        """The memorisation rate P."""
        return self.correct / self.total


@dataclass(frozen=True, kw_only=True)
class CurveReport:
    """The curve of the models with N parameters trained on D tokens.

    `seeds` are those of the injection and of training (None where the run cards do not say it).
    """

    params: int
    tokens: int
    floor: Floor
    points: tuple[Point, ...]
    controls: tuple[Point, ...]
    seeds: tuple[tuple[int, int | None], ...]
    curve: CollapseCurve
    notes: tuple[str, ...]


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
    notes: tuple[str, ...]

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


def fit_results(paths: Sequence[str | Path], task: str = TASK, chance: Chance = AUTO) -> FitReport:
    """Read lm-eval results under `paths`, fit a curve for each N and D, and a law for each D.

    Raises:
        InputError: a path does not exist, there is no results file at all, or `chance` is no floor.
    """
    chance = check_chance(chance)
    reading = read_results([Path(path) for path in paths], task)
    cells: dict[tuple[int, int], list[Observation]] = defaultdict(list)
    for seen in reading.observations:
        cells[seen.params, seen.tokens].append(seen)
    curves, notes = [], []
    for (params, tokens), group in sorted(cells.items()):
        if any(seen.frequency > 0 for seen in group):
            curves.append(_curve(params, tokens, group, chance))
        else:
            notes.append(f"N = {count(params)}, D = {count(tokens)}: runs at F = 0 only, so no curve")
    return FitReport(
        task=task,
        chance=chance,
        observations=reading.observations,
        set_aside=reading.set_aside,
        curves=tuple(curves),
        laws=_laws(curves),
        notes=tuple(notes),
    )


def _curve(params: int, tokens: int, group: Sequence[Observation], chance: Chance) -> CurveReport:
    floor = find_floor(group, chance)
    injected = [seen for seen in group if seen.frequency > 0]
    points = _pool((seen.frequency, seen.correct, seen.total) for seen in injected)
    controls = _pool(
        (seen.frequency, seen.control_correct or 0, seen.control_total)
        for seen in injected
        if seen.control_total and seen.group is None
    )
    return CurveReport(
        params=params,
        tokens=tokens,
        floor=floor,
        points=points,
        controls=controls,
        seeds=_seeds(injected),
        curve=_fit(points, floor),
        notes=(*floor.notes, *_notes(group, injected)),
    )


def _fit(points: Sequence[Point], floor: Floor) -> CollapseCurve:
    if floor.value >= 1:  # no share above it is left for a curve
        return CollapseCurve(
            status=NOT_IDENTIFIED,
            message="the guessing floor is 1, as its F = 0 runs got every item right; give another with --chance",
            floor=floor.value,
            frequency_range=(points[0].frequency, points[-1].frequency),
        )
    return fit_collapse_curve(
        [point.frequency for point in points],
        [point.correct for point in points],
        [point.total for point in points],
        floor=floor.value,
    )


def _pool(cells: Iterable[tuple[int, int, int]]) -> tuple[Point, ...]:
    sums: dict[int, list[int]] = {}
    for frequency, correct, total in cells:
        both = sums.setdefault(frequency, [0, 0])
        both[0] += correct
        both[1] += total
    return tuple(Point(frequency, *sums[frequency]) for frequency in sorted(sums))


def _seeds(injected: Sequence[Observation]) -> tuple[tuple[int, int | None], ...]:
    pairs = {(seen.seed, seen.train_seed) for seen in injected}
    return tuple(sorted(pairs, key=lambda pair: (pair[0], pair[1] is not None, pair[1] or 0)))


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


def _laws(curves: Sequence[CurveReport]) -> tuple[LawReport, ...]:
    budgets: dict[int, list[CurveReport]] = {report.tokens: [] for report in curves}
    for report in curves:
        if report.curve.ok:
            budgets[report.tokens].append(report)
    laws = [_law(tokens, found) for tokens, found in budgets.items()]
    return tuple(sorted(laws, key=lambda law: (len(law.params), law.tokens), reverse=True))


def _law(tokens: int, found: Sequence[CurveReport]) -> LawReport:
    params = tuple(report.params for report in found)
    if len(found) < FEWEST_MODELS:
        return LawReport(tokens=tokens, params=params, law=None)
    law = fit_infusion_law(
        [6.0 * size * tokens for size in params],
        [report.curve.f_star for report in found],
        [report.curve.f_star_interval for report in found],
    )
    return LawReport(tokens=tokens, params=params, law=law)
