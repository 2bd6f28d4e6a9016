"""All curves in one figure: the shares with their intervals, the curves with their bands, F* with its interval."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.fit import human
from kisl_plugin.fit.report.figures.style import (
    GREY,
    LEGEND_ROW,
    PANEL_HEIGHT,
    draw_points,
    laid_out,
    looks,
    new_figure,
    plain_log_axis,
    say,
    shortened,
    styled,
)
from kisl_plugin.fit.report.gathered import CurveReport, FitReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 200  # points along a smooth curve
LOWEST_ROW, ROW = 0.035, 0.035  # where the intervals of F* are drawn, in P
LEGEND_COLUMN = 28  # characters of a label up to which two columns fit


def curves_figure(report: FitReport) -> "Figure":
    """One panel per token budget, all its models together."""
    budgets = report.budgets
    with styled():
        figure = new_figure(max(1, len(budgets)) * PANEL_HEIGHT + (len(report.curves) + 2) * LEGEND_ROW)
        axes = figure.subplots(max(1, len(budgets)), 1, squeeze=False)[:, 0]
        for ax, tokens in zip(axes, budgets, strict=False):
            _panel(ax, [curve for curve in report.curves if curve.tokens == tokens], looks(report))
            ax.set_title(f"{shortened(report.task)}, D = {human.count(tokens)}", loc="left", fontsize=8)
        if not budgets:
            say(axes[0], "No run could be used:\nsee what was set aside.")
        return laid_out(figure)


def draw_curve(ax: "Axes", found: CurveReport, color: Any) -> None:
    """The fitted curve with its band and F*; where no collapse point is shown, a thin broken line without a band."""
    curve = found.curve
    if not np.isfinite(curve.f_star):
        return
    smooth = np.geomspace(*curve.frequency_range, GRID)
    if not curve.ok:
        ax.plot(smooth, curve.rate(smooth), "--", color=color, linewidth=0.7)
        return
    ax.plot(smooth, curve.rate(smooth), color=color)
    ax.fill_between(smooth, *curve.band(smooth), color=color, alpha=0.15, linewidth=0)
    ax.plot([curve.f_star], [curve.peak], "|", color=color, markersize=8)


def draw_collapse_point(ax: "Axes", found: CurveReport, color: Any, row: int = 0) -> None:
    """F* with its interval, above the frequencies; `row` keeps several apart."""
    curve = found.curve
    if curve.ok:
        low, high = (end or curve.f_star for end in curve.f_star_interval)
        bars: Any = [[max(0.0, curve.f_star - low)], [max(0.0, high - curve.f_star)]]
        style: Any = {"fmt": "|", "markersize": 6, "elinewidth": 1.6, "capsize": 0}
        ax.errorbar([curve.f_star], [LOWEST_ROW + row * ROW], xerr=bars, color=color, **style)


def memory_axes(ax: "Axes") -> None:
    """The axes of a memorisation rate against frequency."""
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("memorisation rate P")
    plain_log_axis(ax, "x")


def _panel(ax: "Axes", found: Sequence[CurveReport], looks: Mapping[int, tuple[Any, str]]) -> None:
    for i, report in enumerate(found):
        color, marker = looks[report.params]
        draw_points(ax, report.points, fmt=marker, color=color, label=_label(report))
        _draw_runs(ax, report, color, marker)
        draw_curve(ax, report, color)
        draw_collapse_point(ax, report, color, len(found) - 1 - i)
        if report.floor.value:
            ax.axhline(report.floor.value, color=color, linestyle=":", linewidth=0.9)
    if any(report.floor.value for report in found):
        measured = any(report.floor.measured for report in found)
        ax.plot([], [], ":", color=GREY, label="guessing floor" + " (F = 0 runs)" * measured)
    memory_axes(ax)
    ax.set_xlabel("frequency F")
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("guessing"))
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper center",
        bbox_to_anchor=(0.45, -0.2),
        ncols=2 if max(map(len, labels)) < LEGEND_COLUMN else 1,
    )


def _draw_runs(ax: "Axes", found: CurveReport, color: Any, marker: str) -> None:
    """Each run where there is more than one: what the seeds make of it."""
    if found.has_replicates:
        shares = [run.share for run in found.runs]
        ax.plot(
            [run.frequency for run in found.runs],
            shares,
            marker,
            color=color,
            markersize=1.8,
            markerfacecolor="none",
            markeredgewidth=0.5,
            alpha=0.8,
        )


def _label(report: CurveReport) -> str:
    name, curve = human.count(report.params), report.curve
    return f"{name}: F* = {human.estimate(curve.f_star)}" if curve.ok else f"{name}: {curve.status}"
