"""What every command has: `-h`, a help that is not cut, and errors in one line with an exit status, never a traceback.

Exit status 2 is a wrong call or input (InputError), 1 any other failure.
"""

import warnings
from typing import Any

import click

from kisl_plugin.errors import KislError

__all__ = ["Command", "Group"]

_OUTPUT = frozenset(("--out", "--output", "--output_path"))  # lm_eval calls it --output_path
_HELP = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command that reports a KislError in one line; where it writes to is named in any of the usual ways."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"context_settings": _HELP, **settings})
        for option in self.params:
            if not _OUTPUT.isdisjoint(option.opts):
                option.opts += sorted(_OUTPUT.difference(option.opts))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: a KislError becomes click's exception, a warning about triples is shown without its line."""
        original = warnings.formatwarning

        def formatted(message: Warning | str, category: type[Warning], *where: Any, **line: Any) -> str:
            from kisl_plugin.triples import TriplesWarning  # here, since it loads more than --help needs

            is_plain = issubclass(category, TriplesWarning)
            return f"Warning: {message}\n" if is_plain else original(message, category, *where, **line)

        warnings.formatwarning = formatted
        try:
            return super().invoke(ctx)
        except KislError as error:
            reported = click.ClickException(str(error))
            setattr(reported, "exit_code", error.exit_status)  # noqa: B010 (a class variable in click)
            raise reported from error
        finally:
            warnings.formatwarning = original


class Group(click.Group):
    """A group of such commands; its help has the whole first sentence of each, in the order of adding."""

    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"context_settings": _HELP, **settings})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, not sorted."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section; click itself would cut what is longer than a line."""
        with formatter.section("Commands"):
            commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in commands if command])
