"""The CSV tables of kisl-fit: the one of `--runs`, and `observations.csv` in the report.

The table of `--runs` says what runs without a run card were. Errors name the row, as a spreadsheet counts it, and the
column.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, did_you_mean
from kisl_plugin.files import no_formula, write_atomically
from kisl_plugin.fit.observations import TOO_LARGE, Observation

# Columns of --runs with whole numbers and with text, and the part of the run card that a column belongs to
_WHOLE = ("params", "tokens", "frequency", "seed", "train_seed", "triples", "control")
_TEXT = ("path", "engine", "form", "sha256")
_PARTS = {"params": "model", "triples": "triples", "control": "triples", "sha256": "triples"}
_REQUIRED = ("path", "params", "tokens", "frequency", "seed")


@dataclass(frozen=True)
class Row:
    """A row of `--runs`: the run card (JSON) of the results in `path`, an absolute file or folder.

    `where` is the table and the row's number as a spreadsheet counts (the header is row 1).
    """

    where: str
    path: Path
    card: dict[str, Any]

    def names(self, file: Path) -> bool:
        """Whether these results are meant."""
        return self.path in (file.resolve(), *file.resolve().parents)


def read_runs(path: Path) -> list[Row]:
    """The rows of the table that are not empty; their paths are relative to its folder.

    Columns may be in any order, with commas, semicolons or tabs; others are allowed.

    Raises:
        InputError: the file cannot be read, a required column is missing, an optional one is misspelt or there twice,
            a row has more cells than the header, or a cell does not hold what its column is for.
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
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; required are {', '.join(_REQUIRED)}; "
            f"the header is {', '.join(header)[:200] or 'empty'}"
        )
    for name in filter(None, header):
        if header.count(name) > 1:
            raise InputError(f"{path}: column {name} is there twice; keep one of them")
        hint = did_you_mean(name, [column for column in (*_WHOLE, *_TEXT) if column not in header])
        if name not in (*_WHOLE, *_TEXT) and hint:
            raise InputError(f"{path}: column {name} is unknown; {hint}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}: row {number}"
        if any(line[len(header) :]):
            raise InputError(f"{where} has {len(line)} cells, the header {len(header)}; quote texts with commas")
        if not any(cell.strip() for cell in line):
            continue
        cells = {name: cell.strip() for name, cell in zip(header, line, strict=False)}
        card: dict[str, Any] = {"schema": 1, "created": "", "model": {}, "triples": {}}
        for column in (*_WHOLE, *_TEXT):
            cell = cells.get(column, "")
            if not cell and column in _REQUIRED:
                expected = "a results file or folder" if column == "path" else "a whole number"
                raise InputError(f"{where}, column {column}: ''; expected {expected}")
            if cell and column != "path":
                part = card[_PARTS[column]] if column in _PARTS else card
                key = "count" if column == "triples" else column
                part[key] = cell if column in _TEXT else _whole(cell, f"{where}, column {column}")
        rows.append(Row(where, (path.parent / cells["path"]).resolve(), card))
    return rows


def _whole(cell: str, where: str) -> int:
    """A whole number of at least 0, such as 7000000000 or 7e9."""
    try:
        value = Decimal(cell)
        if value.is_finite() and 0 <= value < TOO_LARGE and value == int(value):
            return int(value)
    except ArithmeticError:
        pass
    raise InputError(f"{where}: {cell!r}; expected a whole number, such as 7000000000 or 7e9")


# The tables of a report


class Table(list[dict[str, Any]]):
    """Rows as dicts that have the same keys in the same order."""

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")  # it has no types without another package
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(list(self))


_COLUMNS = (
    *("params", "tokens", "frequency", "group", "seed", "train_seed"),
    *("correct", "total", "control_correct", "control_total", "bits_per_byte"),
    *("task", "engine", "form", "model", "path"),
)


def observation_table(observations: Iterable[Observation]) -> Table:
    """One row for each observation: first what decides the run, then what was right, then where it is from."""
    table = Table()
    for one in observations:
        own = {"seed": one.seeds[0], "train_seed": one.seeds[1], "engine": one.card.engine, "form": one.card.form}
        table.append({key: own[key] if key in own else getattr(one, key) for key in _COLUMNS})
    return table


def write_observations(observations: Iterable[Observation], path: Path) -> Path:
    """Write the observations as CSV, for people.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    for row in observation_table(observations):
        writer.writerow({key: no_formula(cell) if isinstance(cell, str) else cell for key, cell in row.items()})
    return write_atomically(path, text.getvalue())
