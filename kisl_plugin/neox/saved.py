"""Reading what torch.save wrote without executing anything in it, and without copying its tensors into memory."""

import pickletools
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError

# What torch's own weights-only reader knows; it refuses what it does not like among them.
_TORCH_KNOWS = frozenset({"torch", "collections", "__builtin__", "builtins"})


class Inert:
    """Stands for an object whose class is not needed. It takes whatever it is given and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return None

    def __setstate__(self, state: Any) -> None:
        return None


def read_saved(path: Path) -> Any:
    """What torch saved at `path`; its tensors are mapped from the disk and read when they are used.

    Tensors and plain containers only: every other class in the file (GPT-NeoX saves NumPy's random state, DeepSpeed
    at times its own objects) becomes an `Inert`, so that no code of the file's choosing runs.

    Raises:
        InputError: the file is missing, cut off, or holds what torch's weights-only reader refuses.
    """
    import torch

    try:
        # torch 2.4 does not know the built-in set, of which DeepSpeed saves one.
        with _allowed([set, *(_inert(name) for name in _foreign_classes(path))]):
            return torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; the checkpoint is incomplete") from None
    except Exception as error:  # a broken file may raise anything, from zipfile.BadZipFile to struct.error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise InputError(
            f"{path}: cannot be read as a file of torch.save ({reason}); if its writing was cut off, take an earlier "
            "checkpoint"
        ) from None


def _foreign_classes(path: Path) -> list[str]:
    """The dotted names of the classes and functions in the file's pickle that torch does not know."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        named = {str(value) for code, value, _ in pickletools.genops(archive.read(name)) if code.name == "GLOBAL"}
    dotted = {name.replace(" ", ".", 1) for name in named}
    return sorted(name for name in dotted if name.split(".")[0] not in _TORCH_KNOWS)


def _inert(dotted: str) -> type:
    module, name = dotted.rsplit(".", 1)
    return type(name, (Inert,), {"__module__": module})


@contextmanager
def _allowed(classes: Sequence[type]) -> Iterator[None]:
    """Let torch's weights-only reader make these classes (torch 2.4 has no `safe_globals` to do it)."""
    from torch import serialization

    before = serialization.get_safe_globals()
    serialization.add_safe_globals(list(classes))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)
