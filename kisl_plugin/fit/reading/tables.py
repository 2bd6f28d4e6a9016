"""observations.csv: what was read, one row per observation, to be read again in the place of the results."""

import csv
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.card_columns import JSON, NEEDED, OPTIONAL, card_of_row, columns_of_card
from kisl_plugin.fit.reading.checks import check_card
from kisl_plugin.fit.reading.csv_rows import Row, read_rows
from kisl_plugin.fit.reading.observations import Observation, Run
from kisl_plugin.fit.reading.replicates import identity
from kisl_plugin.runcard import RunCard, write_atomically
from kisl_plugin.spreadsheets import no_formula

COUNTS = ("correct", "total", "control_correct", "control_total", "by_sum")
# The first columns are those that a person looks for; `card` holds what is in no column of its own
COLUMNS = (
    *("params", "tokens", "frequency", "group", "seed", "train_seed", *COUNTS, "bits_per_byte", "relations"),
    *(name for name in OPTIONAL if name not in ("group", "train_seed")),
    *("date", "task", "model", "path", "samples", "card"),
)
NEEDED_HERE = (*NEEDED, "correct", "total")


def write_table(observations: Sequence[Observation], path: Path) -> None:
    """Write the observations as CSV; `read_table` gives equal ones. The samples are named relative to the CSV.

    Raises:
        InputError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, COLUMNS)
    rows.writeheader()
    rows.writerows(_cells(seen, path.parent) for seen in observations)
    target = Path(os.path.realpath(path))  # a link stays one
    if target.exists() and not target.is_file():  # what stands there, such as /dev/stdout, would be replaced
        raise InputError(f"{path}: cannot be written (not a regular file); name one that ends in .csv")
    try:
        # A file name that is not UTF-8 would be an error here; it is only shown
        write_atomically(target, text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_table(path: Path) -> list[Observation]:
    """The observations of a CSV with at least the columns params, tokens, frequency, seed, correct and total.

    Raises:
        InputError: the file or a row is wrong; the error names row and column.
    """
    known = [name for name in COLUMNS if name not in NEEDED_HERE]
    return [_observation(row) for row in read_rows(path, NEEDED_HERE, known)]


def _cells(seen: Observation, folder: Path) -> dict[str, Any]:
    own, rest = columns_of_card(seen.card.to_dict())
    cells = {key: json.dumps(value) if key in JSON else value for key, value in own.items()}
    cells |= {name: getattr(seen, name) for name in ("frequency", "group", *COUNTS, "bits_per_byte")}
    cells |= {"date": repr(seen.date), "task": seen.task, "model": seen.model, "path": seen.path}
    cells["relations"] = json.dumps(seen.relations) if seen.relations else None
    cells["card"] = json.dumps(rest)
    if seen.samples is not None:
        cells["samples"] = os.path.relpath(seen.samples.resolve(), folder.resolve())
    return {name: no_formula(cell) if isinstance(cell, str) else cell for name, cell in cells.items()}


def _observation(row: Row) -> Observation:
    total, group = row.needed("total"), row.text("group")
    card = _card(row, total)
    samples = row.text("samples")
    seen = Observation(
        path=row.text("path") or f"row {row.number}",
        model=row.text("model") or "",
        card=card,
        frequency=row.needed("frequency"),
        group=group,
        correct=row.needed("correct"),
        total=total,
        control_correct=row.whole("control_correct"),
        control_total=row.whole("control_total"),
        date=row.number_in("date") or 0.0,
        task=row.text("task") or "",
        relations=_relations(row),
        by_sum=row.whole("by_sum"),
        bits_per_byte=row.number_in("bits_per_byte"),
        samples=(row.path.parent / samples).resolve() if samples else None,
    )
    _check(row, seen)
    return seen


def _card(row: Row, total: int) -> RunCard:
    rest = row.json("card") or {}
    if not isinstance(rest, Mapping):
        raise row.error("card", "a JSON object")
    if row.text("group") is not None and "groups" not in rest:
        raise row.error("group", 'none, or {"groups": {name: {"frequency": F, "count": n}}} in the column card')
    said = card_of_row(row)
    nested = {key: {**_object(row, rest, key), **said[key]} for key in ("model", "triples")}
    nested["triples"].setdefault("count", total)
    card = RunCard.from_dict({"created": "", **rest, **said, **nested}, row.where)
    check_card(card, row.where)
    return card


def _object(row: Row, rest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = rest.get(key, {})
    if not isinstance(value, Mapping):
        raise row.error("card", f"{key} to be a JSON object")
    return value


def _relations(row: Row) -> dict[str, tuple[int, int]]:
    found = row.json("relations") or {}
    pairs = found.values() if isinstance(found, Mapping) else [None]
    if not all(isinstance(pair, list) and [type(n) for n in pair] == [int, int] for pair in pairs):
        raise row.error("relations", 'a JSON object such as {"P50": [correct, total]}')
    return {name: (correct, total) for name, (correct, total) in found.items()}


def _check(row: Row, seen: Observation) -> None:
    """Refuse counts that contradict each other."""
    if seen.total == 0:
        raise row.error("total", "a number above 0")
    for column, most in (("correct", seen.total), ("by_sum", seen.total), ("control_correct", seen.control_total)):
        if (row.whole(column) or 0) > (most or 0):
            raise row.error(column, f"at most {most or 0}, as so many items were asked")
    if (seen.control_correct is None) != (seen.control_total is None):
        raise row.error("control_correct", "both control_correct and control_total, or neither")
    if any(correct < 0 or correct > total for correct, total in seen.relations.values()):
        raise row.error("relations", "no more items right than asked")
    known = (seen.card.groups or {}).get(seen.group or "", {}).get("frequency")
    if seen.group is not None and known != seen.frequency:
        raise row.error("frequency", f"{known}, as the column card says of group {seen.group}")


def runs_of_table(path: Path) -> list[Run]:
    """The rows of a table by run; a row that is there twice makes a run of its own, which is then seen as a copy.

    Raises:
        InputError: as `read_table`.
    """
    runs: dict[tuple[Any, ...], list[Observation]] = defaultdict(list)
    times: Counter[tuple[Any, ...]] = Counter()
    for seen in read_table(path):
        run = (seen.path, seen.date, seen.task, identity(seen.card.to_dict()))
        times[run, seen.group] += 1
        runs[(*run, times[run, seen.group])].append(seen)
    return [
        Run(f"{path} ({where})", date, rows[0].card.created, facts, tuple(rows))
        for (where, date, _, facts, _), rows in runs.items()
    ]
