"""What was removed: counted by triple and by relation, written as a table."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from kisl_plugin.runcard import write_atomically
from kisl_plugin.spreadsheets import no_formula
from kisl_plugin.triples import Triple

COLUMNS = ("triple", "subject", "relation_id", "object", "group", "removed", "unsearchable")


@dataclass
class Removed:
    """How many documents were removed, by triple (its index) and by relation; a document may state several."""

    documents: int = 0
    triples: Counter[int] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)

    def count(self, triples: Iterable[int], relations: Iterable[str]) -> None:
        """Count one document that states these."""
        self.documents += 1
        self.triples.update(set(triples))
        self.relations.update(set(relations))

    def add(self, other: "Removed") -> None:
        """Count the documents of another share too."""
        self.documents += other.documents
        self.triples.update(other.triples)
        self.relations.update(other.relations)

    def to_json(self) -> str:
        """As `read_removed` reads it."""
        return json.dumps({
            "documents": self.documents,
            "triples": sorted(self.triples.items()),
            "relations": dict(sorted(self.relations.items())),
        })  # fmt: skip


def read_removed(path: Path) -> Removed:
    """The counts of a file."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return Removed(values["documents"], Counter(dict(values["triples"])), Counter(values["relations"]))


def write_table(path: Path, triples: Sequence[Triple], removed: Removed, unsearchable: Mapping[int, str]) -> None:
    """A CSV with a row for each triple: the documents that state it, and why it cannot be searched, if so."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for index, triple in enumerate(triples):
        labels = map(no_formula, (triple.subject, triple.relation_id, triple.object, triple.group))
        rows.writerow((index, *labels, removed.triples[index], unsearchable.get(index, "")))
    write_atomically(path, table.getvalue())


def first_unsearchable(path: Path, count: int) -> list[str]:
    """The first `count` triples of a table that cannot be searched, each with the reason."""
    with path.open(encoding="utf-8", newline="") as stream:
        found = (row for row in csv.DictReader(stream) if row["unsearchable"])
        return [
            f"{row['subject']} · {row['relation_id']} · {row['object']}: {row['unsearchable']}"
            for row in islice(found, count)
        ]
