"""How every command reports an error: one line on standard error and DESIGN's exit status, never a traceback."""

from typing import Any

import click

from kisl_plugin.errors import KislError


class _Reported(click.ClickException):
    def __init__(self, error: KislError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_status


class Command(click.Command):
    """A command whose KislErrors become one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, and turn a KislError into click's own way of failing."""
        try:
            return super().invoke(ctx)
        except KislError as error:
            raise _Reported(error) from error
