"""`kisl train` and `kisl configs`: train from GPT-NeoX YAMLs, and write the grid of them."""

from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
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


@click.group()
def configs() -> None:
    """Show or write the grid of GPT-NeoX YAMLs.

    Its sizes are 137m to 3b, its frequencies F = 0 to 5000.

    Example: kisl configs write
    """


@configs.command("list", cls=Command)
def list_runs() -> None:
    """List every run: parameters, tokens, compute, injected share.

    Example: kisl configs list
    """
    from kisl_plugin.grid import listing

    click.echo(listing())


@configs.command(cls=Command)
@click.option("--out", default="neox_configs", show_default=True, type=click.Path(path_type=Path), help="Folder.")
def write(out: Path) -> None:
    """Write the YAMLs of the grid; files of the same names are replaced.

    Example: kisl configs write
    """
    from kisl_plugin.grid import write_grid

    total, changed = write_grid(out)
    click.echo(f"{out} · {total} files, {changed} of them new or changed")
