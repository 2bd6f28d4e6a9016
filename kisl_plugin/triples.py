"""Triples: the facts that are injected and asked."""

from dataclasses import dataclass

CONTROL = "control"
INJECTED = "injected"


@dataclass(frozen=True, slots=True)
class Triple:
    """A fact (subject, relation, object). `group` is its frequency group; `control` is never injected."""

    subject: str
    relation_id: str
    object: str
    subject_id: str = ""
    object_id: str = ""
    subject_aliases: tuple[str, ...] = ()
    object_aliases: tuple[str, ...] = ()
    group: str = INJECTED


class TriplesWarning(UserWarning):
    """Rows of a triples file that were left out, counted."""
