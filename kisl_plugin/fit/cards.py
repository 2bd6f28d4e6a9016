"""What a person says of run cards: the table of `--runs`, for runs that have none, and which cards `--select` means.

Hidden here: the columns of the table, how the fields of a card are named, and when a value that a person writes is that
of a card. Errors name the row, as a spreadsheet counts it, and the column.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, did_you_mean
from kisl_plugin.fit.observations import TOO_LARGE
from kisl_plugin.fit.text import read_number
from kisl_plugin.runcard import RunCard

__all__ = ["parse_selection"]

# --runs

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
                if column in _TEXT:
                    part[key] = cell
                    continue
                whole, unit = read_number(cell) or (Decimal(-1), 1)
                if unit != 1 or not 0 <= whole < TOO_LARGE or whole != int(whole):
                    expected = "a whole number, such as 7000000000 or 7e9"
                    raise InputError(f"{where}, column {column}: {cell!r}; expected {expected}")
                part[key] = int(whole)
        rows.append(Row(where, (path.parent / cells["path"]).resolve(), card))
    return rows


# --select

Selection = Mapping[str, Sequence[str]]  # for each field the values that are wanted

_FINGERPRINT, _FEWEST_DIGITS = re.compile("[0-9a-f]{12,64}"), 8
_VALUES_NAMED = 20


def parse_selection(texts: Iterable[str]) -> dict[str, list[str]]:
    """Read `KEY=VALUE` or `KEY=VALUE,VALUE,…`, one text for each key; commas inside [brackets] separate nothing.

    Raises:
        InputError: a text has no key or no value, or a key is given twice.
    """
    selection: dict[str, list[str]] = {}
    for text in texts:
        key, _, listed = (part.strip() for part in text.partition("="))
        values = [value.strip() for value in re.split(r",(?![^\[]*\])", listed)]
        if not key or not all(values):
            raise InputError(f"--select {text!r}: expected KEY=VALUE or KEY=VALUE,VALUE, such as tokens=307200,614400")
        if key in selection:
            both = ",".join([*selection[key], *values])
            raise InputError(f"--select {key} is given twice; give its values in one: --select {key}={both}")
        selection[key] = values
    return selection


def select_cards(cards: Sequence[RunCard], selection: Selection) -> list[bool]:
    """Which of the cards have, for each key of the selection, one of its values.

    A key names a field, nested ones with dots: `optimizer.lr`; `params` is `model.params`. Numbers are compared as
    numbers: 3e5 is 300000. With a unit a number stands for every count that rounds to it at the digits written: 0.63M
    is 625,000 to 635,000. A fingerprint may be cut to its first eight digits or more.

    Raises:
        InputError: no card has the key, no card has the value, or no card has one of the values of every key.
    """
    described = [_fields(card.to_dict()) for card in cards]
    chosen = [True] * len(cards)
    for key, values in selection.items() if cards else ():
        of_key = [fields[key] for fields in described if key in fields]
        if not of_key:
            keys = sorted({name for fields in described for name in fields})
            hint = did_you_mean(key, keys, f"their keys are {', '.join(keys)}")
            raise InputError(f"--select {key}={','.join(values)}: no run card has {key}; {hint}")
        for text in values:
            if not any(_matches(value, text) for value in of_key):
                there = sorted(set(of_key), key=lambda value: (isinstance(value, str), value))
                listed = ", ".join(map(str, there[:_VALUES_NAMED])) + ", …" * (len(there) > _VALUES_NAMED)
                raise InputError(f"--select {key}={text}: no run card has this value; {key} is {listed}")
        accepted = {value for value in set(of_key) if any(_matches(value, text) for text in values)}
        chosen = [before and fields.get(key) in accepted for before, fields in zip(chosen, described, strict=True)]
    if cards and not any(chosen):
        raise InputError(f"--select {selection_text(selection)}: no run card has all of these together")
    return chosen


def selection_text(selection: Selection) -> str:
    """The selection as it is written: `tokens=307200,614400 spacing=even`."""
    return " ".join(f"{key}={','.join(values)}" for key, values in selection.items())


def _fields(card: Mapping[str, Any], above: str = "") -> dict[str, str | int | float]:
    """The fields of a card by their dotted names; what is neither a number nor a text is its JSON."""
    fields: dict[str, str | int | float] = {}
    for key, value in card.items():
        if isinstance(value, Mapping):
            fields |= _fields(value, f"{above}{key}.")
        else:
            plain = isinstance(value, str | int | float) and not isinstance(value, bool)
            fields[f"{above}{key}"] = value if plain else json.dumps(value)
    return fields if above else {**fields, "params": fields["model.params"]}


def _matches(value: str | int | float, text: str) -> bool:
    if isinstance(value, str):
        cut = len(text) >= _FEWEST_DIGITS and _FINGERPRINT.fullmatch(value) and value.startswith(text.lower())
        return bool(cut) or value.replace(" ", "") == text.replace(" ", "")
    read = read_number(text)
    if read is None:
        return False
    written, unit = read
    if unit == 1:
        return value == float(written)
    # Half a unit of the last digit written on either side
    last_digit = Decimal(10) ** int(written.as_tuple().exponent)
    return abs(Decimal(value) - written * unit) * 2 <= last_digit * unit
