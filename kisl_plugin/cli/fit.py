"""The command kisl-fit. numpy is imported only when something is fitted, so that the help appears at once."""

from pathlib import Path

import click

from kisl_plugin import __version__
from kisl_plugin.cli import Command
from kisl_plugin.errors import KislError
from kisl_plugin.fit.text import STATUS_HELP
from kisl_plugin.progress import Progress

__all__ = ["main"]

EXAMPLES = """\b
Examples:
  lm_eval --model hf --tasks kisl_wikidata \\
      --model_args pretrained=./137m_f200 \\
      --output_path results --log_samples
  kisl-fit results --out report
  kisl-fit results --hold-out 1.05e9
  kisl-fit results --select frequency=0,10,100 \\
      --select spacing=even
  kisl-fit results --predict params=7e9,tokens=58e9 \\
      --triples 1e5 --write-configs planned

Status of a curve (F* is reported only where it is ok):

"""
STATUSES = "\n\n".join(f"{status}{'…' * status.endswith('=')}: {words}" for status, words in STATUS_HELP.items())
PATH = click.Path(path_type=Path)


@click.command(cls=Command, epilog=EXAMPLES + STATUSES)
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option("--out", default="report", show_default=True, type=PATH, help="Report folder.")
@click.option(
    "--task",
    metavar="NAME,…",
    help="The lm-eval task to read. Of several, the laws are those of the first, and the curves stand side by side.  "
    "[default: kisl_wikidata, else the form of it that the results have]",
)
@click.option(
    "--select",
    multiple=True,
    metavar="KEY=VALUE,…",
    help="Only runs whose card has one of these values: params=137M, frequency=0,10,100, optimizer.lr=1e-3. Can be "
    "repeated for other keys.",
)
@click.option(
    "--chance",
    default="auto",
    show_default=True,
    metavar="auto|none|SHARE",
    help="Guessing floor of the curves. auto: the accuracy of the F = 0 runs with the same N, D and items, else of "
    "the control triples, else one in four.",
)
@click.option(
    "--runs", type=PATH, metavar="CSV", help="Run cards for models that have none: one row for each results file."
)
@click.option(
    "--noise",
    type=float,
    metavar="TAU",
    help="Run-to-run noise (SD of log-odds) of curves without seeds, and the most that seeds are trusted with.  "
    "[default: that of the sizes with seeds, if any; 0.25]",
)
@click.option("--hold-out", metavar="N", help="Predict the size nearest to N from the other sizes (3e9 or 3B).")
@click.option(
    "--predict",
    multiple=True,
    metavar="params=N,tokens=D",
    help="Predict the best F of a model that was not trained (7e9 or 7B). Can be repeated.",
)
@click.option("--triples", metavar="K", help="Number of triples for --predict.  [default: the sweep's]")
@click.option("--write-configs", type=PATH, metavar="DIR", help="Write GPT-NeoX YAMLs at 0.8, 1.0 and 1.2 of each F*.")
@click.version_option(__version__, prog_name="kisl-fit")
def main(
    results: tuple[Path, ...],
    out: Path,
    task: str | None,
    select: tuple[str, ...],
    chance: str,
    runs: Path | None,
    noise: float | None,
    hold_out: str | None,
    predict: tuple[str, ...],
    triples: str | None,
    write_configs: Path | None,
) -> None:
    """Fit collapse curves and the infusion law to lm-eval RESULTS (files, or folders that are searched).

    Prints a table and writes a report folder: index.html (the page), fit.json, observations.csv, and the figures as
    PNG and PDF. Files that are not used are listed with the reason; if no file can be used, the exit status is 1.
    """
    from kisl_plugin.fit.cards import parse_selection
    from kisl_plugin.fit.predict import parse_count, parse_target, sweep_of
    from kisl_plugin.fit.predict import write_configs as write_planned
    from kisl_plugin.fit.report import FitOptions, fit_results
    from kisl_plugin.fit.text import render_report
    from kisl_plugin.fit.writing import write_report

    if write_configs is not None and not predict:
        raise click.UsageError("--write-configs needs --predict params=N,tokens=D, which the YAMLs are to test")
    if triples is not None and not predict:
        raise click.UsageError("--triples needs --predict params=N,tokens=D")
    options = FitOptions(
        noise=noise,
        hold_out=None if hold_out is None else parse_count(hold_out, f"--hold-out {hold_out!r}", "1.05e9 or 3B"),
        predict=tuple(map(parse_target, predict)),
        triples=None if triples is None else parse_count(triples, f"--triples {triples!r}", "1e5 or 100K"),
    )
    bar = Progress("fitting curves", 1)

    def watch(done: int, total: int) -> None:
        bar.total = total
        bar.update(done)

    selection = parse_selection(select)
    tasks = [name.strip() for name in task.split(",")] if task else None
    report = fit_results(results, tasks, chance, options=options, runs=runs, select=selection, watch=watch)
    bar.close()
    _echo(render_report(report))
    files = write_report(report, out)
    _echo(f"\nWrote into {out}: {', '.join(file.name for file in files)}")
    if write_configs is not None:
        sweep = sweep_of(one.card for one in report.observations)
        for file in [file for one in report.predictions for file in write_planned(one, write_configs, sweep)]:
            _echo(f"Wrote {file}")
    if not report.observations:
        raise KislError(f"no file could be used: all {len(report.set_aside)} were set aside, as listed above")


def _echo(text: str) -> None:
    """Print; the name of a file may hold bytes that are no text, or what a terminal takes for a command."""
    click.echo("".join(char if char == "\n" or char.isprintable() else ascii(char)[1:-1] for char in text))
