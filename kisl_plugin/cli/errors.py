"""How every command reports an error: one line on standard error and DESIGN's exit status, never a traceback."""

from typing import Any

import click

from kisl_plugin.errors import KislError


class Command(click.Command):
    """A command whose KislErrors become one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, and turn a KislError into click's own way of failing."""
        try:
            return super().invoke(ctx)
        except KislError as error:
            reported = click.ClickException(str(error))
            setattr(reported, "exit_code", error.exit_status)  # noqa: B010 (a class variable in click)
            raise reported from error
