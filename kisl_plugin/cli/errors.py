"""How every command reports an error: one line on standard error and an exit status, never a traceback.

Exit status 2 is a wrong call or input (InputError), 1 any other failure. Also options in groups of the help.
"""

from typing import Any

import click

from kisl_plugin.errors import KislError

__all__ = ["Command", "GroupedCommand", "GroupedOption"]


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
