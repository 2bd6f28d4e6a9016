"""What kisl-fit prints: one row per curve in 80 columns, then what to know about them."""

import textwrap
from collections.abc import Iterable, Sequence

from kisl_plugin.fit import text as human
from kisl_plugin.fit.predict import render as prediction_lines
from kisl_plugin.fit.report import (
    CurveReport,
    FitReport,
    data_law_sentence,
    held_out_sentence,
    joint_sentences,
    law_sentence,
    many,
    remarks,
    sentence,
    verdict_word,
)

WIDTH = 80
FLOOR = 4  # the column that is left out of a table that would be too wide; the remarks tell it anyway
HEADINGS = ("N", "D", "seeds", "F", "floor", "peak P", "F* (95 % interval)")


def render(report: FitReport) -> str:
    """The table, the notes on its curves, the law, and every file that was set aside."""
    parts = [
        f"Task {report.task}: {many(len(report.observations), 'observation')}, {many(len(report.curves), 'curve')}"
    ]
    if report.curves:
        parts += [curve_table(report.curves), _paragraphs(_remarks(report.curves))]
    parts += [_paragraphs(map(sentence, report.notes)), _paragraphs(_laws(report)), _verdicts(report)]
    parts += [prediction_lines(prediction) for prediction in report.predictions]
    if report.set_aside:
        lines = [f"  {human.one_line(aside.path)}\n    {aside.reason}" for aside in report.set_aside]
        parts.append("\n".join([f"Set aside: {len(lines)}", *lines]))
    return "\n\n".join(part for part in parts if part)


def curve_table(curves: Sequence[CurveReport]) -> str:
    """One row per curve, never wider than 80 columns."""
    rows = [HEADINGS, *map(_row, curves)]
    lines = _aligned(rows)
    if max(map(len, lines)) > WIDTH:
        lines = _aligned([(*row[:FLOOR], *row[FLOOR + 1 :]) for row in rows])
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Numbers to the right, the last two cells to the left; a row that is one cell short ends with a status."""
    full = len(rows[0])
    width = [max(len(row[i]) for row in rows if len(row) == full or i < full - 2) for i in range(full - 1)]
    lines = []
    for row in rows:
        cells = [cell.rjust(size) for cell, size in zip(row[: full - 2], width, strict=False)]
        if len(row) == full:
            cells.append(row[-2].ljust(width[-1]))
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines


def _row(report: CurveReport) -> tuple[str, ...]:
    """Seven cells where a collapse point was found; else the status stands in the place of the last two."""
    curve = report.curve
    cells = (
        human.count(report.params),
        human.count(report.tokens),
        str(len(report.seeds)),
        human.interval(*curve.frequency_range, human.frequency),
        f"{report.floor.value:.3f}",
    )
    if not curve.ok:
        return (*cells, curve.status)
    peak = f"{curve.peak:.2f} ({human.interval(*curve.peak_interval, human.share)})"
    return (*cells, peak, f"{human.estimate(curve.f_star)} ({human.interval(*curve.f_star_interval)})")


def _remarks(curves: Sequence[CurveReport]) -> list[str]:
    """What is to be known of each curve; what is the same of all is said once."""
    said = [remarks(found) for found in curves]
    same = [part for part in said[0] if len(said) > 1 and all(part in others for others in said)]
    own = [
        f"{found.name}: {'; '.join(part for part in parts if part not in same)}."
        for found, parts in zip(curves, said, strict=True)
        if any(part not in same for part in parts)
    ]
    return [*own, *([f"All: {'; '.join(same)}."] if same else [])]


def _laws(report: FitReport) -> list[str]:
    lines = [sentence(report.missing_law)] if report.missing_law else []
    lines += [law_sentence(found) for found in report.laws if found.law]
    lines += [sentence(data_law_sentence(law)) for law in report.data_laws]
    lines += [f"{'; '.join(joint_sentences(report.joint))}."] if report.joint else []
    return [*lines, *(sentence(held_out_sentence(held)) for held in report.held_out)]


def _verdicts(report: FitReport) -> str:
    if not any(found.curve.ok for found in report.curves):
        return ""
    said = [f"  {verdict_word(verdict)}: {verdict.name}: {verdict.sentence}" for verdict in report.verdicts]
    lines = [textwrap.fill(text, WIDTH, subsequent_indent="    ") for text in said]
    return "\n".join(["The paper's signs that a law does not hold:", *lines])


def _paragraphs(sentences: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in sentences)
