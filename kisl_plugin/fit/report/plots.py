"""The two figures, sized for one column of a paper. matplotlib is imported when a figure is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.fit import human
from kisl_plugin.fit.curves.likelihood import FloatArray
from kisl_plugin.fit.report.assemble import CurveReport, FitReport, LawReport, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PANEL_HEIGHT, LEGEND_ROW = 3.4, 2.3, 0.15  # inches
DPI = 200
LAW_MARGIN, LAW_REACH = 1.3, 4.0  # factors of C and F*: around the points, and at least from the middle
MARKERS = "osD^vPXh"
NORMAL_95 = 1.959963984540054
STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
}


def draw_curves(report: FitReport, path: Path) -> None:
    """One panel per token budget: shares with Wilson intervals, the curves, their F* with its interval."""
    from matplotlib import rc_context

    budgets = sorted({found.tokens for found in report.curves})
    with rc_context(STYLE):
        figure = _figure(max(1, len(budgets)) * PANEL_HEIGHT + (len(report.curves) + 2) * LEGEND_ROW)
        axes = figure.subplots(max(1, len(budgets)), 1, squeeze=False)[:, 0]
        for ax, tokens in zip(axes, budgets, strict=False):
            found = [curve for curve in report.curves if curve.tokens == tokens]
            _curves_panel(ax, found)
            ax.set_title(f"{report.task}, D = {human.count(tokens)}", loc="left", fontsize=8)
        if not budgets:
            _say(axes[0], "No run could be used:\nsee what was set aside.")
        figure.savefig(path, dpi=DPI)


def draw_law(report: FitReport, path: Path) -> None:
    """F* against C with the law of each token budget; where there is none, what is missing."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = _figure(PANEL_HEIGHT)
        ax = figure.subplots()
        shown = [law for law in report.laws if law.params]
        for law, color in zip(shown, _colors(len(shown)), strict=True):
            _law_line(ax, law, [c for c in report.curves if c.tokens == law.tokens and c.curve.ok], color)
        if shown:
            _law_axes(ax)
        if not report.headline:
            _say(ax, _wrapped(report.missing_law), above=bool(shown))
        figure.savefig(path, dpi=DPI)


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    z2 = NORMAL_95**2
    middle = (correct + z2 / 2) / (total + z2)
    half = NORMAL_95 / (total + z2) * np.sqrt(correct * (total - correct) / total + z2 / 4)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _figure(height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colors(many: int) -> list[Any]:
    """Distinct for the colour-blind, and in print from dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](at) for at in np.linspace(0.0, 0.8, max(2, many))][:many]


def _curves_panel(ax: "Axes", found: Sequence[CurveReport]) -> None:
    for i, (report, color) in enumerate(zip(found, _colors(len(found)), strict=True)):
        _one_curve(ax, report, color, MARKERS[i % len(MARKERS)])
    if any(report.controls for report in found):
        ax.plot([], [], "x", color="0.4", markersize=2.5, label="control triples")
    if any(report.floor.value for report in found):
        measured = any(report.floor.measured for report in found)
        ax.plot([], [], ":", color="0.4", label="guessing floor" + " (F = 0 runs)" * measured)
    ax.set_ylim(0, 1)
    ax.set_xlabel("frequency F")
    ax.set_ylabel("memorisation rate P")
    _plain_log_axis(ax, "x")
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith(("control", "guessing")))
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper center",
        bbox_to_anchor=(0.45, -0.2),
        ncols=2 if max(map(len, labels)) < 28 else 1,
    )


def _plain_log_axis(ax: "Axes", name: str) -> None:
    """A logarithmic axis whose ticks are plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(ax, f"set_{name}scale")("log")
    axis = getattr(ax, f"{name}axis")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e3 else (1,)))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: object) -> str:
    if value < 1e6:
        return f"{value:g}"
    digit, power = f"{value:.0e}".split("e")
    return f"$10^{{{int(power)}}}$" if digit == "1" else rf"${digit}{{\times}}10^{{{int(power)}}}$"


def _one_curve(ax: "Axes", report: CurveReport, color: Any, marker: str) -> None:
    curve = report.curve
    x, rates, bars = _with_bars(report.points)
    ax.errorbar(x, rates, bars, fmt=marker, color=color, elinewidth=0.7, label=_label(report))
    if curve.ok:
        smooth = np.geomspace(*curve.frequency_range, 200)
        ax.plot(smooth, curve.rate(smooth), color=color)
        low, high = curve.f_star_interval
        if low is not None and high is not None:
            ax.axvspan(low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot([curve.f_star], [curve.peak], "|", color=color, markersize=8)
    else:
        ax.plot(x, rates, color=color, linewidth=0.5, alpha=0.6)
    if report.floor.value:
        ax.axhline(report.floor.value, color=color, linestyle=":", linewidth=0.9)
    if report.controls:
        asked, shares = [p.frequency for p in report.controls], [p.share for p in report.controls]
        ax.plot(asked, shares, "x", color=color, markersize=2.5, markeredgewidth=0.7, alpha=0.7)


def _with_bars(points: Sequence[Point]) -> tuple[list[int], FloatArray, FloatArray]:
    shares = np.array([point.share for point in points])
    ends = np.array([wilson(point.correct, point.total) for point in points]).T
    return [point.frequency for point in points], shares, np.maximum(0, [shares - ends[0], ends[1] - shares])


def _label(report: CurveReport) -> str:
    name, curve = human.count(report.params), report.curve
    return f"{name}: F* = {human.estimate(curve.f_star)}" if curve.ok else f"{name}: {curve.status}"


def _law_line(ax: "Axes", found: LawReport, curves: Sequence[CurveReport], color: Any) -> None:
    compute = np.array([6.0 * report.params * report.tokens for report in curves])
    f_star = np.array([report.curve.f_star for report in curves])
    ends = np.array([report.curve.f_star_interval for report in curves], dtype=np.float64).T
    bars = np.maximum(0, [f_star - ends[0], ends[1] - f_star])
    ax.loglog()
    label = f"D = {human.count(found.tokens)}"
    if found.law:
        label += f": alpha = {found.law.alpha:.2f}, E = {human.estimate(found.law.E)}"
    ax.errorbar(compute, f_star, bars, fmt="o", color=color, elinewidth=0.7, label=label)
    for report, x, y in zip(curves, compute, f_star, strict=True):
        ax.annotate(human.count(report.params), (x, y), (4, 3), textcoords="offset points", fontsize=6)
    if found.law:
        smooth = np.geomspace(*found.law.compute_range, 100)
        ax.plot(smooth, [found.law.predict(c) for c in smooth], color=color)


def _law_axes(ax: "Axes") -> None:
    for name in "xy":
        low, high = getattr(ax, f"get_{name}lim")()
        middle, reach = np.sqrt(low * high), max(np.sqrt(high / low) * LAW_MARGIN, LAW_REACH)
        getattr(ax, f"set_{name}lim")(middle / reach, middle * reach)
        _plain_log_axis(ax, name)
    ax.set_xlabel("compute C = 6·N·D (FLOP)")
    ax.set_ylabel("collapse point F*")
    ax.legend(frameon=True, fancybox=False, edgecolor="0.8")


def _say(ax: "Axes", text: str, above: bool = False) -> None:
    """Write `text` where the drawing would be, or above what there is of it."""
    if above:
        ax.set_title(text, loc="left", fontsize=7)
        return
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text[0].upper() + text[1:] + ".", 56))
