"""What a plugin's matcher does wrong is one line that names it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from kisl_plugin.errors import KislError
from kisl_plugin.roles import Match, Matcher


def watched(matcher: Matcher, triples: int, name: str) -> Matcher:
    """The matcher of so many triples; called, it raises KislError where it fails or answers what it should not."""

    def match(texts: Sequence[str]) -> list[list[Match]]:
        with told(name):
            found = [list(matches) for matches in matcher(texts)]
        _check(found, len(texts), triples, name)
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
def told(name: str) -> Iterator[None]:
    """Whatever goes wrong within is told as the matcher's."""
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
