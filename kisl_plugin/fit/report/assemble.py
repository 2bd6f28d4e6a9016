"""From results to curves, laws and predictions: what kisl-fit prints and writes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kisl_plugin.fit.human import count
from kisl_plugin.fit.laws.verdicts import judge
from kisl_plugin.fit.planner.predict import predict
from kisl_plugin.fit.planner.sources import Laws
from kisl_plugin.fit.planner.sweep import sweep_of
from kisl_plugin.fit.reading.floor import AUTO, Chance, check_chance
from kisl_plugin.fit.reading.observations import Observation, SetAside
from kisl_plugin.fit.reading.results import TASK, read_results
from kisl_plugin.fit.report.asked import Asked
from kisl_plugin.fit.report.gathered import CurveReport, FitReport
from kisl_plugin.fit.report.law_reports import collapse_points, data_laws, held_out, infusion_laws, joint_law
from kisl_plugin.fit.report.model_curve import curve_report
from kisl_plugin.fit.report.resampled import bootstrap
from kisl_plugin.fit.report.words import other_loss

Watch = Callable[[str, int, int], None]
NOTHING_ELSE = Asked()


def in_silence(what: str, done: int, total: int) -> None:
    """Show no progress."""


def fit_results(
    paths: Sequence[str | Path],
    task: str = TASK,
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
    task: str = TASK,
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
        curves.append(curve_report(group, chance, asked.loss))
    watch("fitting curves", len(injected), len(injected))
    report = _with_laws(observations, task, chance, curves, asked, set_aside, (*notes, *idle, *other_loss(asked.loss)))
    drawn = bootstrap(curves, observations, report.predictions, asked.bootstrap, watch)
    if asked.bootstrap and drawn is None:
        report = replace(report, notes=(*report.notes, "no bootstrap: no curve has the status ok"))
    return replace(report, bootstrap=drawn)


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
        loss=asked.loss,
        observations=tuple(observations),
        set_aside=tuple(set_aside),
        curves=tuple(curves),
        laws=laws,
        data_laws=by_size,
        joint=joint,
        held_out=held,
        verdicts=judge([found.curve.status for found in curves], points),
        predictions=tuple(predict(target, points, known, sweep, asked.triples) for target in asked.predict),
        bootstrap=None,
        notes=tuple(notes),
    )
