"""observations.csv: what was read, one row per observation, to be read again in the place of the results."""

import csv
import io
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.files import NO_FORMULA, no_formula, write_atomically
from kisl_plugin.fit.observations import TOO_LARGE, Observation, Run, check_card, identity
from kisl_plugin.runcard import RunCard

# CSV files that people write or edit in a spreadsheet, with errors that name row and column.

LARGEST = 30  # decimal digits of a whole number


@dataclass(frozen=True)
class Row:
    """The cells of a row by column; `number` as a spreadsheet counts (the header is row 1)."""

    path: Path
    number: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str | None:
        """The cell as it stands; None if it is empty or there is no such column."""
        return self.cells.get(column, "").removeprefix(NO_FORMULA) or None

    def whole(self, column: str) -> int | None:
        """A whole number of at least 0, such as 7000000000 or 7e9."""
        cell = (self.text(column) or "").strip()
        if not cell:
            return None
        try:
            value = Decimal(cell)
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite() or value < 0 or value.adjusted() > LARGEST or value != int(value):
            raise self.error(column, "a whole number, such as 7000000000 or 7e9")
        return int(value)

    def number_in(self, column: str) -> float | None:
        """A finite number with a decimal point."""
        cell = (self.text(column) or "").strip()
        if not cell:
            return None
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(column, "a number with a decimal point, such as 3.105")
        return value

    def json(self, column: str) -> Any:
        """The cell read as JSON; None if it is empty."""
        cell = self.text(column)
        try:
            return None if cell is None else json.loads(cell)
        except (ValueError, RecursionError):
            raise self.error(column, "JSON") from None

    def needed(self, column: str) -> int:
        """A whole number that must be there."""
        value = self.whole(column)
        if value is None:
            raise self.error(column, "a whole number")
        return value

    def error(self, column: str, expected: str) -> InputError:
        """What is wrong with the cell of `column`."""
        return InputError(f"{self.where}, column {column}: {self.cells.get(column, '')!r}; expected {expected}")

    @property
    def where(self) -> str:
        """The file and the row's number."""
        return f"{self.path}: row {self.number}"


def read_rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> list[Row]:
    """The rows that are not empty; columns in any order, separated by commas, semicolons or tabs; others are allowed.

    Raises:
        InputError: the file cannot be read, a needed column is missing, an optional one is misspelt, a column is there
            twice, or a row has more cells than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first = text.split("\n", 1)[0]
        separator = max(",;\t", key=first.count)
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the spreadsheet as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise InputError(f"{path}: no CSV ({error}); expected a header and a row per run") from None
    header = [name.strip() for name in lines[0]] if lines else []
    _check_header(path, header, needed, optional)
    return [
        _row(path, number, header, cells)
        for number, cells in enumerate(lines[1:], start=2)
        if any(cell.strip() for cell in cells)
    ]


def _row(path: Path, number: int, header: list[str], cells: list[str]) -> Row:
    if any(cells[len(header) :]):
        raise InputError(
            f"{path}: row {number} has {len(cells)} cells, the header {len(header)}; put texts with commas in quotes"
        )
    return Row(path, number, dict(zip(header, cells, strict=False)))


def _check_header(path: Path, header: list[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; expected {', '.join(needed)} (and, if known, "
            f"{', '.join(optional)}); its header is {', '.join(header)[:200] or 'empty'}"
        )
    for name in header:
        if name and header.count(name) > 1:
            raise InputError(f"{path}: column {name} is there twice; keep one of them")
        near = get_close_matches(name, [known for known in optional if known not in header], n=1, cutoff=0.8)
        if near and name not in (*needed, *optional):
            raise InputError(f"{path}: column {name} is unknown; did you mean {near[0]}?")


# The columns of a CSV that say what a run card says.

NEEDED = ("params", "tokens", "frequency", "seed")
WHOLE = ("train_seed", "seq_length", "iteration", "train_iters")
TEXT = ("engine", "form", "spacing")
JSON = ("template", "window")
OPTIONAL = ("group", *WHOLE, *TEXT, *JSON, "triples", "control", "sha256")


def card_of_row(row: Row) -> dict[str, Any]:
    """What a row says of its run card; `frequency` only where the row is not of a group.

    Raises:
        InputError: a cell is none of what its column holds.
    """
    said: dict[str, Any] = {"schema": 1, "seed": row.needed("seed"), "tokens": _positive(row, "tokens")}
    said |= {"frequency": row.needed("frequency")} if row.text("group") is None else {}
    said |= {key: row.whole(key) for key in WHOLE} | {key: row.text(key) for key in TEXT}
    said |= {key: row.json(key) for key in JSON}
    triples = {"count": row.whole("triples"), "control": row.whole("control"), "sha256": row.text("sha256")}
    return {**_known(said), "model": {"params": _positive(row, "params")}, "triples": _known(triples)}


def columns_of_card(card: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A card's cells by column, and the rest of the card, for a column of its own."""
    cells, rest = _apart(card, ("tokens", "seed", *WHOLE), TEXT, JSON)
    model, shape = _apart(card["model"], ("params",), (), ())
    triples, more = _apart(card["triples"], ("count", "control"), ("sha256",), ())
    for key in ("schema", "frequency", "model", "triples"):
        rest.pop(key, None)
    cells |= model | {"triples" if key == "count" else key: value for key, value in triples.items()}
    return cells, {**rest, **({"model": shape} if shape else {}), **({"triples": more} if more else {})}


def _apart(
    data: Mapping[str, Any], whole: tuple[str, ...], text: tuple[str, ...], other: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What fits its column, and the rest: nobody has checked the keys that a card may lack."""
    fits: dict[str, Any] = {
        key: value for key, value in data.items() if key in whole and type(value) is int and 0 <= value < TOO_LARGE
    }
    fits |= {key: value for key, value in data.items() if key in text and isinstance(value, str) and value}
    fits |= {key: value for key, value in data.items() if key in other}
    return fits, {key: value for key, value in data.items() if key not in fits}


def _positive(row: Row, column: str) -> int:
    value = row.needed(column)
    if value == 0:
        raise row.error(column, "a number above 0")
    return value


def _known(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cells.items() if value is not None}


# observations.csv: what was read, one row per observation, to be read again in the place of the results.

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
