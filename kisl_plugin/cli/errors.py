"""How every command reports an error: one line on standard error and an exit status, never a traceback.

Exit status 2 is a wrong call or input (InputError), 1 any other failure.
"""

from typing import Any

import click

from kisl_plugin.errors import KislError

__all__ = ["Command"]


class Command(click.Command):
    """A command that reports a KislError in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn a KislError into click's exception."""
        try:
            return super().invoke(ctx)
        except KislError as error:
            reported = click.ClickException(str(error))
            setattr(reported, "exit_code", error.exit_status)  # noqa: B010 (a class variable in click)
            raise reported from error
