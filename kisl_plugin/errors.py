"""The errors a user can meet: one line that names the file, the key or row, the value seen and what to do.

And what several modules need to raise them: tests of a value, the hint for a misspelt name or a missing library.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

__all__ = ["BusyError", "InputError", "KislError", "did_you_mean", "error_line", "is_number", "is_whole", "needs_extra"]


class KislError(Exception):
    """A failure that is reported in one line; the command ends with `exit_status`."""

    exit_status = 1


class InputError(KislError, ValueError):
    """A wrong call or a bad input: the user can mend it."""

    exit_status = 2


class BusyError(KislError):
    """Another process holds the lock."""


def is_whole(value: Any, least: int = 0) -> bool:
    """Whether a value of a YAML or JSON file is an integer of at least `least`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """Whether such a value is a finite number; integers that overflow as floats are not, nor are true and false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The hint after a misspelt name: "did you mean frequency?", else `otherwise`.

    The cutoff of 0.8 keeps names apart that look alike and mean different things, such as save_interval and
    exit_interval.
    """
    near = get_close_matches(word, sorted(known), n=1, cutoff=0.8)
    return f"did you mean {near[0]}?" if near else otherwise


def error_line(lines: Sequence[str]) -> str:
    """The last line of a program's output that says what went wrong: an error if there is one, else what ends it."""
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b.*:", line)]
    return (errors or lines or ["nothing was printed"])[-1]


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Turn an ImportError inside the block into one line that names the extra to install.

    Args:
        extra: the optional dependency group of this package, such as "corpus"; several are joined by commas.
        what: what needs it, as the subject of a sentence: "building a corpus".

    Raises:
        InputError: a library is missing, or is there and cannot be loaded (a CUDA build without CUDA).
    """
    try:
        yield
    except ImportError as error:
        library = error.name.partition(".")[0] if error.name else str(error)
        if library == __package__:
            raise  # a mistake in this package, not a missing library
        raise InputError(f"{what} needs {library}: pip install 'kisl-plugin[{extra}]'") from error
