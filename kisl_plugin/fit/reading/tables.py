"""observations.csv: what was read, one row per observation, to be read again in the place of the results."""

from collections.abc import Sequence
from pathlib import Path

from kisl_plugin.fit.reading.observations import Observation


def write_table(observations: Sequence[Observation], path: Path) -> None:
    """Write the observations as CSV; `read_table` gives equal ones."""
    raise NotImplementedError


def read_table(path: Path) -> list[Observation]:
    """The observations of a CSV that `write_table` wrote."""
    raise NotImplementedError
