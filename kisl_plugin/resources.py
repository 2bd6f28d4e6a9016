"""Folders that stand beside the package in a checkout and inside it in a wheel: `tasks`, `neox_configs`."""

from pathlib import Path

from kisl_plugin.errors import InputError

_PACKAGE = Path(__file__).resolve().parent
_NAME = 'name = "kisl-plugin"'


def resource(name: str) -> Path:
    """The folder `name`: the checkout's own where this is a checkout, else the copy that the wheel carries.

    An editable install leaves a copy in site-packages that grows stale, so the checkout is asked first.

    Raises:
        InputError: the installation lacks it.
    """
    candidates = [_PACKAGE / name]
    if _is_checkout(_PACKAGE.parent):
        candidates.insert(0, _PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(f"{candidates[0]}: folder is missing from this installation; reinstall kisl-plugin")


def _is_checkout(folder: Path) -> bool:
    project = folder / "pyproject.toml"
    return project.is_file() and _NAME in project.read_text(encoding="utf-8")
