"""Which triple was right in which run, from lm-eval's samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kisl_plugin.fit.reading.observations import Observation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
else:
    FloatArray = Any

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Outcomes:
    """`right`: float [T, R], 1 right, 0 wrong, NaN not asked; T triples (`keys`), R observations in their order."""

    right: FloatArray
    keys: tuple[Key, ...]


def read_outcomes(observations: Sequence[Observation]) -> Outcomes | None:
    """What each observation got right, triple by triple; None where one of them has no samples."""
    raise NotImplementedError
