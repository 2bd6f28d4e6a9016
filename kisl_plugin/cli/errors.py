"""How every command reports an error: one line on standard error and an exit status, never a traceback.

Exit status 2 is a wrong call or input (InputError), 1 any other failure. Also options in groups of the help.
"""

import errno
import os
import sys
import traceback
from typing import Any

import click

from kisl_plugin.errors import KislError

__all__ = ["Command", "GroupedCommand", "GroupedOption"]


class Command(click.Command):
    """A command that reports a KislError, or a standard output that cannot be written to, in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn its errors into click's exceptions."""
        try:
            return super().invoke(ctx)
        except KislError as error:
            reported = click.ClickException(str(error))
            setattr(reported, "exit_code", error.exit_status)  # noqa: B010 (a class variable in click)
            raise reported from error
        except OSError as error:
            # Only an error raised by click.echo is one of standard output: an OSError on writing names no file. A
            # closed pipe (`| head`) is left to click, which ends without a message.
            frames = traceback.walk_tb(error.__traceback__)
            if error.errno == errno.EPIPE or not any(frame.f_code is click.echo.__code__ for frame, _ in frames):
                raise
            # The rest of the buffer would fail again when Python ends.
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, sys.stdout.fileno())
            os.close(devnull)
            raise click.ClickException(f"standard output: cannot be written to ({error.strerror})") from error


class GroupedOption(click.Option):
    """An option that the help lists under the heading `group`."""

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
