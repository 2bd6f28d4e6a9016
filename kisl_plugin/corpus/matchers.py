"""The matcher of the rules, with an eye on it: what a plugin's does wrong is one line that names it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from kisl_plugin.errors import KislError
from kisl_plugin.matching import Match, MatchRules, matcher_of
from kisl_plugin.roles import Matcher
from kisl_plugin.triples import Triple


def watched_matcher(triples: Sequence[Triple], rules: MatchRules) -> Matcher:
    """The matcher that `rules` name; called, it raises KislError where it fails or answers what it should not.

    Raises:
        InputError: no plugin knows the name, or the matcher's library is missing.
        KislError: a plugin cannot make it.
    """
    with _told(rules.match):
        matcher = matcher_of(triples, rules)

    def match(texts: Sequence[str]) -> list[list[Match]]:
        with _told(rules.match):
            found = [list(matches) for matches in matcher(texts)]
        _check(found, len(texts), len(triples), rules.match)
        return found

    return match


def _check(found: Sequence[Sequence[Match]], texts: int, triples: int, name: str) -> None:
    if len(found) != texts:
        raise KislError(f"match {name!r}: {len(found)} lists; expected one list of matches for each of {texts} texts")
    for match in (match for matches in found for match in matches):
        if not isinstance(match, Match):
            raise KislError(f"match {name!r}: found {match!r}; expected a kisl_plugin.roles.Match")
        if not 0 <= match.triple < triples:
            raise KislError(f"match {name!r}: found triple {match.triple!r}; expected an index from 0 to {triples - 1}")


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except KislError:
        raise
    except Exception as error:
        last = extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())
        raise KislError(
            f"match {name!r}: failed with {type(error).__name__}: {said} ({Path(last.filename).name}:{last.lineno}); "
            "its plugin must be mended"
        ) from error
