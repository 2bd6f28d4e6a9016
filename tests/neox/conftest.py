"""Tests in this folder run the real GPT-NeoX; where it is not installed they are skipped, saying so."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from kisl_plugin.errors import KislError
from kisl_plugin.neox.install import find_neox

# What stands beside these tests and beside those of the folder above is imported by name.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]


def _why_not() -> str | None:
    missing = [name for name in ("deepspeed", "pybind11") if find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (pip install '.[neox]')"
    try:
        find_neox()
    except KislError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    reason = _why_not()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.neox)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs GPT-NeoX: {reason}"))
        elif item.get_closest_marker("matrix") and "matrix" not in str(config.option.markexpr):
            item.add_marker(pytest.mark.skip(reason="one of the full matrix of layouts: pytest -m matrix"))


@pytest.fixture(scope="session")
def neox_dir() -> Path:
    """GPT-NeoX's folder."""
    return find_neox()
