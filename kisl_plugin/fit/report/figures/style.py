"""What all figures share: size, letters, colours, axes, and how they are saved."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.fit.curves.wilson import wilson
from kisl_plugin.fit.report.files import put
from kisl_plugin.fit.report.gathered import FitReport, Point

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
    return [put(folder / f"{name}.{kind}", rendered(figure, kind)) for kind in ("png", "pdf")]


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
