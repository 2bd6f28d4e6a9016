"""What kisl-fit prints: one row per curve in 80 columns, then what to know about them."""

import textwrap
from collections.abc import Sequence

from kisl_plugin.fit import human
from kisl_plugin.fit.report.assemble import CurveReport, FitReport, LawReport

WIDTH = 80
HEADINGS = ("N", "D", "seeds", "F", "floor", "peak P", "F* (95 % interval)")
NOISE = (
    "Intervals hold binomial noise only. Noise between training runs, which a second seed shows and which is "
    "often the larger part, is not in them."
)


def render(report: FitReport) -> str:
    """The table, the notes on its curves, the law, and every file that was set aside."""
    parts = [
        f"Task {report.task}: {_many(len(report.observations), 'observation')}, {_many(len(report.curves), 'curve')}"
    ]
    if report.curves:
        parts += [_table(report.curves), _paragraphs([*_remarks(report), NOISE])]
    parts.append(_paragraphs([*report.notes, *_law_lines(report)]))
    if report.set_aside:
        lines = [f"  {aside.path}\n    {aside.reason}" for aside in report.set_aside]
        parts.append("\n".join([f"Set aside: {len(lines)}", *lines]))
    return "\n\n".join(part for part in parts if part)


def _table(curves: Sequence[CurveReport]) -> str:
    rows = [_row(report) for report in curves]
    width = [max(len(row[i]) for row in [HEADINGS, *rows] if i < len(row) - (len(row) < 7)) for i in range(6)]
    lines = []
    for row in (HEADINGS, *rows):
        left = "  ".join(cell.rjust(size) for cell, size in zip(row[:5], width, strict=False))
        right = f"{row[5].ljust(width[5])}  {row[6]}" if len(row) == 7 else row[5]
        lines.append(f"{left}  {right}".rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:]])


def _row(report: CurveReport) -> tuple[str, ...]:
    """Seven cells where a collapse point was found; else the status stands in the place of the last two."""
    curve = report.curve
    smallest, largest = (human.frequency(value) for value in curve.frequency_range)
    cells = (
        human.count(report.params),
        human.count(report.tokens),
        str(len(report.seeds)),
        f"{smallest}–{largest}",
        f"{report.floor.value:.3f}",
    )
    if not curve.ok:
        return (*cells, curve.status)
    low, high = curve.peak_interval
    ends = "–".join(human.estimate(end) for end in curve.f_star_interval if end is not None)
    return (*cells, f"{curve.peak:.2f} ({low:.2f}–{high:.2f})", f"{human.estimate(curve.f_star)} ({ends})")


def _remarks(report: FitReport) -> list[str]:
    """Floors, what a status other than ok rests on, and what else is to be known of each curve."""
    remarks = []
    for found in report.curves:
        sentences = [f"floor {found.floor.value:.3f}: {found.floor.source}", *found.notes]
        if not found.curve.ok:
            sentences.insert(0, f"{found.curve.status}: {found.curve.message}")
        name = f"{human.count(found.params)}, {human.count(found.tokens)} tokens"
        remarks.append(f"{name}: {'; '.join(sentences)}.")
    return remarks


def _law_lines(report: FitReport) -> list[str]:
    lines = [law_sentence(found) for found in report.laws if found.law]
    return lines if report.headline else [f"{report.missing_law[0].upper()}{report.missing_law[1:]}."]


def law_sentence(found: LawReport) -> str:
    """The law of one token budget with its caveats."""
    law = found.law
    if law is None:
        return ""
    numbers = f"A = {law.A:.4g}, alpha = {law.alpha:.3g}, E = {law.E:.3g}, R² = {law.r2:.4f}"
    sizes = ", ".join(human.count(params) for params in found.params)
    caveats = "".join(f"; {caveat}" for caveat in law.caveats)
    return f"Infusion law F*(C) = A/C^alpha + E at D = {human.count(found.tokens)} ({sizes}): {numbers}{caveats}."


def _paragraphs(sentences: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in sentences)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
