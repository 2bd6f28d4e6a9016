"""What memory costs: control triples and the background text against the frequency."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kisl_plugin.fit import human
from kisl_plugin.fit.report.figures.style import (
    LEGEND_ROW,
    draw_points,
    laid_out,
    looks,
    new_figure,
    plain_log_axis,
    shortened,
    styled,
)
from kisl_plugin.fit.report.gathered import CurveReport, FitReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 1.35  # inches
LEGEND_COLUMNS = 4
DODGE = 1.04  # models stand beside each other at one F


def has_cost(curves: Sequence[CurveReport]) -> bool:
    """Whether there is anything to draw."""
    return any(found.controls or found.background for found in curves)


def cost_figure(report: FitReport) -> "Figure":
    """Per token budget control triples above and bits per byte below, those that were measured."""
    rows: list[tuple[str, list[CurveReport]]] = []
    for tokens in report.budgets:
        found = [curve for curve in report.curves if curve.tokens == tokens]
        rows += [(kind, found) for kind in ("controls", "background") if any(getattr(one, kind) for one in found)]
    with styled():
        figure = new_figure(len(rows) * ROW_HEIGHT + (len(looks(report)) // LEGEND_COLUMNS + 2) * LEGEND_ROW)
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        names: dict[str, Any] = {}
        for ax, (kind, found) in zip(axes, rows, strict=True):
            _row(ax, kind, found, looks(report))
            ax.set_title(f"{shortened(report.task)}, D = {human.count(found[0].tokens)}", loc="left", fontsize=8)
            names.update({label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)})
        axes[-1].set_xlabel("frequency F")
        figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=LEGEND_COLUMNS)
        return laid_out(figure)


def draw_background(ax: "Axes", found: CurveReport, **style: Any) -> None:
    """Bits per byte at each frequency, and as a dotted line what they are at F = 0."""
    injected = [seen for seen in found.background if seen.frequency > 0]
    ax.plot([seen.frequency for seen in injected], [seen.bits_per_byte for seen in injected], "-", **style)
    for seen in found.background:
        if seen.frequency == 0:
            ax.axhline(seen.bits_per_byte, color=style["color"], linestyle=":", linewidth=0.9)


def _row(ax: "Axes", kind: str, found: Sequence[CurveReport], looks: Mapping[int, tuple[Any, str]]) -> None:
    for i, report in enumerate(found):
        color, marker = looks[report.params]
        style: dict[str, Any] = {"color": color, "marker": marker, "label": human.count(report.params)}
        if kind == "controls" and report.controls:
            beside = DODGE ** (i - (len(found) - 1) / 2)
            draw_points(ax, report.controls, beside, linewidth=0.6, **style)
        elif kind == "background" and report.background:
            draw_background(ax, report, linewidth=0.8, **style)
    if kind == "controls":
        ax.set_ylim(0, 1.02)
    ax.set_ylabel("control triples" if kind == "controls" else "bits per byte")
    plain_log_axis(ax, "x")
