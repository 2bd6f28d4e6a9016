"""`kisl train` and `kisl configs`: train from GPT-NeoX YAMLs, and write the grid of them."""

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import click

from kisl_plugin.cli.errors import Command, Group
from kisl_plugin.errors import InputError


@click.command(cls=Command)
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path))
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
@click.option("--out", default="neox_configs", show_default=True, type=click.Path(path_type=Path), help="Folder.")
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
