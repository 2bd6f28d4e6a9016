"""Where results are to lie: told before hours of work whether they can."""

import re
import tempfile
from pathlib import Path

from kisl_plugin.errors import InputError, KislError

# A URL of which Path has left one slash.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def refuse_url(output: Path) -> None:
    """A Path makes a local folder `s3:` of a URL.

    Raises:
        InputError: `output` is a URL.
    """
    if _URL.match(str(output)):
        raise InputError(
            f"{output}: is a URL; results are written to a disk of this machine: give a path, and copy them afterwards"
        )


def check_writable(path: Path) -> None:
    """Whether a file can be written there. Its folder is made.

    Raises:
        InputError: `path` is no file's name.
        KislError: its folder cannot be made or written to.
    """
    refuse_url(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None
