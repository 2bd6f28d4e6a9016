"""The report folder: the page, the numbers, and the figures as PNG and PDF."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin import __version__
from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.fit.joint import JointLaw
from kisl_plugin.fit.law import InfusionLaw
from kisl_plugin.fit.predict import as_json as prediction_entry
from kisl_plugin.fit.predict import sweep_of
from kisl_plugin.fit.report import CurveReport, FitReport, LawReport, Point, RunPoint, Watch, in_silence
from kisl_plugin.fit.tables import write_table

# The report as fit.json holds it: null where a value is not identified, never NaN.

SCHEMA = 1
CURVE_KEYS = (
    *("tau", "tau_source", "df", "interval_method", "paired"),
    *("deviance", "form_p", "fall_p", "unimodal_p", "largest_fall"),
)
LAW_KEYS = (
    *("A", "alpha", "alpha_interval", "E", "E_interval", "e_distinguishable", "r2", "r2_by_chance", "scatter", "df"),
    *("models", "compute_range", "interval_method", "caveats"),
)
DATA_LAW_KEYS = ("params", "gamma", "gamma_interval", "scatter", "df", "points", "tokens_range", "caveats")
JOINT_KEYS = ("gamma", "gamma_interval", "gamma_at", "scatter", "df", "points", "caveats")
FORM_KEYS = ("name", "formula", "parameters", "intervals", "deviance", "aic", "weight", "leave_one_out_error")


def as_json(report: FitReport) -> dict[str, Any]:
    """The whole report."""
    headline = report.headline
    entries = {
        "schema": SCHEMA,
        "version": __version__,
        "task": report.task,
        "chance": report.chance,
        "curves": [curve_entry(found) for found in report.curves],
        "law": _law(headline) if headline else None,
        "law_missing": report.missing_law or None,
        "laws": [_law(found) for found in report.laws],
        "data_laws": [_fields(law, DATA_LAW_KEYS) for law in report.data_laws],
        "joint": report.joint and _joint(report.joint),
        "held_out": [asdict(held) for held in report.held_out],
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
        "predictions": [prediction_entry(prediction) for prediction in report.predictions],
        "notes": list(report.notes),
        "set_aside": [{"path": aside.path, "reason": aside.reason} for aside in report.set_aside],
    }
    return {key: finite(entry) for key, entry in entries.items()}


def finite(value: Any) -> Any:
    """The same with None for every NaN and infinity, lists for tuples, and plain numbers for numpy's."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def curve_entry(found: CurveReport) -> dict[str, Any]:
    """One curve."""
    curve = found.curve
    known = {
        "a": curve.a,
        "b": curve.b,
        "c": curve.c,
        "f_star": curve.f_star,
        "f_star_interval": curve.f_star_interval,
        "peak": curve.peak,
        "peak_interval": curve.peak_interval,
    }
    return {
        "params": found.params,
        "tokens": found.tokens,
        "floor": found.floor.value,
        "floor_source": found.floor.source,
        # Of a curve without a collapse point these would be read as if there were one
        **(known if curve.ok else dict.fromkeys(known)),
        "status": curve.status,
        "message": curve.message,
        **_fields(curve, CURVE_KEYS),
        "seeds": sorted({seed for seed, _ in found.seeds}),
        "train_seeds": sorted({seed for _, seed in found.seeds if seed is not None}),
        "points": _points(found.points),
        "runs": [_run(run) for run in found.runs],
        "control": _points(found.controls),
        "by_sum": _points(found.by_sum),
        "background": [
            {"frequency": seen.frequency, "bits_per_byte": seen.bits_per_byte, "runs": seen.runs}
            for seen in found.background
        ],
        "relations": {name: _points(points) for name, points in found.relations.items()},
        "notes": [*([found.pairing] if found.pairing else []), *found.notes],
    }


def _points(points: Iterable[Point]) -> list[dict[str, int]]:
    return [{"frequency": p.frequency, "correct": p.correct, "total": p.total} for p in points]


def _run(run: RunPoint) -> dict[str, Any]:
    return {
        "path": run.path,
        "frequency": run.frequency,
        "seed": run.seed,
        "train_seed": run.train_seed,
        "correct": run.correct,
        "total": run.total,
        "by_sum": run.by_sum,
        "control_correct": run.control and run.control.correct,
        "control_total": run.control and run.control.total,
        "bits_per_byte": run.bits_per_byte,
    }


