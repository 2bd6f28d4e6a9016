"""CSV files that people write or edit in a spreadsheet, with errors that name row and column."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.spreadsheets import NO_FORMULA

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
