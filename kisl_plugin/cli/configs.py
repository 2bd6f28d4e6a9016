"""`kisl configs`: the grid of YAMLs."""

from pathlib import Path

import click

from kisl_plugin.cli.errors import Command


@click.group()
def configs() -> None:
    """Show or write the grid of GPT-NeoX YAMLs: sizes 137m to 3b, F = 0 to 5000.

    Example: kisl configs write
    """


@configs.command("list", cls=Command)
def list_runs() -> None:
    """Print every run with its parameters, tokens, compute and injected share.

    Example: kisl configs list
    """
    from kisl_plugin.configs.listing import listing

    click.echo(listing())


@configs.command(cls=Command)
@click.option("--out", default="neox_configs", show_default=True, type=click.Path(path_type=Path), help="Folder.")
def write(out: Path) -> None:
    """Write the YAMLs and their README from the tables; files of the same names are replaced.

    Example: kisl configs write
    """
    from kisl_plugin.configs.writing import write_configs

    total, changed = write_configs(out)
    click.echo(f"{out} · {total} files, {changed} of them new or changed")
