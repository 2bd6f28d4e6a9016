"""Which triples a document states."""

from collections.abc import Sequence

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.roles import Matcher
from kisl_plugin.triples import Triple


@hookimpl
def kisl_matcher(name: str, triples: Sequence[Triple]) -> Matcher | None:
    """The matcher `subject_object`."""
    if name != "subject_object":
        return None
    return lambda text: [i for i, t in enumerate(triples) if t.subject in text and t.object in text]


def matcher_of(name: str, triples: Sequence[Triple]) -> Matcher:
    """The matcher of a name, asked of the plugins.

    Raises:
        InputError: no plugin knows the name.
    """
    from kisl_plugin.plugins import manager

    found: Matcher | None = manager().hook.kisl_matcher(name=name, triples=triples)
    if found is None:
        raise InputError(
            f"matcher {name!r}: unknown (built in: subject_object); correct it, or install a plugin with the hook "
            "kisl_matcher"
        )
    return found
