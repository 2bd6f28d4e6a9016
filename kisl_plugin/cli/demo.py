"""`kisl demo`: the whole loop on this machine."""

import time
from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.progress import duration


@click.command(cls=Command)
@click.option("--out", default="kisl-demo", show_default=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option(
    "--seed",
    default=1234,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Decides which facts are injected, weights, row order and injection.",
)
@click.option(
    "--quick", is_flag=True, help="A fifth of the tokens, four frequencies, one seed: under a minute, and no collapse."
)
@click.option(
    "--only-data", is_flag=True, help="Write tokenizer, corpus and facts, which neox_configs/tiny_*.yml read."
)
def demo(out: Path, seed: int, quick: bool, only_data: bool) -> None:
    """Inject, train, probe and fit on this machine in minutes: a collapse point, and its cause.

    Needs no GPU and no network. A small Llama is trained from scratch at several frequencies F, with Wikidata facts
    stated F times each, on docstrings of the installed packages and questions and answers about other facts; lm_eval
    asks it. A second call resumes.

    Example: kisl demo --out my-demo
    """
    from kisl_plugin.demo import run_demo
    from kisl_plugin.demo_data import FULL, QUICK, prepare_data

    scale, began = QUICK if quick else FULL, time.monotonic()
    if only_data:
        data = prepare_data(out, seed, scale)
        click.echo(f"{data.tokens:,} tokens in {data.documents:,} documents")
        click.echo(f"vocab_file    {data.tokenizer}\ndata_path     {data.corpus}\nkisl.triples  {data.facts}")
    else:
        run_demo(out, seed, scale, click.echo)
        click.echo(f"\n{out} · {duration(time.monotonic() - began)}")
