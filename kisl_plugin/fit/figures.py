"""The figures of a report, one column wide: all curves, the laws, and one figure per model.

Several tasks have a column each. Importing it imports matplotlib. The same results give the same bytes.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kisl_plugin.fit.curve import wilson
from kisl_plugin.fit.observations import Point
from kisl_plugin.fit.report import CurveReport, FitReport, LawReport
from kisl_plugin.fit.text import OK, count, estimate, estimated, parameter, sentence

__all__ = ["draw_curves", "draw_laws", "draw_model", "draw_regions", "rendered"]

_WIDTH, _PANEL_HEIGHT, _LEGEND_ROW = 3.4, 2.3, 0.15  # inches
_DPI = 200
_MARKERS = "osD^vPXh"
_GREY, _RED = "0.4", "#b03030"
_MEMORY, _COST = "#0072b2", "#007a5a"  # told apart by the colour-blind
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,  # labels such as 5e+18 beside 1e+19
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # whole fonts: journals refuse type 3
    "svg.hashsalt": "kisl",
    "text.parse_math": False,  # a dollar in a label is a dollar
}
_UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
_GRID = 200  # points along a smooth curve


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as png, pdf or svg, without a date."""
    stream = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(stream, format=kind, dpi=_DPI, metadata=_UNDATED[kind])
    return stream.getvalue()


