"""Writes the folder of YAMLs."""

from collections.abc import Mapping
from pathlib import Path

from kisl_plugin.configs.grid import all_runs
from kisl_plugin.configs.readme import readme
from kisl_plugin.configs.render import yaml_of
from kisl_plugin.errors import InputError
from kisl_plugin.runcard import write_atomically


def files() -> Mapping[str, str]:
    """Every file's name and text; the same on every machine."""
    return {**{f"{run.name}.yml": yaml_of(run) for run in all_runs()}, "README.md": readme()}


def write_configs(folder: Path) -> tuple[int, int]:
    """Write the files into `folder`, replacing those of the same names; returns how many there are, how many changed.

    Raises:
        InputError: the folder cannot be written to.
    """
    made, changed = files(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
                write_atomically(path, text)
                changed += 1
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error}); choose another --out") from None
    return len(made), changed
