"""The part of the page on each model: its own figure, its points, its relations, and what to know of it."""

from kisl_plugin.errors import InputError
from kisl_plugin.fit import human
from kisl_plugin.fit.report.gathered import CurveReport, FitReport, Point
from kisl_plugin.fit.report.page.markup import Html, bullets, figure, joined, table, tag
from kisl_plugin.fit.report.words import f_star, remarks, sentence
from kisl_plugin.verbalize import templates_of


def models_section(report: FitReport, figures: dict[str, bytes]) -> Html:
    """One part per model."""
    return joined(_model(found, figures[figure_name(found)]) for found in report.curves)


def figure_name(found: CurveReport) -> str:
    """The name of a model's figure."""
    return f"{found.params}-{found.tokens}"


def _model(found: CurveReport, svg: bytes) -> Html:
    alt = f"Memorisation rate of {found.name} at {len(found.points)} frequencies, with what was measured beside it."
    parts = [tag("h3", found.name), figure(svg, alt, _caption(found))]
    said = [f_star(found.curve), *remarks(found)] if found.curve.ok else remarks(found)
    parts += [bullets(map(sentence, said)), table(f"Points of {found.name}", _headings(found), _rows(found))]
    if found.relations:
        parts += [tag("h4", "Per relation"), _relations(found)]
    return joined(parts)


def _caption(found: CurveReport) -> str:
    beside = [
        name
        for name, there in (
            ("the share right by summed likelihood", found.by_sum),
            ("control triples", found.controls),
            ("bits per byte of the background text (dotted: at F = 0)", found.background),
        )
        if there
    ]
    return sentence(f"memory of {found.name}" + (f", with {', '.join(beside)}" if beside else ""))


def _headings(found: CurveReport) -> list[str]:
    beside = (
        ("single runs", found.has_replicates),
        ("by sum", found.by_sum),
        ("control", found.controls),
        ("bits per byte", found.background),
    )
    return ["F", "right", "P", *(name for name, there in beside if there)]


def _rows(found: CurveReport) -> list[list[str]]:
    by_sum, controls = _shares(found.by_sum), _shares(found.controls)
    cost = {seen.frequency: f"{seen.bits_per_byte:.3f}" for seen in found.background}
    rows = []
    for point in found.points:
        runs = [f"{run.share:.3f}" for run in found.runs if run.frequency == point.frequency]
        row = [human.frequency(point.frequency), f"{point.correct:,} of {point.total:,}", f"{point.share:.3f}"]
        row += [" ".join(runs)] if found.has_replicates else []
        row += [column.get(point.frequency, "–") for column in (by_sum, controls, cost) if column]
        rows.append(row)
    return rows


def _shares(points: tuple[Point, ...]) -> dict[int, str]:
    return {point.frequency: f"{point.share:.3f}" for point in points}


def _relations(found: CurveReport) -> Html:
    frequencies = [point.frequency for point in found.points]
    rows = []
    for relation, points in found.relations.items():
        at = {point.frequency: point for point in points}
        rows.append([_named(relation), *(_heat(at[F]) if F in at else "–" for F in frequencies)])
    return table(f"Share right per relation, {found.name}", ["relation", *map(human.frequency, frequencies)], rows)


def _named(relation: str) -> str:
    """The relation's id with its name, if a plugin knows one."""
    try:
        return f"{relation} {templates_of(relation).name}"
    except InputError:
        return relation


def _heat(point: Point) -> Html:
    title = f"{point.correct} of {point.total}"
    return tag("td", f"{point.share:.2f}", class_="heat", style=f"--share:{point.share:.2f}", title=title)
