"""F* against C with the law of each token budget, its band, and what it predicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.fit import human
from kisl_plugin.fit.report.figures.style import (
    PANEL_HEIGHT,
    colors,
    new_figure,
    plain_log_axis,
    say,
    styled,
    wrapped,
)
from kisl_plugin.fit.report.gathered import CurveReport, FitReport, LawReport
from kisl_plugin.fit.report.words import sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN, REACH = 1.3, 4.0  # factors of C and F*: around the points, and at least from the middle
GRID = 100  # points along a smooth curve


def law_figure(report: FitReport) -> "Figure":
    """The law of each token budget; where there is none, what is missing."""
    shown = [law for law in report.laws if law.params]
    with styled():
        figure = new_figure(PANEL_HEIGHT)
        ax = figure.subplots()
        for law, color in zip(shown, colors(len(shown)), strict=True):
            _law(ax, law, [c for c in report.curves if c.tokens == law.tokens and c.curve.ok], color)
        if shown:
            _axes(ax)
        if not report.headline:
            say(ax, wrapped(sentence(report.missing_law)), above=bool(shown))
    return figure


def _law(ax: "Axes", found: LawReport, curves: Sequence[CurveReport], color: Any) -> None:
    label = f"D = {human.count(found.tokens)}"
    if found.law:
        label += f": alpha = {found.law.alpha:.2f}, E = {human.estimate(found.law.E)}"
        smooth = np.geomspace(*found.law.compute_range, GRID)
        ax.plot(smooth, [found.law.predict(compute) for compute in smooth], color=color)
        low, high = np.array([found.law.interval(compute) for compute in smooth], dtype=np.float64).T
        ax.fill_between(smooth, low, high, color=color, alpha=0.15, linewidth=0)
    compute = np.array([report.compute for report in curves])
    f_star = np.array([report.curve.f_star for report in curves])
    ends = np.array([report.curve.f_star_interval for report in curves], dtype=np.float64).T
    bars = np.maximum(0, [f_star - ends[0], ends[1] - f_star])
    ax.loglog()
    ax.errorbar(compute, f_star, bars, fmt="o", color=color, elinewidth=0.7, label=label)
    for report, x, y in zip(curves, compute, f_star, strict=True):
        ax.annotate(human.count(report.params), (x, y), (4, 3), textcoords="offset points", fontsize=6)


def _axes(ax: "Axes") -> None:
    for name in "xy":
        low, high = getattr(ax, f"get_{name}lim")()
        middle, reach = np.sqrt(low * high), max(np.sqrt(high / low) * MARGIN, REACH)
        getattr(ax, f"set_{name}lim")(middle / reach, middle * reach)
        plain_log_axis(ax, name)
    ax.set_xlabel("compute C = 6·N·D (FLOP)")
    ax.set_ylabel("collapse point F*")
    ax.legend(frameon=True, fancybox=False, edgecolor="0.8")
