"""From results to curves, laws and predictions: what kisl-fit prints and writes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from kisl_plugin.fit.human import count
from kisl_plugin.fit.laws.law import FEWEST_MODELS, fit_infusion_law
from kisl_plugin.fit.reading.floor import AUTO, Chance, check_chance
from kisl_plugin.fit.reading.observations import Observation, SetAside
from kisl_plugin.fit.reading.results import TASK, read_results
from kisl_plugin.fit.report.gathered import CurveReport, FitReport, LawReport
from kisl_plugin.fit.report.model_curve import curve_report

Watch = Callable[[str, int, int], None]


def in_silence(what: str, done: int, total: int) -> None:
    """Show no progress."""


def fit_results(
    paths: Sequence[str | Path],
    task: str = TASK,
    chance: Chance = AUTO,
    *,
    loss: str = "binomial",
    runs: str | Path | None = None,
    watch: Watch = in_silence,
) -> FitReport:
    """Read lm-eval results under `paths`, fit a curve for each N and D, and a law for each D.

    `runs` is a CSV with what the results' run cards lack; `watch` is told (what, done, total) as curves are fitted.

    Raises:
        InputError: a path does not exist, there is no results file at all, or `chance` is no floor.
    """
    chance = check_chance(chance)
    reading = read_results([Path(path) for path in paths], task, None if runs is None else Path(runs))
    return fit_observations(
        reading.observations,
        task,
        chance,
        loss=loss,
        set_aside=reading.set_aside,
        notes=reading.notes,
        watch=watch,
    )


def fit_observations(
    observations: Sequence[Observation],
    task: str = TASK,
    chance: Chance = AUTO,
    *,
    loss: str = "binomial",
    set_aside: Sequence[SetAside] = (),
    notes: Sequence[str] = (),
    watch: Watch = in_silence,
) -> FitReport:
    """The same from observations, such as those that `observations_of` makes of lm_eval's results in memory."""
    cells: dict[tuple[int, int], list[Observation]] = defaultdict(list)
    for seen in observations:
        cells[seen.params, seen.tokens].append(seen)
    injected = {cell: group for cell, group in sorted(cells.items()) if any(seen.frequency > 0 for seen in group)}
    idle = [
        f"{count(params)} on {count(tokens)} tokens: runs at F = 0 only, so no curve."
        for params, tokens in sorted(set(cells) - set(injected))
    ]
    curves: list[CurveReport] = []
    for done, group in enumerate(injected.values()):
        watch("fitting curves", done, len(injected))
        curves.append(curve_report(group, chance, loss))
    watch("fitting curves", len(injected), len(injected))
    return FitReport(
        task=task,
        chance=chance,
        loss=loss,
        observations=tuple(observations),
        set_aside=tuple(set_aside),
        curves=tuple(curves),
        laws=_laws(curves),
        notes=(*notes, *idle),
    )


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
        [report.compute for report in found],
        [report.curve.f_star for report in found],
        [report.curve.f_star_interval for report in found],
    )
    return LawReport(tokens=tokens, params=params, law=law)
