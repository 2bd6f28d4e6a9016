"""Where GPT-NeoX is: the user's own clone, or the one that `kisl neox install` made."""

import os
from pathlib import Path

from kisl_plugin.errors import KislError
from kisl_plugin.neox.git import git

TESTED_COMMIT = "ea7aefd8f8e183256992d9fede4d7c71a46d67a5"
VARIABLE = "GPT_NEOX_DIR"
INSTALL = "kisl neox install"
# One of these is missing in any folder that is not GPT-NeoX.
LANDMARKS = ("deepy.py", "train.py", "megatron/training.py")


def cache_folder() -> Path:
    """Where `kisl neox install` puts GPT-NeoX; it need not exist."""
    # The XDG specification: a path that is not absolute is to be ignored.
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "kisl" / "gpt-neox"


def named_folder() -> Path | None:
    """The folder that `$GPT_NEOX_DIR` names, absolute, whatever it holds; None where it is not set."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def find_neox() -> Path:
    """The folder of GPT-NeoX, absolute: `$GPT_NEOX_DIR`, else the cache folder.

    Raises KislError (exit status 1) where it is not there, naming the place and `kisl neox install`.
    """
    named = named_folder()
    if named is not None:
        return _own_clone(named)
    folder = cache_folder()
    if missing_landmark(folder) is None:
        return folder
    raise KislError(f"GPT-NeoX was not found: ${VARIABLE} is not set and {folder} does not hold it; run: {INSTALL}")


def missing_landmark(folder: Path) -> str | None:
    """The first file of GPT-NeoX that `folder` lacks; None where it holds GPT-NeoX."""
    return next((name for name in LANDMARKS if not (folder / name).is_file()), None)


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out in `folder`; None where git or its data are not there (a download, a copy)."""
    try:
        asked = git(folder, "rev-parse", "--verify", "HEAD")
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def changed_files(folder: Path) -> list[str]:
    """The files of GPT-NeoX that differ from the commit checked out in `folder`; none where that is unknown."""
    if commit_of(folder) is None:
        return []
    lines = git(folder, "status", "--porcelain", "--untracked-files=no").stdout.splitlines()
    return [line[3:] for line in lines]


def _own_clone(folder: Path) -> Path:
    missing = missing_landmark(folder)
    if missing is not None:
        raise KislError(
            f"${VARIABLE}: {folder} holds no GPT-NeoX ({missing} is missing); set it to a clone of GPT-NeoX, "
            f"or unset it and run: {INSTALL}"
        )
    return folder
