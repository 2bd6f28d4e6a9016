"""The grid as lines for a terminal of 80 columns."""

from kisl_plugin.configs.grid import Run, Series, all_series
from kisl_plugin.configs.render import percent

LEGEND = """\
N: parameters, all and without embeddings (w/o emb.)   D: tokens   C = 6·N·D
shape: layers·width·heads·inner width   F: how often each triple is stated
injected: share of the tokens, by the mean length of a statement"""


def listing() -> str:
    """One line a run; the runs of one collapse curve stand together."""
    blocks = ["\n".join(map(_line, series.runs)) for series in all_series()]
    return "\n\n".join([_row("run", "N", "w/o emb.", "shape", "F", "D", "C", "injected"), *blocks, LEGEND])


def count(value: float) -> str:
    """A count of parameters or tokens to four digits: 137.6M, 58.00B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:#.4g}{unit}"
    return f"{value:g}"


def shape_of(series: Series) -> str:
    """Layers, width, heads and inner width."""
    shape = series.model.shape
    return f"{shape.layers}·{shape.hidden}·{shape.heads}·{shape.inner}"


def _line(run: Run) -> str:
    series = run.series
    return _row(
        run.name,
        count(series.model.shape.parameters),
        count(series.model.shape.parameters_non_embedding),
        shape_of(series),
        str(run.frequency),
        count(series.tokens),
        f"{series.compute:.2e}".replace("e+", "e"),
        percent(run.injected_fraction),
    )


def _row(name: str, total: str, inner: str, shape: str, f: str, tokens: str, compute: str, share: str) -> str:
    return f"{name:<15} {total:>7} {inner:>8} {shape:>15} {f:>4} {tokens:>6} {compute:>7} {share:>9}"
