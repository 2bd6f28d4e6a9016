"""Which triples a document states."""

from collections.abc import Sequence

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.matching.rules import PAIR, SUBJECT, MatchRules
from kisl_plugin.matching.spellings import Unsearchable, unsearchable
from kisl_plugin.matching.watching import told, watched
from kisl_plugin.roles import Match, Matcher
from kisl_plugin.triples import Triple

__all__ = ["Match", "MatchRules", "Matcher", "Unsearchable", "matcher_of", "unsearchable"]


@hookimpl
def kisl_matcher(name: str, triples: Sequence[Triple], rules: MatchRules) -> Matcher | None:
    """Provide the matchers `pair` and `subject`."""
    if name not in (PAIR, SUBJECT):
        return None
    from kisl_plugin.matching.facts import FactMatcher

    return FactMatcher(triples, rules)


def matcher_of(triples: Sequence[Triple], rules: MatchRules | None = None) -> Matcher:
    """The matcher that `rules` name (default: subject and object in one document), asked of the plugins.

    Raises:
        InputError: no plugin knows the name, or the matcher's library is missing.
        KislError: a plugin cannot make it; when it is called: it fails, or answers what it should not.
    """
    from kisl_plugin.plugins import manager

    rules = rules or MatchRules()
    with told(rules.match):
        found: Matcher | None = manager().hook.kisl_matcher(name=rules.match, triples=triples, rules=rules)
    if found is None:
        raise InputError(
            f"match {rules.match!r}: unknown (built in: {PAIR}, {SUBJECT}); correct it, or install a plugin with the "
            "hook kisl_matcher"
        )
    return watched(found, len(triples), rules.match)
