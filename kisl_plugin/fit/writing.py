"""The report folder: the page, fit.json, observations.csv, and the figures as PNG and PDF.

fit.json is read by other programs: its keys stay, and a value that is not identified is null, never NaN.
"""

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin import __version__
from kisl_plugin.errors import InputError
from kisl_plugin.files import no_formula, write_atomically
from kisl_plugin.fit.observations import Observation
from kisl_plugin.fit.report import OBSERVATION_COLUMNS, CurveReport, FitReport, LawReport, observation_table

if TYPE_CHECKING:
    from kisl_plugin.fit.page import ExtraSection

__all__ = ["write_report"]

_SCHEMA = 1
_LAW_KEYS = (
    "A A_interval alpha alpha_interval E E_interval e_distinguishable r2 r2_by_chance scatter df models compute_range "
    "interval_method caveats"
)
_DATA_LAW_KEYS = "params gamma gamma_interval scatter df points tokens_range caveats"
_JOINT_KEYS = "gamma gamma_interval gamma_at scatter df points caveats"
_FORM_KEYS = "name formula parameters intervals deviance aic weight leave_one_out_error"
_PREDICTION_KEYS = (
    "params tokens compute f_star source decades words triples exposures injected_tokens injected_fraction caveats"
)


def write_report(report: FitReport, out: str | Path, extra: "ExtraSection | None" = None) -> list[Path]:
    """Write the report into the folder `out`, made if need be; returns the files, the page first.

    The page gets the section `extra` below its curves.

    Raises:
        InputError: the folder cannot be made or written.
    """
    from kisl_plugin.fit.figures import draw_curves, draw_laws, draw_model, draw_regions, rendered
    from kisl_plugin.fit.page import report_page

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"curves": draw_curves(report)}
        if any(one.params for one in report.laws):
            figures["law"] = draw_laws(report)
            if regions := draw_regions(report):
                figures["region"] = regions
        svgs = {name: rendered(figure, "svg") for name, figure in figures.items()}
        models = [rendered(draw_model(one), "svg") for one in report.curves]
        text = json.dumps(report_entries(report), indent=2, ensure_ascii=False, allow_nan=False)
        files = [
            write_atomically(folder / "index.html", report_page(report, svgs, models, extra)),
            write_atomically(folder / "fit.json", f"{text}\n"),
            write_observations(
                (one for task in report.tasks for one in task.observations), folder / "observations.csv"
            ),
        ]
        for name, figure in figures.items():
            for kind in ("png", "pdf"):
                files.append(write_atomically(folder / f"{name}.{kind}", rendered(figure, kind)))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be written ({reason}); choose another place with --out") from None
    return files


def write_observations(observations: Iterable[Observation], path: Path) -> Path:
    """Write the observations as CSV, for people.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, OBSERVATION_COLUMNS)
    writer.writeheader()
    for row in observation_table(observations):
        writer.writerow({key: no_formula(cell) if isinstance(cell, str) else cell for key, cell in row.items()})
    return write_atomically(path, text.getvalue())


def report_entries(report: FitReport) -> dict[str, Any]:
    """The whole report as fit.json has it."""
    headline, joint = report.headline, report.joint
    entries = {
        "schema": _SCHEMA,
        "version": __version__,
        "task": report.task,
        "chance": report.chance,
        "curves": [_curve(one) for one in report.curves],
        "other_tasks": [{"task": one.task, "curves": list(map(_curve, one.curves))} for one in report.other_tasks],
        "law": headline and _law(headline),
        "law_missing": report.missing_law or None,
        "laws": [_law(one) for one in report.laws],
        "data_laws": [_fields(law, _DATA_LAW_KEYS) for law in report.data_laws],
        "joint": joint and {**_fields(joint, _JOINT_KEYS), "forms": [_fields(one, _FORM_KEYS) for one in joint.forms]},
        "held_out": [asdict(one) for one in report.held_out],
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
        "predictions": [
            {
                **_fields(one, _PREDICTION_KEYS),
                "f_star_interval": one.interval,
                "interval_missing": one.interval_missing or None,
            }
            for one in report.predictions
        ],
        "notes": report.notes,
        "set_aside": [asdict(one) for one in report.set_aside],
    }
    return {key: _finite(entry) for key, entry in entries.items()}


def _fields(value: Any, keys: str) -> dict[str, Any]:
    return {key: getattr(value, key) for key in keys.split()}


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, and lists for tuples and arrays."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _curve(one: CurveReport) -> dict[str, Any]:
    return {
        **_fields(one, "params tokens experiment"),
        "floor": one.floor.value,
        "floor_source": one.floor.source,
        "floor_error": one.floor.error,
        "floor_warning": one.floor_warning or None,
        **one.fitted,
        **_fields(one.curve, "status message tau tau_source needed_tau df interval_method paired"),
        **_fields(one.curve, "deviance form_p fall_p unimodal_p largest_fall"),
        "seeds": sorted({seed for seed, _ in one.seeds}),
        "train_seeds": sorted({seed for _, seed in one.seeds if seed is not None}),
        "points": [asdict(point) for point in one.points],
        "runs": [
            {
                **_fields(run, "path frequency correct total control_correct control_total bits_per_byte"),
                "seed": run.seeds[0],
                "train_seed": run.seeds[1],
                "residual": residual,
            }
            for run, residual in zip(one.runs, one.residuals, strict=True)
        ],
        "control": [asdict(point) for point in one.controls],
        "background": [asdict(point) for point in one.background],
        "notes": list(filter(None, (one.pairing, *one.notes))),
    }


def _law(one: LawReport) -> dict[str, Any]:
    entry = {
        "tokens": one.tokens,
        "tokens_per_param": one.ratio,
        **_fields(one, "experiment params conditional"),
        **(_fields(one.law, _LAW_KEYS) if one.law else dict.fromkeys(_LAW_KEYS.split())),
        "region": one.law and one.law.region and asdict(one.law.region),
    }
    if one.law:
        entry["without_E"] = one.law.without_E and _fields(one.law.without_E, _LAW_KEYS)
        entry["leave_one_out"] = [asdict(left) for left in one.law.leave_one_out]
        entry["leave_one_out_error"] = one.law.leave_one_out_error
    return entry
