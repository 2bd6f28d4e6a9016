"""`kisl train`: a GPT-NeoX YAML with an engine of this package."""

from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError


@click.command(cls=Command)
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--engine", default="local", show_default=True, help="Which engine trains: local, or a plugin's.")
def train(configs: tuple[Path, ...], engine: str) -> None:
    """Train a model from GPT-NeoX YAMLs, on this machine's CPU or one GPU.

    The finished model is written to SAVE/hf, SAVE being the YAML's key; with `load` the run resumes from there.

    Example: kisl train neox_configs/demo.yml
    """
    from kisl_plugin.plugins import manager

    found = manager().hook.kisl_engine(name=engine)
    if found is None:
        raise InputError(f"--engine {engine!r}: no such engine; built in is local, plugins may add others")
    click.echo(found.train(list(configs)))
