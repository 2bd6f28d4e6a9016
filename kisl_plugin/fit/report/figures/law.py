"""F* against C with the law of each token budget, its band, and what it predicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.fit import human
from kisl_plugin.fit.laws.law import InfusionLaw
from kisl_plugin.fit.laws.points import OPEN
from kisl_plugin.fit.planner.sources import same
from kisl_plugin.fit.report.figures.style import (
    LEGEND_ROW,
    PANEL_HEIGHT,
    colors,
    laid_out,
    new_figure,
    plain_log_axis,
    say,
    styled,
    wrapped,
)
from kisl_plugin.fit.report.gathered import CurveReport, FitReport, LawReport
from kisl_plugin.fit.report.words import sentence, valued

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN, REACH = 1.3, 4.0  # factors of C and F*: around the points, and at least from the middle
GRID = 100  # points along a smooth curve


def law_figure(report: FitReport) -> "Figure":
    """The law of each token budget; where there is none, what is missing."""
    shown = sorted((law for law in report.laws if law.params), key=lambda law: law.tokens)
    with styled():
        figure = new_figure(PANEL_HEIGHT + LEGEND_ROW * (len(shown) + 3))
        ax = figure.subplots()
        for law, color in zip(shown, colors(len(shown)), strict=True):
            found = [curve for curve in report.curves if curve.tokens == law.tokens and curve.curve.ok]
            _law(ax, law, found, _planned(report, law.tokens), color)
        _beside(ax, report)
        if shown:
            _axes(ax)
        if not report.headline:
            say(ax, wrapped(sentence(report.missing_law)), above=bool(shown))
        return laid_out(figure)


def _law(ax: "Axes", found: LawReport, curves: Sequence[CurveReport], reach: Sequence[float], color: Any) -> None:
    label = f"D = {human.count(found.tokens)}"
    if found.law:
        label += f": alpha = {valued(found.law.alpha, found.law.alpha_interval)}, "
        label += f"E = {valued(found.law.E, found.law.E_interval)}"
        smallest, largest = found.law.compute_range
        _line(ax, found.law, (smallest, largest), color=color)
        for beyond in ((largest, max(reach)), (min(reach), smallest)) if reach else ():
            if beyond[0] < beyond[1]:
                _line(ax, found.law, beyond, color=color, linestyle="--", linewidth=0.8)
    compute = np.array([report.compute for report in curves])
    f_star = np.array([report.curve.f_star for report in curves])
    ends = np.array([report.curve.f_star_interval for report in curves], dtype=np.float64).T
    bars = np.maximum(0, [f_star - ends[0], ends[1] - f_star])
    ax.loglog()
    ax.errorbar(compute, f_star, bars, fmt="o", color=color, elinewidth=0.7, label=label)
    for report, x, y in zip(curves, compute, f_star, strict=True):
        ax.annotate(human.count(report.params), (x, y), (4, 3), textcoords="offset points", fontsize=6)


def _line(ax: "Axes", law: InfusionLaw, ends: tuple[float, float], **style: Any) -> None:
    """The law with its band between two C."""
    smooth = np.geomspace(*ends, GRID)
    ax.plot(smooth, [law.predict(compute) for compute in smooth], **style)
    low, high = np.array([law.interval(compute) for compute in smooth], dtype=np.float64).T
    ax.fill_between(smooth, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _planned(report: FitReport, tokens: int) -> list[float]:
    """C of the predictions that the law of this token budget is asked for."""
    return [one.compute for one in report.predictions if one.f_star is not None and same(one.tokens, tokens)]


def _beside(ax: "Axes", report: FitReport) -> None:
    """What the laws say of models that they were not fitted to, hollow."""
    held = [(6.0 * one.params * one.tokens, one.predicted, one.interval, "") for one in report.held_out]
    planned = [
        (one.compute, one.f_star, one.interval or OPEN, human.count(one.params))
        for one in report.predictions
        if one.f_star is not None
    ]
    for marker, label, found in (("s", "held out, as predicted", held), ("D", "prediction", planned)):
        for i, (compute, f_star, (low, high), name) in enumerate(found):
            bars = [[max(0.0, f_star - (low or f_star))], [max(0.0, (high or f_star) - f_star)]]
            style: Any = {"color": "#b03030", "markerfacecolor": "none", "elinewidth": 0.7}
            ax.errorbar([compute], [f_star], bars, fmt=marker, label=None if i else label, **style)
            ax.annotate(name, (compute, f_star), (4, 3), textcoords="offset points", fontsize=6)


def _axes(ax: "Axes") -> None:
    for name in "xy":
        low, high = getattr(ax, f"get_{name}lim")()
        middle, reach = np.sqrt(low * high), max(np.sqrt(high / low) * MARGIN, REACH)
        getattr(ax, f"set_{name}lim")(middle / reach, middle * reach)
        plain_log_axis(ax, name)
    ax.set_xlabel("compute C = 6·N·D (FLOP)")
    ax.set_ylabel("collapse point F*")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center")
