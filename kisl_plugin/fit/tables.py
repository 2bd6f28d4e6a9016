"""The CSV tables of kisl-fit, all with the same columns for what a run card says.

`observations.csv` is written into every report and can be read in place of the results. The table of `--runs` says
what runs without a run card were. Errors name the row, as a spreadsheet counts it, and the column.
"""

import csv
import io
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, did_you_mean
from kisl_plugin.files import NO_FORMULA, no_formula, write_atomically
from kisl_plugin.fit.observations import TOO_LARGE, Observation, ProbedRun, check_card, identity, object_at
from kisl_plugin.runcard import RunCard


@dataclass(frozen=True)
class _Row:
    """The cells of a row by column; `number` as a spreadsheet counts (the header is row 1)."""

    path: Path
    number: int
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """The file and the row's number."""
        return f"{self.path}: row {self.number}"

    def text(self, column: str) -> str | None:
        """The cell as it was before it was written; None if it is empty or there is no such column."""
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
        if not value.is_finite() or value < 0 or value.adjusted() >= 30 or value != int(value):
            raise self.error(column, "a whole number, such as 7000000000 or 7e9")
        return int(value)

    def required(self, column: str, least: int = 0) -> int:
        """A whole number that must be there."""
        value = self.whole(column)
        if value is None or value < least:
            raise self.error(column, "a whole number" if value is None else "a number above 0")
        return value

    def real(self, column: str) -> float | None:
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

    def error(self, column: str, expected: str) -> InputError:
        """What is wrong with the cell of `column`."""
        return InputError(f"{self.where}, column {column}: {self.cells.get(column, '')!r}; expected {expected}")


def _read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[_Row]:
    """The rows that are not empty. Columns may be in any order, with commas, semicolons or tabs; others are allowed.

    Raises:
        InputError: the file cannot be read, a required column is missing, an optional one is misspelt or there twice,
            or a row has more cells than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        separator = max(",;\t", key=text.split("\n", 1)[0].count)
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the spreadsheet as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise InputError(f"{path}: not CSV ({error}); expected a header and one row for each run") from None
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; required are {', '.join(required)}, optional "
            f"{', '.join(optional)}; the header is {', '.join(header)[:200] or 'empty'}"
        )
    for name in header:
        if name and header.count(name) > 1:
            raise InputError(f"{path}: column {name} is there twice; keep one of them")
        if name and name not in (*required, *optional):
            hint = did_you_mean(name, [column for column in optional if column not in header])
            if hint:
                raise InputError(f"{path}: column {name} is unknown; {hint}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if any(cells[len(header) :]):
            raise InputError(
                f"{path}: row {number} has {len(cells)} cells, the header {len(header)}; quote texts with commas"
            )
        if any(cell.strip() for cell in cells):
            rows.append(_Row(path, number, dict(zip(header, cells, strict=False))))
    return rows


# A run card in columns

# Column → where a run card has its value, and how the cell is read. The frequency of a group is not in the card's root.
_CARD_COLUMNS: dict[str, tuple[tuple[str, ...], Callable[[_Row, str], Any]]] = {
    "params": (("model", "params"), _Row.whole),
    "tokens": (("tokens",), _Row.whole),
    "seed": (("seed",), _Row.whole),
    "train_seed": (("train_seed",), _Row.whole),
    "seq_length": (("seq_length",), _Row.whole),
    "iteration": (("iteration",), _Row.whole),
    "train_iters": (("train_iters",), _Row.whole),
    "engine": (("engine",), _Row.text),
    "form": (("form",), _Row.text),
    "spacing": (("spacing",), _Row.text),
    "template": (("template",), _Row.json),
    "window": (("window",), _Row.json),
    "triples": (("triples", "count"), _Row.whole),
    "control": (("triples", "control"), _Row.whole),
    "sha256": (("triples", "sha256"), _Row.text),
}
_REQUIRED = ("params", "tokens", "frequency", "seed")
_OPTIONAL = ("group", *(column for column in _CARD_COLUMNS if column not in _REQUIRED))


def _read_card(row: _Row) -> dict[str, Any]:
    """What a row says of its run card, as JSON; `frequency` only where the row is not of a group.

    Raises:
        InputError: a cell does not hold what its column is for.
    """
    card: dict[str, Any] = {"schema": 1, "model": {}, "triples": {}}
    for column, least in (("params", 1), ("tokens", 1), ("seed", 0)):
        row.required(column, least)
    frequency = row.required("frequency")
    if row.text("group") is None:
        card["frequency"] = frequency
    for column, (keys, read) in _CARD_COLUMNS.items():
        value = read(row, column)
        if value is not None:
            (card if len(keys) == 1 else card[keys[0]])[keys[-1]] = value
    return card


def _split_card(card: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A card's values by column, and the rest of it; a value that its column could not hold stays in the rest."""
    rest = {key: value for key, value in card.items() if key not in ("schema", "frequency", "model", "triples")}
    rest |= {"model": {**card["model"]}, "triples": {**card["triples"]}}
    cells = {}
    for column, (keys, read) in _CARD_COLUMNS.items():
        inside = rest if len(keys) == 1 else rest[keys[0]]
        value = inside.get(keys[-1])
        fits = value is not None
        if read is _Row.whole:
            fits = type(value) is int and 0 <= value < TOO_LARGE
        elif read is _Row.text:
            fits = isinstance(value, str) and value != ""
        if fits:
            cells[column] = inside.pop(keys[-1])
    return cells, {key: value for key, value in rest.items() if value or key not in ("model", "triples")}


