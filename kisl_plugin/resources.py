"""Folders that are beside the package in a checkout and inside it in a wheel: `tasks`, `neox_configs`."""

from pathlib import Path

from kisl_plugin.errors import InputError

__all__ = ["resource"]

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The folder `name` of the checkout if this is one, else the copy in the wheel.

    An editable install leaves a copy in site-packages that is not updated, so the checkout is tried first.

    Raises:
        InputError: the folder is missing from this installation.
    """
    candidates = [_PACKAGE / name]
    project = _PACKAGE.parent / "pyproject.toml"
    if project.is_file() and 'name = "kisl-plugin"' in project.read_text(encoding="utf-8"):
        candidates.insert(0, _PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(f"{candidates[0]}: folder is missing from this installation; reinstall kisl-plugin")
