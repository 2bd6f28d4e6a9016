"""runs.csv: what the user says of results that have no run card. Nothing is guessed from the names of files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.card_columns import NEEDED, OPTIONAL, card_of_row
from kisl_plugin.fit.reading.cells import Results
from kisl_plugin.fit.reading.csv_rows import Row, read_rows
from kisl_plugin.fit.reading.nested import object_at

WHICH = ("path", "model")
ROUNDED = 0.05  # people write 7e9 for 6.74e9
OF_A_GROUP = ("group", "frequency", "triples")


@dataclass(frozen=True)
class RunRow:
    """A row: the results that it names (`path`, absolute, or lm-eval's `model_name`), and what it says of their run."""

    row: Row
    path: Path | None
    model: str | None
    said: Mapping[str, Any]

    def names(self, file: Path, model: str) -> bool:
        """Whether these results are meant: by path, by model, or (where the row gives both) by both."""
        file = file.resolve()
        by_path = self.path is None or self.path == file or self.path in file.parents
        return by_path and (self.model is None or self.model == model)


def read_runs(path: Path) -> list[RunRow]:
    """The rows of a runs.csv; paths are taken from its folder.

    Raises:
        InputError: the file or a row is wrong; the error names the row.
    """
    rows = []
    for row in read_rows(path, NEEDED, (*WHICH, *OPTIONAL)):
        named, model = row.text("path"), row.text("model")
        if named is None and model is None:
            raise row.error("path", "a results file or folder, or lm-eval's model_name in the column model")
        file = (path.parent / named).resolve() if named else None
        row.needed("frequency")
        rows.append(RunRow(row, file, model, card_of_row(row)))
    return rows


def contradictions(rows: Sequence[RunRow], card: Mapping[str, Any]) -> list[str]:
    """In what rows say otherwise than the run card, which is what counts."""
    found = []
    for given in rows:
        said = _flat(given.said)
        said |= {"frequency": given.row.whole("frequency")}
        has = _flat(card)
        has["frequency"] = _frequency(card, given.row.text("group"))
        found += [
            f"{given.row.where} says {key} {said[key]}, the run card {has[key]}: the run card counts"
            for key in sorted(set(said) & set(has))
            if said[key] != has[key]
        ]
    return found


def other_size(given: RunRow, results: Results) -> list[str]:
    """What to say where a row's N is not the one that lm-eval counted in the model (`model_num_parameters`)."""
    counted, said = object_at(results.data, "config").get("model_num_parameters"), given.said["model"]["params"]
    if type(counted) is not int or counted <= 0 or abs(said / counted - 1) <= ROUNDED:
        return []
    return [f"{results.path}: {given.row.where} says params {said:,}, lm-eval counted {counted:,}: the row counts"]


def raw_card(rows: Sequence[RunRow], items: Mapping[str | None, int | None], control: int | None) -> dict[str, Any]:
    """The run card that the rows of one results file make: a row for each group, or one.

    `items`: how many the results hold, by group (None: of the whole run), where they tell.

    Raises:
        InputError: rows contradict each other, or nothing says how many items were asked.
    """
    said = [{key: value for key, value in _flat(row.said).items() if key not in OF_A_GROUP} for row in rows]
    first = rows[0]
    for other, values in zip(rows[1:], said[1:], strict=True):
        if values != said[0] or (first.row.text("group") is None) != (other.row.text("group") is None):
            raise InputError(f"{_both(first, other)} name it and say different things; keep one of them")
    cells: dict[str | None, tuple[int, int]] = {}
    for row in rows:
        group = row.row.text("group")
        cell = (row.row.needed("frequency"), _count(row.row, items.get(group)))
        if cells.setdefault(group, cell) != cell:
            raise InputError(f"{_both(first, row)} name it and say different things; keep one of them")
    total = sum(count for _, count in cells.values())
    triples = {"count": total, **({} if control is None else {"control": control}), **first.said["triples"]}
    card = {"created": "", **first.said, "triples": {**triples, "count": total}}
    if None not in cells:
        card["groups"] = {name: {"frequency": f, "count": count} for name, (f, count) in cells.items()}
    return card


def _count(row: Row, items: int | None) -> int:
    """How many triples a row's accuracy is of."""
    given = row.whole("triples")
    if given is None and items is None:
        raise InputError(f"the results do not tell how many items were asked; say it in {row.where}, column triples")
    return given if given is not None else items or 0


def _both(one: RunRow, other: RunRow) -> str:
    return f"{one.row.where} and row {other.row.number}"


def _flat(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card's values by column, comparable."""
    plain = {key: value for key, value in card.items() if key in (*NEEDED, *OPTIONAL)}
    triples = object_at(card, "triples")
    plain |= {
        "params": object_at(card, "model").get("params"),
        "control": triples.get("control"),
        "sha256": triples.get("sha256"),
    }
    plain["triples"] = triples.get("count")
    return {
        key: json.dumps(value) if isinstance(value, list) else value
        for key, value in plain.items()
        if value is not None
    }


def _frequency(card: Mapping[str, Any], group: str | None) -> Any:
    return card.get("frequency") if group is None else object_at(card, "groups", group).get("frequency")
