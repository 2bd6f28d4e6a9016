"""Looking into JSON that nobody has checked yet."""

from collections.abc import Mapping
from typing import Any


def object_at(data: Any, *keys: str) -> Mapping[str, Any]:
    """The object at `keys`, empty if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}