# observations.csv

_COUNTS = ("correct", "total", "control_correct", "control_total", "by_sum")
# First what a person looks for; `card` holds what has no column of its own
_COLUMNS = (
    *("params", "tokens", "frequency", "group", "seed", "train_seed", *_COUNTS, "bits_per_byte", "relations"),
    *(column for column in _OPTIONAL if column not in ("group", "train_seed")),
    *("date", "task", "model", "path", "samples", "card"),
)
REQUIRED_COUNTS = (*_REQUIRED, "correct", "total")


def write_observations(observations: Sequence[Observation], path: Path) -> Path:
    """Write the observations as CSV; `read_observations` gives equal ones. Samples are named relative to the CSV.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _COLUMNS)
    table.writeheader()
    for one in observations:
        card, rest = _split_card(one.card.to_dict())
        cells = {key: json.dumps(value) if _CARD_COLUMNS[key][1] is _Row.json else value for key, value in card.items()}
        cells |= {name: getattr(one, name) for name in ("frequency", "group", *_COUNTS, "bits_per_byte")}
        cells |= {"date": repr(one.date), "task": one.task, "model": one.model, "path": one.path}
        cells |= {"relations": json.dumps(one.relations) if one.relations else None, "card": json.dumps(rest)}
        if one.samples is not None:
            cells["samples"] = os.path.relpath(one.samples.resolve(), path.parent.resolve())
        table.writerow({name: no_formula(cell) if isinstance(cell, str) else cell for name, cell in cells.items()})
    return write_atomically(path, text.getvalue())


def read_observations(path: Path) -> list[Observation]:
    """The observations of a CSV with at least the columns params, tokens, frequency, seed, correct and total.

    Raises:
        InputError: the file or a row is wrong; the error names row and column.
    """
    optional = [name for name in _COLUMNS if name not in REQUIRED_COUNTS]
    return [_observation(row) for row in _read_rows(path, REQUIRED_COUNTS, optional)]


def read_observed_runs(path: Path) -> list[ProbedRun]:
    """The rows of a table by run; a repeated row makes a run of its own, which is then recognised as a copy.

    Raises:
        InputError: as `read_observations`.
    """
    runs: dict[tuple[Any, ...], list[Observation]] = defaultdict(list)
    repeats: Counter[tuple[Any, ...]] = Counter()
    for one in read_observations(path):
        run = (one.path, one.date, one.task, identity(one.card.to_dict()))
        repeats[run, one.group] += 1
        runs[(*run, repeats[run, one.group])].append(one)
    return [ProbedRun(f"{path} ({rows[0].path})", tuple(rows)) for rows in runs.values()]


def _observation(row: _Row) -> Observation:
    total, group = row.required("total", 1), row.text("group")
    samples, relations = row.text("samples"), row.json("relations") or {}
    pairs = relations.values() if isinstance(relations, Mapping) else [None]
    if not all(isinstance(pair, list) and [type(n) for n in pair] == [int, int] for pair in pairs):
        raise row.error("relations", 'a JSON object such as {"P50": [correct, total]}')
    one = Observation(
        path=row.text("path") or f"row {row.number}",
        model=row.text("model") or "",
        card=_full_card(row, total),
        frequency=row.required("frequency"),
        group=group,
        correct=row.required("correct"),
        total=total,
        control_correct=row.whole("control_correct"),
        control_total=row.whole("control_total"),
        date=row.real("date") or 0.0,
        task=row.text("task") or "",
        relations={name: (correct, total) for name, (correct, total) in relations.items()},
        by_sum=row.whole("by_sum"),
        bits_per_byte=row.real("bits_per_byte"),
        samples=(row.path.parent / samples).resolve() if samples else None,
    )
    # Counts that contradict each other
    for column, most in (("correct", total), ("by_sum", total), ("control_correct", one.control_total or 0)):
        if (row.whole(column) or 0) > most:
            raise row.error(column, f"at most {most}, the number of items")
    if (one.control_correct is None) != (one.control_total is None):
        raise row.error("control_correct", "both control_correct and control_total, or neither")
    if any(correct < 0 or correct > total for correct, total in one.relations.values()):
        raise row.error("relations", "correct to be at most total")
    frequency = object_at(one.card.groups, group or "").get("frequency")
    if group is not None and frequency != one.frequency:
        raise row.error("frequency", f"{frequency}, the frequency of group {group} in the column card")
    return one


def _full_card(row: _Row, total: int) -> RunCard:
    """The card that the columns and the column `card` make together."""
    rest = row.json("card") or {}
    for name, part in (("", rest), ("model to be ", rest.get("model", {}) if isinstance(rest, Mapping) else {})):
        if not isinstance(part, Mapping):
            raise row.error("card", f"{name}a JSON object")
    if row.text("group") is not None and "groups" not in rest:
        raise row.error("group", 'an empty cell, or {"groups": {name: {"frequency": F, "count": n}}} in column card')
    cells = _read_card(row)
    nested = {key: {**object_at(rest, key), **cells[key]} for key in ("model", "triples")}
    nested["triples"].setdefault("count", total)
    card = RunCard.from_dict({"created": "", **rest, **cells, **nested}, row.where)
    check_card(card, row.where)
    return card


# --runs: what runs without a run card were. Nothing is guessed from the names of files


@dataclass(frozen=True)
class RunRow:
    """A row of the table: the results that it names (`path`, absolute, or lm-eval's `model_name`), and their card."""

    row: _Row
    path: Path | None
    model: str | None
    card: Mapping[str, Any]

    @property
    def group(self) -> str | None:
        """The group of triples that the row is about; None for the whole run."""
        return self.row.text("group")

    def names(self, file: Path, model: str) -> bool:
        """Whether these results are meant: by path, by model, or (where the row gives both) by both."""
        file = file.resolve()
        by_path = self.path is None or self.path == file or self.path in file.parents
        return by_path and (self.model is None or self.model == model)


def read_runs(path: Path) -> list[RunRow]:
    """The rows of the table; paths are relative to its folder.

    Raises:
        InputError: the file or a row is wrong; the error names the row.
    """
    rows = []
    for row in _read_rows(path, _REQUIRED, ("path", "model", *_OPTIONAL)):
        file, model = row.text("path"), row.text("model")
        if file is None and model is None:
            raise row.error("path", "a results file or folder, or lm-eval's model_name in the column model")
        rows.append(RunRow(row, (path.parent / file).resolve() if file else None, model, _read_card(row)))
    return rows


def card_of_rows(rows: Sequence[RunRow], items: Mapping[str | None, int | None], control: int | None) -> dict[str, Any]:
    """The run card, as JSON, that the rows of one results file make: one row, or one for each group.

    `items`: how many items the results have, by group (None: of the whole run), where they say.

    Raises:
        InputError: rows contradict each other, or the number of items is unknown.
    """
    first = rows[0]
    cells: dict[str | None, tuple[int, int]] = {}
    for one in rows:
        row, n = one.row, one.row.whole("triples")
        n = items.get(one.group) if n is None else n
        if n is None:
            raise InputError(f"the results do not say how many items there are: fill {row.where}, column triples")
        cell = (row.required("frequency"), n)
        same = _shared_cells(one) == _shared_cells(first) and (one.group is None) == (first.group is None)
        if not same or cells.setdefault(one.group, cell) != cell:
            raise InputError(f"{first.row.where} and row {row.number} contradict each other; keep one of them")
    total = sum(n for _, n in cells.values())
    triples = {**({} if control is None else {"control": control}), **first.card["triples"], "count": total}
    card = {"created": "", **first.card, "triples": triples}
    if None not in cells:
        card["groups"] = {name: {"frequency": F, "count": n} for name, (F, n) in cells.items()}
    return card


def _shared_cells(one: RunRow) -> dict[str, Any]:
    """What the rows of all groups of a run must have in common."""
    return {key: value for key, value in _split_card(one.card)[0].items() if key != "triples"}


def contradictions(one: RunRow, card: RunCard) -> list[str]:
    """Where a row differs from the run card, which is then used."""
    cells, recorded = _split_card(one.card)[0], _split_card(card.to_dict())[0]
    cells["frequency"] = one.row.required("frequency")
    recorded["frequency"] = card.frequency if one.group is None else object_at(card.groups, one.group).get("frequency")
    return [
        f"{one.row.where} has {key} {cells[key]}, the run card {recorded[key]}: the run card is used"
        for key in sorted(set(cells) & set(recorded))
        if recorded[key] is not None and cells[key] != recorded[key]
    ]
