"""`kisl demo`: the whole loop on this machine."""

import time
from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError
from kisl_plugin.progress import duration


@click.command(cls=Command)
@click.option("--out", default="kisl-demo", show_default=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option(
    "--seed",
    default=1234,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of facts, weights, row order and injection.",
)
@click.option("--quick", is_flag=True, help="A fifth of the tokens and fewer frequencies: under a minute.")
def demo(out: Path, seed: int, quick: bool) -> None:
    """Inject, train, probe and fit on this machine: no GPU, no network, a few minutes on two cores.

    A small Llama is trained from scratch at several frequencies F on the docstrings of the installed packages, with
    Wikidata facts stated F times each, and asked for them by lm_eval. A second call resumes.

    Example: kisl demo --out my-demo
    """
    try:
        from kisl_plugin.demo.figure import draw_overview
        from kisl_plugin.demo.page import write_page
        from kisl_plugin.demo.run import FULL, QUICK, run_demo
        from kisl_plugin.demo.table import text_table, verdicts
    except ImportError as error:
        raise InputError(f"{error}; install what the demo needs: pip install 'kisl-plugin[demo]'") from None
    began = time.monotonic()
    report = run_demo(out, seed, QUICK if quick else FULL, click.echo)
    draw_overview(report, out / "overview.png")
    options = f" --out {out} --seed {seed}{' --quick' if quick else ''}"
    page = write_page(report, out, f"kisl demo{options}")
    click.echo(f"\n{text_table(report)}\n")
    missing = next(iter(report.fits.values())).missing_law
    for said in [*verdicts(report), *([missing] if missing else [])]:
        click.echo(click.wrap_text(said, width=78, subsequent_indent="  "))
    click.echo(f"\n{page} · {duration(time.monotonic() - began)}")
