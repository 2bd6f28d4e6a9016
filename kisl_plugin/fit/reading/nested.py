"""Looking into JSON that nobody has checked yet."""

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 1e300


def object_at(data: Any, *keys: str) -> Mapping[str, Any]:
    """The object at `keys`, empty if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def number_in(value: Any) -> float:
    """The value as a finite number, NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        return math.nan
    return float(value)
