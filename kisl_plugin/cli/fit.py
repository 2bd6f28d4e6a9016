"""`kisl-fit`: lm-eval results → collapse curves → infusion law → report folder. numpy is imported when it fits."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kisl_plugin import __version__
from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import KislError
from kisl_plugin.fit.text import STATUS_HELP
from kisl_plugin.progress import Progress

if TYPE_CHECKING:
    from kisl_plugin.fit.report import Asked

TASK = "kisl_wikidata"
EPILOG = """\b
Examples:
  lm_eval --model hf --model_args pretrained=./137m_f200 --tasks kisl_wikidata \\
      --output_path results --log_samples
  kisl-fit results --out report
  kisl-fit results --hold-out 1.05e9
  kisl-fit results --predict params=7e9,tokens=2e12 --triples 1e5 \\
      --write-configs planned

\b
Status of a curve (F* is reported only where it is ok):
"""
STATUSES = "\n".join(
    textwrap.fill(f"{status}{'…' * status.endswith('=')}: {meaning}", 76, initial_indent="  ", subsequent_indent="    ")
    for status, meaning in STATUS_HELP.items()
)
PATH = click.Path(path_type=Path)


class Watching:
    """Shows how far the work is: one redrawn line on a terminal, plain lines in a log."""

    def __init__(self) -> None:
        self._shown: dict[str, Progress] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of `what` are done."""
        if not total:
            return
        progress = self._shown.setdefault(what, Progress(what, total))
        progress.update(done)
        if done >= total:
            progress.close()


@click.command(cls=Command, epilog=EPILOG + STATUSES)
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option("--out", default="report", show_default=True, type=PATH, help="Report folder.")
@click.option("--task", default=TASK, show_default=True, help="The lm-eval task to read.")
@click.option(
    "--chance",
    default="auto",
    show_default=True,
    metavar="auto|none|SHARE",
    help="Guessing floor of the curves: auto takes it from the F = 0 runs of the same N, D and items.",
)
@click.option("--runs", type=PATH, metavar="CSV", help="Run cards of models that carry none: one row per results file.")
@click.option("--write-table", type=PATH, metavar="CSV", help="Write the observations; kisl-fit reads them in turn.")
@click.option(
    "--hold-out",
    metavar="N",
    help="Predict the size nearest to N from the others, and say by how much it is missed (3e9 or 3B).",
)
@click.option(
    "--predict",
    multiple=True,
    metavar="params=N,tokens=D",
    help="Predict the best F of a model that was not trained (7e9 or 7B). Can be repeated.",
)
@click.option("--triples", metavar="K", help="How many triples the prediction is to state.  [default: the sweep's]")
@click.option("--write-configs", type=PATH, metavar="DIR", help="Write GPT-NeoX YAMLs at 0.8, 1.0 and 1.2 of each F*.")
@click.version_option(__version__, prog_name="kisl-fit")
def main(
    results: tuple[Path, ...],
    out: Path,
    task: str,
    chance: str,
    runs: Path | None,
    write_table: Path | None,
    write_configs: Path | None,
    **asked: Any,
) -> None:
    """Fit collapse curves and the infusion law to lm-eval RESULTS (files or folders, searched through).

    Prints a table and writes a report folder: index.html (the page), fit.json, curves.csv, observations.csv, and the
    figures as PNG and PDF. Files that are not used are listed with the reason; where that is all of them, the exit
    status is 1.
    """
    from kisl_plugin.fit import fit_results, write_report
    from kisl_plugin.fit.table import render
    from kisl_plugin.fit.writing import write_observations, write_planned

    if write_configs is not None and not asked["predict"]:
        raise click.UsageError("--write-configs needs --predict params=N,tokens=D: what the YAMLs are to test")
    if asked["triples"] is not None and not asked["predict"]:
        raise click.UsageError("--triples needs --predict params=N,tokens=D: which model is to state them")
    watch = Watching()
    report = fit_results(results, task, chance, asked=_asked(**asked), runs=runs, watch=watch)
    click.echo(_printable(render(report)))
    files = write_report(report, out, watch)
    click.echo(_printable(f"\nWrote into {out}: {', '.join(file.name for file in files)}"))
    beside = [write_observations(report, write_table)] if write_table is not None else []
    _wrote(beside)
    _wrote(write_planned(report, write_configs) if write_configs is not None else [])
    if not report.observations:
        raise KislError(f"nothing could be used: every file was set aside ({len(report.set_aside)}), as listed above")


def _asked(hold_out: str | None, predict: tuple[str, ...], triples: str | None) -> "Asked":
    from kisl_plugin.fit.predict import parse_size, parse_target, parse_triples
    from kisl_plugin.fit.report import Asked

    return Asked(
        hold_out=None if hold_out is None else parse_size(hold_out),
        predict=tuple(map(parse_target, predict)),
        triples=None if triples is None else parse_triples(triples),
    )


def _wrote(files: list[Path]) -> None:
    for file in files:
        click.echo(_printable(f"Wrote {file}"))


def _printable(text: str) -> str:
    # The name of a file may hold bytes that are no text, or what a terminal takes for a command
    return "".join(char if char == "\n" or char.isprintable() else ascii(char)[1:-1] for char in text)
