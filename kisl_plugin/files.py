"""Files: written whole or not at all, one writer at a time, safe in a spreadsheet; and the folders that kisl ships."""

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from kisl_plugin.errors import BusyError, InputError

__all__ = [
    "hold_lock",
    "no_formula",
    "read_object",
    "resource",
    "sha256",
    "sha256_of_files",
    "wait_for_lock",
    "write_atomically",
]

_PACKAGE = Path(__file__).resolve().parent


def write_atomically(path: Path, content: str | bytes) -> Path:
    r"""Write a file so that a reader, or a crash, finds the old one or the new one, never a part. Returns `path`.

    Text is written in UTF-8; what is no Unicode in the name of a file (such as \udcff) is written by its code.

    Raises:
        OSError: the file cannot be written; no draft is left.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        return draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is missing, cannot be read, or holds something else."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


@contextmanager
def hold_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; it is created if need be and stays behind, empty of meaning.

    The lock is the kernel's (flock): it ends with the process, however that ends. The file names the holder.
    On a file system without locks the block runs unprotected.

    Args:
        path: the lock file; its folder must exist.
        busy: what is refused, such as "another run saves to checkpoints/1b".

    Raises:
        BusyError: another process holds it; the message is `busy` and who holds it.
    """
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise BusyError(f"{busy} ({stream.read().strip() or 'starting'}); wait for it to end") from None
        except OSError:
            pass  # some network file systems have no locks
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Run the block when no other process is in it; where `path` cannot be written, or locked, at once."""
    with ExitStack() as stack:
        with suppress(OSError):
            fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX)
        yield


def sha256(text: str) -> str:
    """The hexadecimal SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_of_files(*paths: str | Path) -> str:
    """The hexadecimal SHA-256 of the bytes of all files, one after the other."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()


def no_formula(cell: str) -> str:
    """The cell, with an apostrophe before what a spreadsheet would run, and before an apostrophe.

    Names come from files of others, and a cell that begins like a formula is run when the table is opened.
    """
    return f"'{cell}" if cell.startswith(tuple("=+-@\t\r'")) else cell


def resource(name: str) -> Path:
    """The folder `tasks` or `neox_configs`: that of the checkout if this is one, else the copy in the wheel.

    An editable install leaves a copy in site-packages that is not updated, so the checkout is tried first.

    Raises:
        InputError: the folder is missing from this installation.
    """
    project = _PACKAGE.parent / "pyproject.toml"
    is_checkout = project.is_file() and 'name = "kisl-plugin"' in project.read_text(encoding="utf-8")
    folder = (_PACKAGE.parent if is_checkout else _PACKAGE) / name
    if not folder.is_dir():
        raise InputError(f"{folder}: folder is missing from this installation; reinstall kisl-plugin")
    return folder
