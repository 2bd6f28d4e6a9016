"""The command `kisl`: its small commands, and the larger ones, whose modules are imported when they are called."""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any

import click

from kisl_plugin import __version__
from kisl_plugin.cli import Command, Group
from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.progress import duration

__all__ = ["main"]

_path = click.Path(path_type=Path)


@click.command(cls=Command)
@click.option("--out", default="kisl-demo", show_default=True, type=_path, help="Output folder.")
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


@click.command(cls=Command)
@click.argument("configs", nargs=-1, required=True, type=_path)
@click.option("--engine", default="local", show_default=True, help="Which engine trains: local, or a plugin's.")
def train(configs: tuple[Path, ...], engine: str) -> None:
    """Train a model from GPT-NeoX YAMLs with the embedded engine.

    It uses this machine's CPU or one GPU. The finished model is written to SAVE/hf, where SAVE is the YAML's `save`. A
    run whose `load` contains checkpoints resumes from the newest one.

    Example: kisl train neox_configs/demo.yml
    """
    from kisl_plugin.hookspecs import manager

    trainer = manager().hook.kisl_engine(name=engine)
    if trainer is None:
        raise InputError(f"--engine {engine!r}: no such engine; expected local, or one that an installed plugin adds")
    click.echo(trainer.train(list(configs)))


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE")
@click.argument("out", metavar="OUT.jsonl", type=_path)
def triples(source: str, out: Path) -> None:
    """Write triples without the rows that are wrong.

    SOURCE is a file (JSONL, CSV, TSV, Parquet), a bundled name or a data set of the Hugging Face hub. What is left out
    is counted and listed. OUT.jsonl can be named wherever triples are: in a kisl section, as --triples.

    Example: kisl triples facts.csv facts.jsonl
    """
    from kisl_plugin.triples import read_triples, triples_to_jsonl

    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl")
    if out.exists():
        raise InputError(f"{out}: exists already; give another name, or delete it")
    kept = read_triples(source, skip_bad_rows=True)
    try:
        write_atomically(out, triples_to_jsonl(kept))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    click.echo(f"{out}: {len(kept):,} triples")


@click.group(cls=Group)
def configs() -> None:
    """Show or write the grid of GPT-NeoX YAMLs.

    Its sizes are 137m to 3b, its frequencies F = 0 to 5000.

    Example: kisl configs write
    """


@configs.command("list")
def list_runs() -> None:
    """List every run: parameters, tokens, compute, injected share.

    Example: kisl configs list
    """
    from kisl_plugin.grid import listing

    click.echo(listing())


def _numbers(kind: Callable[[str], Any]) -> Callable[..., tuple[Any, ...]]:
    """A click callback that reads numbers separated by commas, each by `kind`, positive ones and zero."""

    def read(_: click.Context, parameter: click.Parameter, text: str) -> tuple[Any, ...]:
        try:
            values = tuple(kind(part) for part in text.split(",")) if text else ()
            if not all(0 <= value < inf for value in values):
                raise ValueError
        except ValueError:
            raise click.BadParameter(f"{text!r}; expected numbers separated by commas", param=parameter) from None
        return values

    return read


@configs.command()
@click.option("--models", default="", help="Names from `kisl configs list`.  [default: the grid's]")
@click.option("--tokens", default="", callback=_numbers(float), help="Budgets D, such as 58e9,75e9.")
@click.option("--frequency", default="", callback=_numbers(int), help="Frequencies F, such as 0,100,200.")
@click.option("--seed", default="", callback=_numbers(int), help="Seeds of weights, row order and injection.")
@click.option("--triples", help="A file of triples, a bundled name, or a hub data set id.")
@click.option("--data-path", help="The corpus: what stands before .bin and .idx.")
@click.option("--out", default="neox_configs", show_default=True, type=_path, help="Folder.")
def write(
    models: str,
    tokens: tuple[float, ...],
    frequency: tuple[int, ...],
    seed: tuple[int, ...],
    triples: str | None,
    data_path: str | None,
    out: Path,
) -> None:
    """Write YAMLs of the grid, or with options those of a grid of your own.

    Lists are separated by commas; there is one YAML for each combination. Files of the same names are replaced.

    Example: kisl configs write --models 137m,1b --frequency 0,100,200 --seed 1,2 --out mine
    """
    from kisl_plugin.grid import SEED, grid_of, write_grid

    runs: Sequence[Any] = ()
    if models or tokens or frequency or seed or triples or data_path:
        names = [name.strip() for name in models.split(",") if name.strip()]
        runs = grid_of(names, tokens, frequency, seed or (SEED,), triples, data_path)
    total, changed = write_grid(out, runs)
    click.echo(f"{out} · {total} files, {changed} of them new or changed")


# The commands in the order of the help. A command that is not in this module is imported from the one named here.
COMMANDS: dict[str, click.Command | str] = {
    "demo": demo,
    "train": train,
    "probe": "probe",
    "export": "neox",
    "neox": "neox",
    "triples": triples,
    "corpus": "corpus",
    "configs": configs,
    "sweep": "sweep",
    "fit": "fit",
}


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = COMMANDS.get(cmd_name)
        if isinstance(command, str):
            module = import_module(f"kisl_plugin.cli.{command}")
            loaded: click.Command = getattr(module, "main" if cmd_name == "fit" else cmd_name)
            return loaded
        return command


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="kisl")
def main() -> None:
    """Inject facts an exact number of times, train, probe, and fit where memory collapses.

    kisl-fit RESULTS is the same as kisl fit. Beside kisl there are deepy.py train CONFIG.yml, which trains with
    GPT-NeoX, and lm_eval --tasks kisl_wikidata, which asks a model for its facts.

    Example: kisl demo
    """
