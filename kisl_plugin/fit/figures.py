"""One model's figure: memory, what was asked beside it, and what it costs."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.files import write_atomically
from kisl_plugin.fit import text as human
from kisl_plugin.fit.curve_estimate import wilson
from kisl_plugin.fit.law import InfusionLaw
from kisl_plugin.fit.law_estimate import OPEN
from kisl_plugin.fit.predict import same
from kisl_plugin.fit.report import CurveReport, FitReport, LawReport, Point, sentence, valued

# What all figures share: size, letters, colours, axes, and how they are saved.

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PANEL_HEIGHT, LEGEND_ROW = 3.4, 2.3, 0.15  # inches
DPI = 200
MARKERS = "osD^vPXh"
GREY = "0.4"
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
    "pdf.fonttype": 42,  # fonts go in as they are: journals refuse type 3
    "svg.hashsalt": "kisl",
    "text.parse_math": False,  # a dollar in a label is a dollar
}
# No date, so that the same results give the same bytes
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


@contextmanager
def styled() -> Iterator[None]:
    """The style for all that is drawn and saved inside."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def new_figure(height: float) -> "Figure":
    """An empty figure of one column's width; `height` in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def laid_out(figure: "Figure") -> "Figure":
    """The figure with its layout settled: every file that it is saved to is then drawn alike, and sooner."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.pdf into `folder`."""
    return [write_atomically(folder / f"{name}.{kind}", rendered(figure, kind)) for kind in ("png", "pdf")]


def rendered(figure: "Figure", kind: str) -> bytes:
    """The figure as png, pdf or svg."""
    stream = io.BytesIO()
    with styled():
        figure.savefig(stream, format=kind, dpi=DPI, metadata=UNDATED[kind])
    return stream.getvalue()


def draw_points(ax: "Axes", points: Sequence[Point], beside: float = 1.0, **style: Any) -> None:
    """Shares with their 95 % Wilson intervals, at `beside` times their F."""
    shares = np.array([point.share for point in points])
    low, high = wilson([point.correct for point in points], [point.total for point in points])
    bars = np.maximum(0, [shares - low, high - shares])
    ax.errorbar([point.frequency * beside for point in points], shares, bars, **{"elinewidth": 0.7, **style})


def colors(many: int) -> list[Any]:
    """Distinct for the colour-blind, and in print from dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](at) for at in np.linspace(0.0, 0.8, max(2, many))][:many]


def looks(report: FitReport) -> dict[int, tuple[Any, str]]:
    """Colour and marker of each N, the same in all panels and figures."""
    sizes = sorted({found.params for found in report.curves})
    return {
        params: (color, MARKERS[i % len(MARKERS)])
        for i, (params, color) in enumerate(zip(sizes, colors(len(sizes)), strict=True))
    }


def plain_log_axis(ax: "Axes", name: str) -> None:
    """A logarithmic axis whose ticks are plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(ax, f"set_{name}scale")("log")
    axis = getattr(ax, f"{name}axis")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e3 else (1,)))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _plain(value: float, _: object) -> str:
    if 1e-4 < value < 1e6:
        return f"{value:g}"
    digit, power = f"{value:.0e}".split("e")
    ten = "10" + str(int(power)).translate(SUPERSCRIPTS)
    return ten if digit == "1" else f"{digit}×{ten}"


def say(ax: "Axes", text: str, above: bool = False) -> None:
    """Write `text` where the drawing would be, or above what there is of it."""
    if above:
        ax.set_title(text, loc="left", fontsize=7)
        return
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)


def wrapped(text: str, width: int = 56) -> str:
    """`text` in lines that fit the figure."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def shortened(text: str, width: int = 40) -> str:
    """A label that may be any file's, cut to what fits a title."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


# What memory costs: control triples and the background text against the frequency.

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


# All curves in one figure: the shares with their intervals, the curves with their bands, F* with its interval.

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


# F* against C with the law of each token budget, its band, and what it predicts.

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN, REACH = 1.3, 4.0  # factors of C and F*: around the points, and at least from the middle
LAW_GRID = 100  # points along a smooth curve


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
    smooth = np.geomspace(*ends, LAW_GRID)
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


# One model's figure: memory, what was asked beside it, and what it costs.

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
