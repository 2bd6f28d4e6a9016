"""`kisl-fit`: lm-eval results → collapse curves → infusion law → report folder."""

from pathlib import Path

import click

from kisl_plugin import __version__
from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import KislError
from kisl_plugin.fit import fit_results, write_report
from kisl_plugin.fit.curves.status import STATUS_HELP
from kisl_plugin.fit.reading.results import TASK
from kisl_plugin.fit.report.table import render

EPILOG = """\b
Example:
  lm_eval --model hf --model_args pretrained=./137m_f200 --tasks kisl_wikidata \\
      --output_path results
  kisl-fit results --out report

\b
Status of a curve (F* is reported only where it is ok):
"""
STATUSES = "\n".join(f"  {status}{'…' * status.endswith('=')}: {meaning}" for status, meaning in STATUS_HELP.items())


@click.command(cls=Command, epilog=EPILOG + STATUSES)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", default="report", show_default=True, type=click.Path(path_type=Path), help="Report folder.")
@click.option("--task", default=TASK, show_default=True, help="The lm-eval task to read.")
@click.option(
    "--chance",
    default="auto",
    show_default=True,
    metavar="auto|none|SHARE",
    help="Guessing floor of the curves: auto takes it from the F = 0 runs of the same N, D and items.",
)
@click.version_option(__version__, prog_name="kisl-fit")
def main(results: tuple[Path, ...], out: Path, task: str, chance: str) -> None:
    """Fit collapse curves and the infusion law to lm-eval RESULTS (files or folders, searched through).

    Prints a table and writes fit.json, observations.csv, curves.png and law.png. Files that are not used are
    listed with the reason; where that is all of them, the exit status is 1.
    """
    report = fit_results(results, task, chance)
    click.echo(render(report))
    files = write_report(report, out)
    click.echo(f"\nWrote {', '.join(map(str, files))}")
    if not report.observations:
        raise KislError(f"nothing could be used: every file was set aside ({len(report.set_aside)}), as listed above")
