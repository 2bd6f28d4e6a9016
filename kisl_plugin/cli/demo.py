"""`kisl demo`: the whole loop on this machine."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError
from kisl_plugin.progress import duration

if TYPE_CHECKING:
    from kisl_plugin.demo import Scale


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
@click.option("--only-data", is_flag=True, help="Make tokenizer, corpus and facts, which some YAMLs read, and stop.")
def demo(out: Path, seed: int, quick: bool, only_data: bool) -> None:
    """Inject, train, probe and fit on this machine: no GPU, no network, a few minutes on two cores.

    A small Llama is trained from scratch at several frequencies F on the docstrings of the installed packages, with
    Wikidata facts stated F times each, and asked for them by lm_eval. A second call resumes.

    Example: kisl demo --out my-demo
    """
    from kisl_plugin.demo import FULL, QUICK

    scale = QUICK if quick else FULL
    if only_data:
        _make_data(out, seed, scale)
    else:
        _run(out, seed, scale, f"kisl demo --out {out} --seed {seed}{' --quick' if quick else ''}")


def _make_data(out: Path, seed: int, scale: "Scale") -> None:
    from kisl_plugin.demo import claim, prepare, yamls_that_read

    claim(out, seed, scale)
    data = prepare(out / "data", seed, scale)
    click.echo(data.found())
    click.echo(f"vocab_file    {data.tokenizer}\ndata_path     {data.corpus}\nkisl.triples  {data.facts}")
    found = ", ".join(yamls_that_read(data))
    told = f"read by {found}" if found else "no YAML of neox_configs reads these paths: write them into your own"
    click.echo(click.wrap_text(told, width=78, subsequent_indent="  "))


def _run(out: Path, seed: int, scale: "Scale", command: str) -> None:
    try:
        from kisl_plugin.demo import draw_overview, run_demo, text_table, verdicts, write_page
    except ImportError as error:
        raise InputError(f"{error}; install what the demo needs: pip install 'kisl-plugin[demo]'") from None
    began = time.monotonic()
    report = run_demo(out, seed, scale, click.echo)
    draw_overview(report, out / "overview.png")
    page = write_page(report, out, command)
    click.echo(f"\n{text_table(report)}\n")
    missing = next(iter(report.fits.values())).missing_law
    for said in [*verdicts(report), *([missing] if missing else [])]:
        click.echo(click.wrap_text(said, width=78, subsequent_indent="  "))
    click.echo(f"\n{page} · {duration(time.monotonic() - began)}")
