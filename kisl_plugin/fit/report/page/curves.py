"""The part of the page on all curves: the figure, their numbers, and what memory costs."""

import math

from kisl_plugin.fit import human
from kisl_plugin.fit.report.gathered import CurveReport, FitReport
from kisl_plugin.fit.report.page.markup import Html, bullets, figure, joined, table, tag

CURVE_HEADINGS = (
    "N, D",
    tag("th", "status", scope="col", class_="text"),
    "F* (95 %)",
    "peak P (95 %)",
    "b",
    "floor",
    "F asked",
    "runs",
    "tau",
    "df",
    "fall p",
    "unimodal p",
    "form p",
    "largest fall",
)


def curves_section(report: FitReport, figures: dict[str, bytes]) -> Html:
    """All curves in one figure, and each curve's numbers in a table."""
    if not report.curves:
        return tag("p", "No run with injected facts could be used.")
    described = "; ".join(f"{found.name}: {_in_words(found)}" for found in report.curves)
    caption = (
        "Memorisation rate P against the frequency F at which each fact was injected. Points: all items at one F with "
        "95 % Wilson intervals (small and hollow: single runs); lines with bands: fitted curves with 95 % intervals; "
        "bars above the axis: F* with its interval. A broken line is a fit that shows no collapse point."
    )
    return joined(
        [
            figure(figures["curves"], f"Memorisation rate against frequency. {described}.", caption),
            table("Numbers of each curve", CURVE_HEADINGS, [_numbers(found) for found in report.curves]),
            *([bullets(report.notes)] if report.notes else []),
            *_cost(figures),
        ]
    )


def _in_words(found: CurveReport) -> str:
    curve = found.curve
    return f"collapse point {human.estimate(curve.f_star)}" if curve.ok else curve.status


def _numbers(found: CurveReport) -> tuple[str, ...]:
    curve = found.curve
    return (
        f"{human.count(found.params)}, {human.count(found.tokens)}",
        tag("td", curve.status, class_="text"),
        f"{human.estimate(curve.f_star)} ({human.interval(*curve.f_star_interval)})" if curve.ok else "–",
        f"{curve.peak:.3f} ({human.interval(*curve.peak_interval, human.share)})" if curve.ok else "–",
        _number(curve.b, ".3f") if curve.ok else "–",
        f"{found.floor.value:.3f}",
        human.interval(*curve.frequency_range, human.frequency),
        str(len(found.runs)),
        _number(curve.tau, ".3f"),
        "∞" if curve.df == math.inf else _number(curve.df, ".3g"),
        _number(curve.fall_p, ".2g"),
        _number(curve.unimodal_p, ".2g"),
        _number(curve.form_p, ".2g"),
        _number(curve.largest_fall, ".3f"),
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _cost(figures: dict[str, bytes]) -> list[Html]:
    if "cost" not in figures:
        return []
    caption = (
        "Against F: the share of control triples (asked, never injected) that are right; bits per byte on background "
        "text, dotted at F = 0; each where it was measured."
    )
    return [
        tag("h3", "What memory costs"),
        figure(figures["cost"], "Control triples right and bits per byte against frequency.", caption),
    ]
