"""The roles that plugins play, one Protocol each, and the types they speak."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kisl_plugin.triples import Triple

    IntArray = NDArray[np.int64]
else:
    IntArray = Any


@dataclass(frozen=True)
class Templates:
    """A relation's wordings, with `{subject}` and `{object}` (statements) or `{subject}` alone (questions)."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


class Verbalizer(Protocol):
    """Turns a triple to the text that is injected."""

    def count(self, relation_id: str) -> int:
        """How many templates this form has for the relation."""

    def text(self, triple: "Triple", template: int) -> str:
        """The triple's text by its `template`-th template (0 … count - 1)."""


class Spacing(Protocol):
    """Which exposures each sample holds: over all samples exactly `frequencies[k]` of every k."""

    @property
    def largest_row(self) -> int:
        """An upper bound of the exposures in one sample."""

    def rows(self, start: int, stop: int) -> "tuple[IntArray, IntArray]":
        """Samples start … stop-1: row ends (int64 [stop - start], cumulative) and the triples in order (int64 [n])."""


class Matcher(Protocol):
    """Says which triples a document states."""

    def __call__(self, text: str) -> Sequence[int]:
        """Indices of the triples that `text` states; empty if none."""


class Engine(Protocol):
    """Trains a model from GPT-NeoX YAMLs."""

    def train(self, configs: Sequence[Path]) -> Path:
        """Train, and return the folder of the finished Hugging Face model with its run card."""
