"""One model's figure: memory, what was asked beside it, and what it costs."""

from typing import TYPE_CHECKING, Any

from kisl_plugin.fit.report.figures.cost import draw_background
from kisl_plugin.fit.report.figures.curves import draw_collapse_point, draw_curve, memory_axes
from kisl_plugin.fit.report.figures.style import GREY, PANEL_HEIGHT, draw_points, laid_out, new_figure, styled
from kisl_plugin.fit.report.gathered import CurveReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEMORY, BY_SUM, COST = "#0072b2", "#d55e00", "#007a5a"  # told apart by the colour-blind
COST_HEIGHT = 1.1  # inches


def model_figure(found: CurveReport) -> "Figure":
    """Memory with curve, band, runs, control triples and the share by sum; below, bits per byte if they are known."""
    with styled():
        figure = new_figure(PANEL_HEIGHT + 0.5 + COST_HEIGHT * bool(found.background))
        ratios = (PANEL_HEIGHT, COST_HEIGHT)[: 1 + bool(found.background)]
        axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        _memory(axes[0], found)
        if found.background:
            _cost(axes[1], found)
        axes[-1].set_xlabel("frequency F")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return laid_out(figure)


def _memory(ax: "Axes", found: CurveReport) -> None:
    draw_points(ax, found.points, fmt="o", color=MEMORY, label="right by perplexity (acc)")
    if found.has_replicates:
        shares = [run.share for run in found.runs]
        seeds: Any = {"color": MEMORY, "markersize": 2.5, "markerfacecolor": "none", "markeredgewidth": 0.6}
        ax.plot([run.frequency for run in found.runs], shares, "o", label="each run", **seeds)
    draw_curve(ax, found, MEMORY)
    draw_collapse_point(ax, found, MEMORY)
    if found.by_sum:
        at, shares = [point.frequency for point in found.by_sum], [point.share for point in found.by_sum]
        ax.plot(at, shares, "^:", color=BY_SUM, linewidth=0.8, markersize=3, label="right by sum (sum_acc)")
    if found.controls:
        draw_points(ax, found.controls, fmt="x", color=GREY, alpha=0.8, label="control triples")
    if found.floor.value:
        label = "floor (F = 0 runs)" if found.floor.measured else "floor"
        ax.axhline(found.floor.value, color=GREY, linestyle=":", linewidth=0.9, label=label)
    memory_axes(ax)


def _cost(ax: "Axes", found: CurveReport) -> None:
    draw_background(ax, found, color=COST, marker="D", markersize=2.8, linewidth=0.9)
    ax.set_ylabel("bits per byte")
    ax.margins(y=0.15)
