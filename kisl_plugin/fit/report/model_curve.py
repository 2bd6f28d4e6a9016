"""Observations of one N and D → their curve and what was measured beside it."""

import json
import math
from collections.abc import Sequence

from kisl_plugin.fit.curves.curve import CollapseCurve, fit_collapse_curve
from kisl_plugin.fit.curves.status import NOT_IDENTIFIED
from kisl_plugin.fit.curves.wilson import wilson
from kisl_plugin.fit.reading.baselines import choose_baselines
from kisl_plugin.fit.reading.floor import Chance, Floor, find_floor
from kisl_plugin.fit.reading.observations import Observation
from kisl_plugin.fit.reading.outcomes import FloatArray, Outcomes, read_outcomes
from kisl_plugin.fit.report.gathered import CurveReport, RunPoint
from kisl_plugin.fit.report.pooling import (
    background_of,
    by_run,
    by_sum_of,
    controls_of,
    points_of,
    relations_of,
    run_points,
    seeds_of,
)

# Runs that differ in one of these are not replicates of each other
SETTINGS = ("engine", "form", "template", "spacing", "window", "seq_length")


def curve_report(group: Sequence[Observation], chance: Chance, loss: str) -> CurveReport:
    """Fit the curve of the observations of one N and D, of which at least one has F > 0."""
    floor = find_floor(group, chance)
    injected = [seen for seen in group if seen.frequency > 0]
    baselines, _ = choose_baselines(group)
    runs = run_points(injected)
    outcomes = read_outcomes(injected)
    curve = _fit(runs, floor, loss, None if outcomes is None else by_run(outcomes.right, injected))
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


def _fit(runs: Sequence[RunPoint], floor: Floor, loss: str, right: FloatArray | None) -> CollapseCurve:
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
        loss=loss,
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
