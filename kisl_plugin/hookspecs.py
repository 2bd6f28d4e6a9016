"""What others may add (pluggy, project name and entry-point group `kisl`). The built-in ways are plugins of this kind.

Every hook returns None for a name that is not its own; the first plugin that answers wins.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

# The roles that plugins play, one Protocol each, and the types they speak.

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


# What others may add (pluggy, project name and entry-point group `kisl`). The built-in ways are plugins of this kind.
#
# Every hook returns None for a name that is not its own; the first plugin that answers wins.

if TYPE_CHECKING:
    from kisl_plugin.matching import MatchRules
    from kisl_plugin.triples import Triple

PROJECT = "kisl"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def kisl_read_triples(source: str) -> "list[Triple] | None":
    """Where triples come from: read `source` (a path, a bundled name, an id), or None if it is not of this kind."""


@hookspec(firstresult=True)
def kisl_templates(relation_id: str) -> "Templates | None":
    """The statement and question templates of a relation."""


@hookspec(firstresult=True)
def kisl_verbalizer(form: str) -> "Verbalizer | None":
    """How a triple is turned to text in this `form` (the YAML's `form`; built in: statement, question)."""


@hookspec(firstresult=True)
def kisl_spacing(name: str, frequencies: "IntArray", samples: int, seed: int) -> "Spacing | None":
    """How exposures are spaced over the run (the YAML's `spacing`; built in: shuffled, even)."""


@hookspec(firstresult=True)
def kisl_matcher(name: str, triples: "Sequence[Triple]", rules: "MatchRules") -> "Matcher | None":
    """How documents are matched against triples (`--match`; built in: pair, subject)."""


@hookspec(firstresult=True)
def kisl_engine(name: str) -> "Engine | None":
    """Which engine trains (built in: local)."""


# The plugin manager: built-in ways first registered, installed ones (entry points of group `kisl`) asked first.

BUILT_IN = (
    "kisl_plugin.triples",
    "kisl_plugin.verbalize",
    "kisl_plugin.schedule",
    "kisl_plugin.matching",
    "kisl_plugin.local",
)


@cache
def manager() -> pluggy.PluginManager:
    """The one manager of this process. Tests register on it and unregister again."""
    from importlib import import_module

    plugins = pluggy.PluginManager(PROJECT)
    plugins.add_hookspecs(sys.modules[__name__])
    for name in BUILT_IN:
        plugins.register(import_module(name), name=name)
    plugins.load_setuptools_entrypoints(PROJECT)
    return plugins
