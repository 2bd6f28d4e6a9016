"""The command `kisl`: its subcommands, each imported when it is called."""

from importlib import import_module

import click

from kisl_plugin import __version__
from kisl_plugin.cli.errors import Group

__all__ = ["main"]

COMMANDS = {
    "demo": ("kisl_plugin.cli.demo", "demo"),
    "train": ("kisl_plugin.cli.train", "train"),
    "probe": ("kisl_plugin.cli.probe", "probe"),
    "export": ("kisl_plugin.cli.neox", "export"),
    "neox": ("kisl_plugin.cli.neox", "neox"),
    "triples": ("kisl_plugin.cli.triples", "triples"),
    "corpus": ("kisl_plugin.cli.corpus", "corpus"),
    "configs": ("kisl_plugin.cli.train", "configs"),
    "sweep": ("kisl_plugin.cli.sweep", "sweep"),
    "fit": ("kisl_plugin.cli.fit", "main"),
}


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="kisl")
def main() -> None:
    """Inject facts an exact number of times, train, probe, and fit where memory collapses.

    Beside kisl there are deepy.py train CONFIG.yml, which trains with GPT-NeoX, lm_eval --tasks kisl_wikidata, which
    asks a model for its facts, and kisl-fit RESULTS, which is the same as kisl fit.

    Example: kisl demo
    """
