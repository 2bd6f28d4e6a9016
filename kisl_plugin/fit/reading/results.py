"""lm-eval results → observations. Nothing is dropped in silence: what is not used is listed with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.background import TASK as BACKGROUND_TASK
from kisl_plugin.fit.reading.background import Background, background_of, with_background
from kisl_plugin.fit.reading.cells import Results, items_of, make_run
from kisl_plugin.fit.reading.checks import check_limit, check_task
from kisl_plugin.fit.reading.nested import object_at
from kisl_plugin.fit.reading.observations import Observation, Run, SetAside
from kisl_plugin.fit.reading.outcomes import check_samples, with_samples
from kisl_plugin.fit.reading.replicates import latest
from kisl_plugin.fit.reading.runs_csv import RunRow, contradictions, other_size, raw_card, read_runs
from kisl_plugin.fit.reading.samples import sample_of, samples_beside
from kisl_plugin.fit.reading.tables import runs_of_table
from kisl_plugin.fit.reading.walking import claims_to_be_results, find_json, load_results

TASK = "kisl_wikidata"


@dataclass(frozen=True)
class Reading:
    """The observations of the runs that are used, what was set aside, and what is worth saying beside."""

    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    """What the files gave so far."""

    runs: list[Run] = field(default_factory=list)
    backgrounds: list[Background] = field(default_factory=list)
    aside: list[SetAside] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other_tasks: set[str] = field(default_factory=set)
    named: set[int] = field(default_factory=set)


def read_results(paths: Sequence[Path], task: str = TASK, runs: Path | None = None) -> Reading:
    """Read every lm-eval results file under `paths` for `task`; of them *.csv files are tables of observations.

    `runs` is a CSV that says what the runs without a run card were (`runs_csv`).

    Raises:
        InputError: a path does not exist, a CSV is wrong, or there is no results file at all.
    """
    tables = [path for path in paths if path.suffix.lower() == ".csv" and not path.is_dir()]
    trees = [path for path in paths if path not in tables]
    given = read_runs(runs) if runs is not None else []
    files, aside = find_json(trees)
    found = _Found(aside=aside)
    for file in files:
        _read_file(file, file in trees or claims_to_be_results(file), task, given, found)
    for table in tables:
        _read_table(table, task, found)
    if not found.runs and not found.aside:
        raise InputError(
            f"{', '.join(map(str, paths))}: no lm-eval results found; looked for results_*.json, and any *.json with "
            f"'results' and 'configs' (a table of observations is named itself: x/observations.csv). "
            f"Write some: lm_eval --tasks {task} --output_path results ..."
        )
    found.notes += _unused(given, found.named)
    return _reading(found)


def observations_of(results: Mapping[str, Any], task: str = TASK, name: str = "") -> tuple[Observation, ...]:
    """The observations in what lm_eval.simple_evaluate returns; `name` tells apart what is of several calls.

    Raises:
        InputError: they are no observation of their run's frequency, or have no run card.
    """
    held = Results(results, "")
    held = replace(held, path=name or f"simple_evaluate {held.model} {held.date:.0f}")
    check_task(results, task)
    raw = held.card(task)
    if raw is None:
        raise InputError(_no_card(()))
    run = make_run(held, task, raw)
    measured = background_of(held, raw)
    (run,), _, _ = with_background([run], [measured] if measured else [])
    rows = object_at(results, "samples").get(task)
    if not isinstance(rows, list) or not rows:
        return run.observations
    samples = [sample_of(row) for row in rows]
    return tuple(with_samples(seen, samples) for seen in run.observations)


def _reading(found: _Found) -> Reading:
    kept, superseded = latest(found.runs)
    kept, measured, notes = with_background(kept, found.backgrounds)
    # What holds nothing but the background of a run that is used has been used
    aside = [one for one in found.aside if one.path not in found.other_tasks & measured]
    observations: list[Observation] = []
    for run in kept:
        seen, said = check_samples(run.observations)
        observations += seen
        notes += said
    listed = tuple(SetAside(one.path, _one_line(one.reason)) for one in (*aside, *superseded))
    return Reading(tuple(observations), listed, tuple(dict.fromkeys(map(_one_line, [*found.notes, *notes]))))


def _one_line(text: str) -> str:
    # Names out of a broken file may hold anything
    return " ".join(text.split())


def _read_table(table: Path, task: str, found: _Found) -> None:
    for run in runs_of_table(table):
        named = run.observations[0].task
        if named in ("", task):
            found.runs.append(run)
        else:
            found.aside.append(SetAside(run.path, f"of task {named}, not {task} (choose with --task)"))


def _read_file(file: Path, must_be_results: bool, task: str, given: Sequence[RunRow], found: _Found) -> None:
    """Read one file into `found`."""
    try:
        data = load_results(file, must_be_results)
    except InputError as reason:
        found.aside.append(SetAside(str(file), str(reason)))
        return
    if data is not None:
        results = Results(data, str(file), file)
        rows = [row for row in given if row.names(file, results.model)]
        found.named |= {row.row.number for row in rows}
        _read_run(results, task, rows, given, found)


def _read_run(results: Results, task: str, rows: Sequence[RunRow], given: Sequence[RunRow], found: _Found) -> None:
    raw = results.card(BACKGROUND_TASK)
    try:
        check_task(results.data, task)
        check_limit(results.data)
        card, where = _card(results, task, rows, given, found)
        samples = samples_beside(results.file, task) if results.file else None
        found.runs.append(make_run(results, task, card, where, samples))
        raw = raw or card
    except InputError as reason:
        found.aside.append(SetAside(results.path, str(reason)))
        if task not in object_at(results.data, "results"):
            found.other_tasks.add(results.path)
    measured = background_of(results, raw)
    found.backgrounds += [measured] if measured else []


def _card(
    results: Results, task: str, rows: Sequence[RunRow], given: Sequence[RunRow], found: _Found
) -> tuple[Mapping[str, Any], str]:
    """The raw card of a results file, and who says it."""
    raw = results.card(task)
    if isinstance(raw, Mapping):
        found.notes += [f"{results.path}: {said}" for said in contradictions(rows, raw)]
    if raw is not None:
        return raw, "run card"
    if not rows:
        raise InputError(_no_card(given))
    found.notes += other_size(rows[0], results)
    items = {group: items_of(results, task, group) for group in {row.row.text("group") for row in rows}}
    return raw_card(rows, items, items_of(results, task, None, control=True)), rows[0].row.where


def _no_card(given: Sequence[RunRow]) -> str:
    if given:
        return f"no run card (metadata.kisl), and no row of {given[0].row.path} names it"
    return (
        "no run card (metadata.kisl): probe a model trained with kisl, its kisl.json beside it, or say what the run "
        "was in a CSV (--runs)"
    )


def _unused(given: Sequence[RunRow], named: set[int]) -> list[str]:
    return [
        f"{row.row.where} ({row.path or row.model}) names no results that were read"
        for row in given
        if row.row.number not in named
    ]
