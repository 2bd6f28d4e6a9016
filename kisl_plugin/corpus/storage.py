"""Where text lies: on this machine, or behind a URL that fsspec opens; both as binary streams with a version."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from kisl_plugin.errors import InputError, KislError

BUFFER = 1 << 20
URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)://")
# What tells one state of a remote file from the next, the surest first: S3, the hub, web servers, others.
VERSIONS = ("ETag", "blob_id", "etag", "oid", "md5Hash", "LastModified", "mtime", "modified", "created")
# Those of Python's own errors that storage libraries raise too.
USUAL = (OSError, ImportError, ValueError, RuntimeError)


def is_remote(path: str) -> bool:
    """Whether `path` is a URL."""
    return URL.match(path) is not None


def protocol_of(path: str) -> str:
    """The `s3` of an s3:// URL."""
    found = URL.match(path)
    return found["protocol"].casefold() if found else "file"


@contextmanager
def open_file(path: str, *, exact: bool = False) -> Iterator[IO[bytes]]:
    """The file as a binary stream that can seek; a remote one is read ahead, unless `exact`.

    Raises:
        InputError: it is not there, or may not be read.
        KislError: the storage cannot be reached.
    """
    with errors_of(path):
        if is_remote(path):
            system, name = file_system(path)
            with system.open(name, "rb", cache_type="none" if exact else "readahead") as stream:
                # What fsspec opens has a readline that knows no limit.
                yield stream if exact else io.BufferedReader(stream, BUFFER)
        else:
            with Path(path).open("rb") as stream:
                yield stream


def size_and_version(path: str) -> tuple[int, str]:
    """The size in bytes, and what changes when the file does, as they are now."""
    with errors_of(path):
        if is_remote(path):
            system, name = file_system(path)
            system.invalidate_cache(name)
            return remote_state(system.info(name))
        return local_state(Path(path))


def local_state(path: Path) -> tuple[int, str]:
    """The size and the version of a file of this machine: time of its last change, and size."""
    state = path.stat()
    return state.st_size, f"{state.st_mtime_ns}-{state.st_size}"


def remote_state(info: Mapping[str, Any]) -> tuple[int, str]:
    """The size and the version of a file as its storage describes it."""
    size = int(info.get("size") or 0)
    known = next((info[key] for key in VERSIONS if info.get(key)), "")
    # A listing may give seconds where the file's own entry gives a date.
    known = known.timestamp() if isinstance(known, datetime) else str(known).strip('"')
    return size, f"{known}-{size}"


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the name it has there.

    Raises:
        InputError: fsspec, or what it needs for this protocol, is not installed, or knows no such protocol.
    """
    try:
        import fsspec
    except ImportError:
        raise InputError(f"{url}: URLs need fsspec; pip install 'kisl-plugin[corpus]'") from None
    if "::" in url:
        raise InputError(f"{url}: chained URLs (::) are not read; name the file itself")
    with errors_of(url):
        system, name = fsspec.url_to_fs(url)
    return system, name


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """What goes wrong with a file, in one line; every storage library raises errors of its own.

    Python's TypeError and the like pass: they are nobody's input.
    """
    try:
        yield
    except KislError:
        raise
    except Exception as error:
        if is_remote(path) and (type(error).__module__ != "builtins" or isinstance(error, USUAL)):
            raise _remote_error(path, error) from error
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        raise


def _remote_error(path: str, error: Exception) -> KislError:
    protocol, reason = protocol_of(path), _first_line(error)
    if isinstance(error, ImportError):
        extra = {"s3": "corpus,s3", "s3a": "corpus,s3", "hf": "corpus"}.get(protocol)
        install = f"pip install 'kisl-plugin[{extra}]'" if extra else reason
        return InputError(f"{path}: what reads {protocol}:// is not installed; {install}")
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file or folder ({reason}), or not for you to see{_login(protocol)}")
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return InputError(f"{path}: no access ({reason}){_login(protocol)}")
    if isinstance(error, ValueError):
        return InputError(f"{path}: {reason}; expected a path, hf://datasets/OWNER/NAME/… or s3://BUCKET/…")
    return KislError(f"{path}: cannot be reached or read ({reason}); try again")


def _login(protocol: str) -> str:
    return {
        "s3": "; credentials come from AWS_PROFILE or AWS_ACCESS_KEY_ID; public buckets need FSSPEC_S3_ANON=true",
        "hf": "; data sets are hf://datasets/OWNER/NAME/…, private and gated ones need hf auth login, or HF_TOKEN",
    }.get(protocol, "")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}…"
