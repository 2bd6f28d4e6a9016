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


@dataclass(frozen=True, slots=True)
class Match:
    """A triple, by its index, that a text states, the rule that says so, and where, in the text's characters."""

    triple: int
    rule: str
    subject: tuple[int, int] | None = None
    object: tuple[int, int] | None = None


class Matcher(Protocol):
    """Says which triples documents state."""

    def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[Match]]:
        """For each text the triples it states, ascending; empty if none. Texts come in batches."""


class Engine(Protocol):
    """Trains a model from GPT-NeoX YAMLs."""

    def train(self, configs: Sequence[Path]) -> Path:
        """Train, and return the folder of the finished Hugging Face model with its run card."""
