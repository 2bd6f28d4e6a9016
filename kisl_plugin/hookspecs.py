"""What others may add (pluggy, project name and entry-point group `kisl`). The built-in ways are plugins of this kind.

Every hook returns None for a name that is not its own; the first plugin that answers wins.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from kisl_plugin.matching.rules import MatchRules
    from kisl_plugin.roles import Engine, IntArray, Matcher, Spacing, Templates, Verbalizer
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