def _law(found: LawReport) -> dict[str, Any]:
    fitted = law_entry(found.law) if found.law else dict.fromkeys(LAW_KEYS)
    return {"tokens": found.tokens, "params": found.params, **fitted}


def law_entry(law: InfusionLaw) -> dict[str, Any]:
    """One infusion law."""
    without = law.without_E
    return {
        **_fields(law, LAW_KEYS),
        "without_E": without and _fields(without, LAW_KEYS),
        "leave_one_out": [asdict(left) for left in law.leave_one_out],
        "leave_one_out_error": law.leave_one_out_error,
    }


def _joint(law: JointLaw) -> dict[str, Any]:
    return {**_fields(law, JOINT_KEYS), "forms": [_fields(form, FORM_KEYS) for form in law.forms]}


def _fields(found: Any, keys: Iterable[str]) -> dict[str, Any]:
    return {key: getattr(found, key) for key in keys}


# curves.csv: one row per curve, for a spreadsheet.

COLUMNS = (
    "params",
    "tokens",
    "status",
    "f_star",
    "f_star_low",
    "f_star_high",
    "peak",
    "peak_low",
    "peak_high",
    "a",
    "b",
    "c",
    "floor",
    "tau",
    "tau_source",
    "df",
    "fall_p",
    "unimodal_p",
    "form_p",
    "largest_fall",
    "paired",
    "runs",
)


def curves_csv(report: FitReport) -> str:
    """The table; a value that is not identified is an empty cell."""
    stream = io.StringIO(newline="")
    rows = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    for found in report.curves:
        entry = finite(curve_entry(found))
        for name in ("f_star", "peak"):
            entry[f"{name}_low"], entry[f"{name}_high"] = entry[f"{name}_interval"] or (None, None)
        rows.writerow({**entry, "runs": len(found.runs)})
    return stream.getvalue()


# The report folder: the page, the numbers, and the figures as PNG and PDF.

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(report: FitReport, out: str | Path, watch: Watch = in_silence) -> list[Path]:
    """Write the report into the folder `out`, made if need be; returns the files, the page first.

    `watch` is told (what, done, total) as figures are drawn.

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = Path(out)
    with _writing(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        return _write(report, folder, watch)


def write_observations(report: FitReport, path: Path) -> Path:
    """Write the observations as CSV, which kisl-fit reads in the place of the results.

    Raises:
        InputError: the file cannot be written.
    """
    with _writing(path, "--write-table"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(report.observations, path)
    return path


def write_planned(report: FitReport, folder: Path) -> list[Path]:
    """Write the YAMLs that test the report's predictions.

    Raises:
        InputError: a prediction has no F*, or its YAMLs cannot be made or written.
    """
    from kisl_plugin.fit.planned_configs import write_configs

    sweep = sweep_of(seen.card for seen in report.observations)
    return [path for prediction in report.predictions for path in write_configs(prediction, folder, sweep)]


@contextmanager
def _writing(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another place with {option}") from None


def _write(report: FitReport, folder: Path, watch: Watch) -> list[Path]:
    from kisl_plugin.fit.figures import model_figure, rendered, save
    from kisl_plugin.fit.page import figure_name, page

    drawn = _figures(report)
    svgs = {name: rendered(figure, "svg") for name, figure in drawn.items()}
    for done, found in enumerate(report.curves):
        watch("drawing figures", done, len(report.curves))
        svgs[figure_name(found)] = rendered(model_figure(found), "svg")
    watch("drawing figures", len(report.curves), len(report.curves))
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    files = [
        write_atomically(folder / "index.html", page(report, svgs)),
        write_atomically(folder / "fit.json", f"{text}\n"),
        write_atomically(folder / "curves.csv", curves_csv(report)),
        folder / "observations.csv",
    ]
    write_table(report.observations, files[-1])
    return [*files, *(path for name, figure in drawn.items() for path in save(figure, folder, name))]


def _figures(report: FitReport) -> dict[str, "Figure"]:
    from kisl_plugin.fit.figures import cost_figure, curves_figure, has_cost, law_figure

    figures = {"curves": curves_figure(report), "law": law_figure(report)}
    return {**figures, "cost": cost_figure(report)} if has_cost(report.curves) else figures
