"""The demo's own figure: memory by question and by statement above, general loss below, against F."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin.demo.run import QUESTION, STATEMENT, DemoReport, DemoRun
from kisl_plugin.fit.curves.wilson import wilson
from kisl_plugin.fit.report.figures.style import DPI, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = (
    (QUESTION, "acc", "question", "#0072b2", "o"),
    (STATEMENT, "acc", "statement, as injected", "#d55e00", "s"),
    (QUESTION, "acc_control", "control facts, question", "#777777", "x"),
)


def draw_overview(report: DemoReport, path: Path) -> None:
    """Write the figure as PNG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        memory, loss = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        _memory(memory, report)
        _loss(loss, report)
        figure.savefig(path, dpi=DPI)


def _memory(ax: "Axes", report: DemoReport) -> None:
    for task, metric, name, color, marker in LINES:
        scores = [run.scores[task][metric] for run in report.runs]
        shares = [value for value, _ in scores]
        bounds = [wilson(round(value * count), count) for value, count in scores]
        bars: Any = [
            [share - low for share, (low, _) in zip(shares, bounds, strict=True)],
            [high - share for share, (_, high) in zip(shares, bounds, strict=True)],
        ]
        ax.errorbar(_frequencies(report), shares, bars, color=color, marker=marker, label=name, elinewidth=0.7)
    ax.axhline(0.25, color="#999999", linestyle=":", linewidth=0.8, label="one in four", zorder=0)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("share right")
    ax.legend(loc="upper left")


def _loss(ax: "Axes", report: DemoReport) -> None:
    losses = [run.held_out_loss for run in report.runs]
    ax.plot(_frequencies(report), losses, color="#009e73", marker="D")
    ax.set_ylabel("general loss\n(nats per token)")
    ax.set_xlabel("frequency F (share of the tokens injected)")
    ax.set_xticks(_frequencies(report), [_tick(run) for run in report.runs])


def _frequencies(report: DemoReport) -> list[int]:
    return [run.frequency for run in report.runs]


def _tick(run: DemoRun) -> str:
    return f"{run.frequency}\n({run.card.injected_fraction or 0:.0%})"
