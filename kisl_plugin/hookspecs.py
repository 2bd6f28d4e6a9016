"""What a plugin may add: pluggy hooks of the project `kisl`, found by the entry-point group `kisl`.

A plugin module implements hooks with `hookimpl`. Every hook returns None for a name that it does not provide, and the
first plugin that returns something else is used; installed plugins are called before the built-in ones, which are
plugins of the same kind (`_BUILT_IN`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from kisl_plugin.errors import InputError

# IntArray is an int64 array. Only the type checker imports numpy here: a command that needs none starts faster.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kisl_plugin.matching import MatchRules
    from kisl_plugin.triples import Triple

    IntArray = NDArray[np.int64]
else:
    IntArray = Any

__all__ = ["Engine", "IntArray", "Match", "Matcher", "Spacing", "Templates", "Verbalizer", "hookimpl", "manager"]

_PROJECT = "kisl"
_hookspec = pluggy.HookspecMarker(_PROJECT)
hookimpl = pluggy.HookimplMarker(_PROJECT)


@dataclass(frozen=True)
class Templates:
    """A relation's wordings, with `{subject}` and `{object}` (statements) or `{subject}` alone (questions)."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


class Verbalizer(Protocol):
    """Turns a triple into the text that is injected."""

    def count(self, relation_id: str) -> int:
        """The number of templates that this form has for the relation."""

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
    """A triple, by its index, that a text states; the rule that matched; character ranges of subject and object."""

    triple: int
    rule: str
    subject: tuple[int, int] | None = None
    object: tuple[int, int] | None = None


class Matcher(Protocol):
    """Finds the triples that documents state."""

    def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[Match]]:
        """For each text the triples it states, ascending; empty if none. Texts come in batches."""


class Engine(Protocol):
    """Trains a model from GPT-NeoX YAMLs."""

    def train(self, configs: Sequence[Path]) -> Path:
        """Train, and return the folder of the finished Hugging Face model with its run card."""


class _Hooks:
    """What a plugin may implement: a module as functions (without `self`), any other object as methods."""

    @_hookspec(firstresult=True)
    def kisl_read_triples(self, source: str, skip_bad_rows: bool) -> "list[Triple] | None":
        """Read the triples of `source` (a path, a bundled name, an id), or return None if it is not of this kind.

        `skip_bad_rows`: rows that are wrong are left out with a warning; a plugin need not take it.
        """

    @_hookspec(firstresult=True)
    def kisl_templates(self, relation_id: str) -> "Templates | None":
        """The statement and question templates of a relation."""

    @_hookspec(firstresult=True)
    def kisl_verbalizer(self, form: str) -> "Verbalizer | None":
        """How a triple is turned into text in this `form` (the YAML's `form`; built in: statement, question)."""

    @_hookspec(firstresult=True)
    def kisl_spacing(self, name: str, frequencies: "IntArray", samples: int, seed: int) -> "Spacing | None":
        """How exposures are spaced over the run (the YAML's `spacing`; built in: shuffled, even)."""

    @_hookspec(firstresult=True)
    def kisl_matcher(self, name: str, triples: "Sequence[Triple]", rules: "MatchRules") -> "Matcher | None":
        """How documents are matched against triples (`--match`; built in: pair, subject)."""

    @_hookspec(firstresult=True)
    def kisl_engine(self, name: str) -> "Engine | None":
        """The engine that trains (built in: local)."""

    @_hookspec
    def kisl_step(self, run_id: str, values: "Mapping[str, float]") -> None:
        """A log interval of the local engine has ended: iteration, loss, lr, tokens, exposures; or held_out_loss."""


_BUILT_IN = ("triples", "verbalize", "schedule", "matching", "local")


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager of this process. Tests register plugins on it and unregister them again.

    The built-in modules import this one, so they are imported here only when the manager is first needed: the one
    import circle of the package.

    Raises:
        InputError: an installed plugin cannot be loaded; names its distribution and entry point.
    """
    plugins = pluggy.PluginManager(_PROJECT)
    plugins.add_hookspecs(_Hooks)
    for name in _BUILT_IN:
        plugins.register(import_module(f"kisl_plugin.{name}"), name=f"kisl_plugin.{name}")
    for point in entry_points(group=_PROJECT):  # pluggy calls the plugins that were registered last first
        try:
            plugins.load_setuptools_entrypoints(_PROJECT, point.name)
        except Exception as error:  # a plugin's code may raise anything
            package = point.dist.name if point.dist else "unknown"
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(
                f"the kisl plugin of {package} (entry point {point.name} = {point.value}) cannot be loaded ({reason}); "
                f"reinstall it, or remove it: pip uninstall {package}"
            ) from error
    return plugins
