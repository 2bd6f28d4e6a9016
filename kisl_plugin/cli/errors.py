"""How every command reports an error: one line on standard error and DESIGN's exit status, never a traceback."""

import errno
import os
import sys
import traceback
from typing import Any

import click

from kisl_plugin.errors import KislError

# How every command reports an error: one line on standard error and DESIGN's exit status, never a traceback.


class Command(click.Command):
    """A command whose KislErrors become one line, and a standard output that cannot be written to as well."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, and turn a KislError into click's own way of failing."""
        try:
            return super().invoke(ctx)
        except KislError as error:
            reported = click.ClickException(str(error))
            setattr(reported, "exit_code", error.exit_status)  # noqa: B010 (a class variable in click)
            raise reported from error
        except OSError as error:
            # A closed pipe (`| head`) is no error: click ends there without a word.
            if error.errno == errno.EPIPE or not _came_from_echo(error):
                raise
            _let_go_of_standard_output()
            raise click.ClickException(f"standard output: cannot be written to ({error.strerror})") from error


def _came_from_echo(error: OSError) -> bool:
    # An OSError on writing names no file, whichever it was.
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _let_go_of_standard_output() -> None:
    # What still stands in the buffer would fail once more when Python ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# Options under headings of their own in a command's help.


class GroupedOption(click.Option):
    """An option that the help shows under `group`."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(Command):
    """A command whose help has a section for each group of options, after those without one."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and record[0]:
                sections.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
