"""A port of its own for every run on this machine."""

import fcntl
import socket
import tempfile
from pathlib import Path
from typing import IO

from kisl_plugin.errors import KislError

# Below what systems give to outgoing connections (32768 on Linux), above what services ask for.
PORTS = range(20_000, 30_000)


def claim_port() -> tuple[int, IO[str]]:
    """A free port and the lock that keeps other runs away from it while it is open.

    Binding alone is not enough: GPT-NeoX binds the port only seconds later, and a second run could choose it too.

    Raises:
        KislError: none of the ports is free.
    """
    for port in PORTS:
        lock = _lock(port)
        if lock is None:
            continue
        if _is_free(port):
            return port, lock
        lock.close()
    raise KislError(f"no port from {PORTS[0]} to {PORTS[-1]} is free; set master_port")


def _lock(port: int) -> IO[str] | None:
    path = Path(tempfile.gettempdir()) / f"kisl-port-{port}.lock"
    try:
        stream = path.open("w")
    except OSError:  # another user's
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
