"""The report folder: fit.json, observations.csv and the two figures."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from kisl_plugin import __version__
from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.observations import Observation
from kisl_plugin.fit.report.assemble import CurveReport, FitReport, LawReport
from kisl_plugin.runcard import write_atomically

SCHEMA = 1
CSV_COLUMNS = (
    "params",
    "tokens",
    "frequency",
    "group",
    "seed",
    "train_seed",
    "correct",
    "total",
    "control_correct",
    "control_total",
    "model",
    "date",
    "path",
)


def write_report(report: FitReport, out: str | Path) -> list[Path]:
    """Write the report into the folder `out`, made if need be; returns the files.

    Raises:
        InputError: the folder cannot be made or written.
    """
    from kisl_plugin.fit.report.plots import draw_curves, draw_law

    folder = Path(out)
    files = [folder / name for name in ("fit.json", "observations.csv", "curves.png", "law.png")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(files[0], text + "\n")
        _write_observations(report.observations, files[1])
        draw_curves(report, files[2])
        draw_law(report, files[3])
    except OSError as error:
        raise InputError(
            f"{folder}: the report cannot be written ({error}); choose another folder with --out"
        ) from None
    return files


def as_json(report: FitReport) -> dict[str, Any]:
    """The report as fit.json holds it: null where a value is not identified."""
    headline = report.headline
    return {
        "schema": SCHEMA,
        "version": __version__,
        "task": report.task,
        "chance": report.chance,
        "curves": [_curve(found) for found in report.curves],
        "law": _law(headline) if headline else None,
        "law_missing": report.missing_law or None,
        "laws": [_law(found) for found in report.laws],
        "predictions": [],
        "notes": list(report.notes),
        "set_aside": [{"path": aside.path, "reason": aside.reason} for aside in report.set_aside],
    }


def _curve(found: CurveReport) -> dict[str, Any]:
    curve = found.curve
    known = {
        "a": curve.a,
        "b": curve.b,
        "c": curve.c,
        "f_star": curve.f_star,
        "f_star_interval": list(curve.f_star_interval),
        "peak": curve.peak,
        "peak_interval": list(curve.peak_interval),
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
        "deviance": _finite(curve.deviance),
        "p_form": _finite(curve.p_form),
        "p_fall": _finite(curve.p_fall),
        "seeds": sorted({seed for seed, _ in found.seeds}),
        "train_seeds": sorted({seed for _, seed in found.seeds if seed is not None}),
        "points": [{"frequency": p.frequency, "correct": p.correct, "total": p.total} for p in found.points],
        "notes": list(found.notes),
    }


def _law(found: LawReport) -> dict[str, Any]:
    law = found.law
    fitted = {
        "A": law and law.A,
        "alpha": law and law.alpha,
        "E": law and law.E,
        "r2": law and _finite(law.r2),
        "scatter": law and law.scatter,
        "compute_range": law and list(law.compute_range),
        "caveats": list(law.caveats) if law else [],
    }
    return {"tokens": found.tokens, "params": list(found.params), **fitted}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_observations(observations: tuple[Observation, ...], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(CSV_COLUMNS)
        rows.writerows([getattr(seen, column) for column in CSV_COLUMNS] for seen in observations)
