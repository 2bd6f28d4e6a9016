"""Items' options: the right object and three wrong ones of the same relation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kisl_plugin.errors import InputError
from kisl_plugin.triples import Triple


@dataclass(frozen=True)
class Choices:
    """The four options of an item; `answer` is the right one's index."""

    options: tuple[str, str, str, str]
    answer: int


def choices_of(triples: Sequence[Triple]) -> list[Choices]:
    """Four options for each triple."""
    out = []
    for triple in triples:
        digest = hashlib.sha256(f"{triple.subject}|{triple.relation_id}|{triple.object}".encode()).digest()
        others = sorted({t.object for t in triples if t.relation_id == triple.relation_id} - {triple.object})
        if len(others) < 3:
            raise InputError(f"relation {triple.relation_id!r}: fewer than four objects for {triple.subject!r}")
        start, answer = int.from_bytes(digest[:4], "big"), digest[4] % 4
        picked = [others[(start + i) % len(others)] for i in range(3)]
        picked.insert(answer, triple.object)
        out.append(Choices((picked[0], picked[1], picked[2], picked[3]), answer))
    return out