@contextmanager
def _new_figure(height: float, columns: int = 1) -> Iterator[Figure]:
    """An empty figure of `columns`, laid out once the block has drawn it: all formats then look the same."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * columns, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


# All curves: a row of panels per token budget, a column per task


def draw_curves(report: FitReport) -> Figure:
    """All curves with their points, bands and F*; several tasks side by side."""
    tasks, every = report.tasks, [one for task in report.tasks for one in task.curves]
    budgets = sorted({one.tokens for one in every})
    # Colour and marker of each N (and experiment), the same in all panels
    sizes = sorted({(one.params, one.letter) for one in every})
    looks = dict(zip(sizes, zip(_colors(len(sizes)), cycle(_MARKERS), strict=False), strict=True))
    legend = max(len(task.curves) for task in tasks) + 2
    with _new_figure(max(1, len(budgets)) * _PANEL_HEIGHT + legend * _LEGEND_ROW, len(tasks)) as figure:
        axes = figure.subplots(max(1, len(budgets)), len(tasks), squeeze=False)
        for ax, (tokens, task) in zip(axes.flat, product(budgets, tasks), strict=False):
            curves = [one for one in task.curves if one.tokens == tokens]
            for i, one in enumerate(curves):
                color, marker = looks[one.params, one.letter]
                name, curve = f"{count(one.params)}{one.letter}", one.curve
                condition = curve.status.removeprefix(OK)
                label = f"{name}: F* = {estimate(curve.f_star)}{condition}" if curve.ok else f"{name}: {curve.status}"
                _draw_memory(ax, one, color, marker, label, row=len(curves) - 1 - i)
            if any(one.floor.value for one in curves):
                measured = any(one.floor.measured for one in curves)
                ax.plot([], [], ":", color=_GREY, label="guessing floor" + " (F = 0 runs)" * measured)
            ax.set_xlabel("frequency F")
            name = task.task if len(task.task) <= 40 else f"{task.task[:39]}…"
            ax.set_title(f"{name}, D = {count(tokens)}", loc="left", fontsize=8)
            ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2))
        if not budgets:
            axes[0, 0].set_axis_off()
            axes[0, 0].text(0.5, 0.5, "No run could be used:\nsee what was set aside.", ha="center", va="center")
    return figure


def _draw_points(ax: Axes, points: Sequence[Point], **style: Any) -> None:
    """Shares with their 95 % Wilson intervals."""
    shares = np.array([point.accuracy for point in points])
    low, high = wilson([point.correct for point in points], [point.total for point in points])
    bars = np.maximum(0, [shares - low, high - shares])
    ax.errorbar([point.frequency for point in points], shares, bars, **{"elinewidth": 0.7, **style})


def _draw_memory(ax: Axes, one: CurveReport, color: Any, marker: str, label: str, row: int = 0) -> None:
    """Points, single runs (hollow, where a frequency has several), floor, fitted curve with band, and F*.

    The interval of F* is above the axis; `row` keeps several apart. Where no collapse point is shown, the fit is a
    thin broken line.
    """
    ax.set(ylim=(0, 1.02), ylabel="memorisation rate P")
    _draw_points(ax, one.points, fmt=marker, color=color, label=label)
    if one.has_replicates:
        hollow: Any = {"linestyle": "", "markerfacecolor": "none", "markersize": 2, "markeredgewidth": 0.5}
        shares = [run.accuracy for run in one.runs]
        ax.plot([run.frequency for run in one.runs], shares, marker=marker, color=color, **hollow)
    if one.floor.value:
        ax.axhline(one.floor.value, color=color, linestyle=":", linewidth=0.9)
    _plain_log_axis(ax, "x")
    curve = one.curve
    if not np.isfinite(curve.f_star):
        return
    smooth = np.geomspace(*curve.frequency_range, _GRID)
    if not curve.ok:
        ax.plot(smooth, curve.rate(smooth), "--", color=color, linewidth=0.7)
        return
    ax.plot(smooth, curve.rate(smooth), color=color)
    ax.fill_between(smooth, *curve.band(smooth), color=color, alpha=0.15, linewidth=0)
    ax.plot([curve.f_star], [curve.peak], "|", color=color, markersize=8)
    low, high = (end or curve.f_star for end in curve.f_star_interval)
    bars: Any = [[max(0.0, curve.f_star - low)], [max(0.0, high - curve.f_star)]]
    ax.errorbar([curve.f_star], [0.035 * (1 + row)], xerr=bars, color=color, fmt="|", markersize=6, elinewidth=1.6)


# One model: memory above, below it the residuals, and what memory costs


def draw_model(one: CurveReport) -> Figure:
    """Memory with curve, band, runs and control triples; below, residuals if a curve was fitted, and bits per byte."""
    fitted = bool(np.isfinite(one.residuals).all())
    ratios = (_PANEL_HEIGHT, *[0.8] * fitted, *[1.1] * bool(one.background))
    with _new_figure(sum(ratios) + 0.5) as figure:
        axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        ax = axes[0]
        _draw_memory(ax, one, _MEMORY, "o", "injected triples")
        if one.controls:
            _draw_points(ax, one.controls, fmt="x", color=_GREY, alpha=0.8, label="control triples")
        if one.floor.value:
            label = "guessing floor" + " (F = 0 runs)" * one.floor.measured
            ax.plot([], [], ":", color=_MEMORY, label=label)
        if fitted:
            for at, line in ((-2, ":"), (0, "-"), (2, ":")):
                axes[1].axhline(at, color=_GREY, linestyle=line, linewidth=0.7)
            axes[1].plot([run.frequency for run in one.runs], one.residuals, "o", color=_MEMORY, markerfacecolor="none")
            reach = max(3.0, 1.15 * max(map(abs, one.residuals)))
            axes[1].set(ylim=(-reach, reach), ylabel="residual")
        if one.background:
            ax, bits = axes[-1], {point.frequency: point.bits_per_byte for point in one.background}
            if 0 in bits:
                ax.axhline(bits.pop(0), color=_COST, linestyle=":", linewidth=0.9)
            ax.plot(list(bits), list(bits.values()), "D-", color=_COST, markersize=2.8, linewidth=0.9)
            ax.set_ylabel("bits per byte")
            ax.margins(y=0.15)
        axes[-1].set_xlabel("frequency F")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


# F* against C, with the law of each token budget and what it predicts


def _shown_laws(report: FitReport) -> list[tuple[LawReport, Any]]:
    """The laws in the figures, with their colours."""
    shown = sorted((one for one in report.laws if one.params), key=lambda one: one.tokens or 0)
    shown = [one for one in shown if one.ratio] or shown  # a ray has all points
    return list(zip(shown, _colors(len(shown)), strict=True))


def draw_laws(report: FitReport) -> Figure:
    """The collapse points of each token budget (of one at least), their laws, and what is predicted."""
    shown = _shown_laws(report)
    with _new_figure(_PANEL_HEIGHT + _LEGEND_ROW * (len(shown) + 3)) as figure:
        ax = figure.subplots()
        for one, color in shown:
            label, law = one.where.replace("experiment ", ""), one.law
            if law:
                alpha = estimated(law.alpha, law.alpha_interval, parameter)
                label += f": alpha = {alpha}, E = {estimated(law.E, law.E_interval, parameter)}"
                smooth = np.geomspace(*law.compute_range, _GRID // 2)
                ax.plot(smooth, [law.predict(compute) for compute in smooth], color=color)
                low, high = np.array([law.interval(compute) for compute in smooth], dtype=np.float64).T
                ax.fill_between(smooth, low, high, color=color, alpha=0.15, linewidth=0)
            ax.loglog()
            points = [(point.compute, point.f_star, point.interval, count(point.params)) for point in one.points]
            _draw_f_star(ax, points, fmt="o", color=color, label=label)
        # What the laws say of models that they were not fitted to, hollow
        predicted = [(one.compute, one.predicted, one.interval, "") for one in report.held_out]
        budgets = {planned.tokens for planned in report.predictions}
        for planned in report.predictions:
            if planned.f_star is not None:
                interval = planned.interval or (None, None)
                name = count(planned.params) + (f", D = {count(planned.tokens)}" if len(budgets) > 1 else "")
                predicted.append((planned.compute, planned.f_star, interval, name))
        _draw_f_star(ax, predicted, fmt="D", label="predicted", color=_RED, markerfacecolor="none")
        for axis in "xy":
            low, high = getattr(ax, f"get_{axis}lim")()
            middle, factor = np.sqrt(low * high), max(np.sqrt(high / low) * 1.3, 4.0)
            getattr(ax, f"set_{axis}lim")(middle / factor, middle * factor)
            _plain_log_axis(ax, axis)
        ax.set(xlabel="compute C = 6·N·D (FLOP)", ylabel="collapse point F*")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center")
        if report.missing_law:
            ax.set_title(textwrap.fill(sentence(report.missing_law), 56), loc="left", fontsize=7)
    return figure


def draw_regions(report: FitReport) -> Figure | None:
    """The joint region of alpha with E, and of alpha with A, of each law that has one; None without any."""
    shown = [(one, one.law, one.law.region, color) for one, color in _shown_laws(report) if one.law and one.law.region]
    if not shown:
        return None
    with _new_figure(1.9 + _LEGEND_ROW * len(shown)) as figure:
        left, right = figure.subplots(1, 2)
        for one, law, region, color in shown:
            # A itself has the unit FLOP^alpha, so that it says little beside another alpha
            largest = law.compute_range[1]
            parts = law.A / largest**law.alpha, region.A / largest ** region.alpha[:, None]
            for ax, label, (value, ranges) in ((left, one.where, (law.E, region.E)), (right, None, parts)):
                ax.fill_between(region.alpha, *ranges.T, facecolor=(color, 0.2), edgecolor=color, label=label)
                ax.plot([law.alpha], [value], "+", color=color, markersize=6)
        for ax, label in ((left, "E"), (right, "A/C^alpha")):
            ax.set(xlabel="alpha", ylabel=label)
            ax.locator_params(nbins=4)
        figure.legend(loc="outside lower center")
    return figure


def _draw_f_star(
    ax: Axes, points: Sequence[tuple[float, float, tuple[float | None, float | None], str]], **style: Any
) -> None:
    """(C, F*, interval, name) as points with bars; an open end has no bar."""
    if points:
        compute, f_star = np.array([point[:2] for point in points]).T
        below = [at - (low or at) for _, at, (low, _), _ in points]
        above = [(high or at) - at for _, at, (_, high), _ in points]
        ax.errorbar(compute, f_star, np.maximum(0, [below, above]), elinewidth=0.7, **style)
        # A name takes some 12 % of the axis; where there is no room for it, it is left out
        room, free_from = 0.12 * max(float(np.log(compute.max() / compute.min())) + 0.5, 2.8), -np.inf
        for x, y, _, name in sorted(points, key=lambda point: point[0]):
            if name and np.log(x) >= free_from:
                ax.annotate(name, (x, y), (4, 3), textcoords="offset points", fontsize=6)
                free_from = np.log(x) + room


# Colours and axes


def _colors(many: int) -> list[Any]:
    """Told apart by the colour-blind, and in print from dark to light."""
    return [colormaps["viridis"](at) for at in np.linspace(0.0, 0.8, max(2, many))][:many]


def _plain_log_axis(ax: Axes, name: str) -> None:
    """A logarithmic axis whose ticks are plain numbers at 1, 2 and 5."""
    getattr(ax, f"set_{name}scale")("log")
    axis = getattr(ax, f"{name}axis")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e3 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
