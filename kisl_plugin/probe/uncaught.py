"""A user's mistake in one line under `lm_eval` too, whose command would print a traceback."""

import sys
from types import TracebackType

from kisl_plugin.errors import KislError


def report_in_one_line() -> None:
    """From now on an uncaught KislError ends Python with one line and the error's exit status."""
    previous = sys.excepthook
    if getattr(previous, "__module__", None) == __name__:
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not isinstance(error, KislError):
            previous(kind, error, traceback)
            return
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status)

    sys.excepthook = hook
