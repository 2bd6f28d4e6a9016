"""The report as fit.json holds it: null where a value is not identified, never NaN."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kisl_plugin import __version__
from kisl_plugin.fit.laws.joint import JointLaw
from kisl_plugin.fit.laws.law import InfusionLaw
from kisl_plugin.fit.planner.render import as_json as prediction_entry
from kisl_plugin.fit.report.gathered import CurveReport, FitReport, LawReport, Point, RunPoint

SCHEMA = 1
CURVE_KEYS = (
    *("loss", "tau", "tau_source", "df", "interval_method", "paired"),
    *("deviance", "form_p", "fall_p", "unimodal_p", "largest_fall"),
)
LAW_KEYS = (
    *("A", "alpha", "alpha_interval", "E", "E_interval", "e_distinguishable", "r2", "r2_by_chance", "scatter", "df"),
    *("models", "compute_range", "loss", "interval_method", "caveats"),
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
        "loss": report.loss,
        "curves": [curve_entry(found) for found in report.curves],
        "law": _law(headline) if headline else None,
        "law_missing": report.missing_law or None,
        "laws": [_law(found) for found in report.laws],
        "data_laws": [_fields(law, DATA_LAW_KEYS) for law in report.data_laws],
        "joint": report.joint and _joint(report.joint),
        "held_out": [asdict(held) for held in report.held_out],
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
        "predictions": [prediction_entry(prediction) for prediction in report.predictions],
        "bootstrap": report.bootstrap and asdict(report.bootstrap),
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
