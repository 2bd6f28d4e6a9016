"""Triples: the facts that are injected and asked."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


def read_triples(source: str | Path) -> list[Triple]:
    """The triples of a file (JSONL, CSV, TSV, Parquet), a bundled name or a hub data set id.

    Raises:
        InputError: no plugin knows the source, or a row is wrong; the error names the file and the row.
    """
    from kisl_plugin.plugins import manager
    from kisl_plugin.triple_sources import not_found

    found: list[Triple] | None = manager().hook.kisl_read_triples(source=str(source))
    if found is None:
        raise not_found(str(source))
    return found


def triples_to_jsonl(triples: Iterable[Triple]) -> str:
    """The triples as JSON lines, which `read_triples` reads back to equal ones; keys in the order of the fields."""
    return "".join(json.dumps(_row(triple), ensure_ascii=False) + "\n" for triple in triples)


def _row(triple: Triple) -> dict[str, str | list[str]]:
    ids = {"subject_id": triple.subject_id, "object_id": triple.object_id}
    aliases = {"subject_aliases": list(triple.subject_aliases), "object_aliases": list(triple.object_aliases)}
    optional: dict[str, str | list[str]] = {**ids, **aliases}
    return {
        "subject": triple.subject,
        "relation_id": triple.relation_id,
        "object": triple.object,
        **{key: value for key, value in optional.items() if value},
        "group": triple.group,
    }
