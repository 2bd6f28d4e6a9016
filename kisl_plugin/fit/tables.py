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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, did_you_mean
from kisl_plugin.files import NO_FORMULA, no_formula, write_atomically
from kisl_plugin.fit.observations import TOO_LARGE, Observation, ProbedRun, check_card, identity, object_at
from kisl_plugin.runcard import RunCard


def _whole(cell: str) -> int:
    """A whole number of at least 0, such as 7000000000 or 7e9."""
    value = Decimal(cell.strip())
    if not value.is_finite() or not 0 <= value < TOO_LARGE or value != int(value):
        raise ValueError
    return int(value)


def _real(cell: str) -> float:
    """A finite number with a decimal point."""
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError
    return value


# How a cell is read, and what it is expected to be
_WHOLE = (_whole, "a whole number, such as 7000000000 or 7e9")
_REAL = (_real, "a number with a decimal point, such as 3.105")
_TEXT = (str, "text")
_JSON = (json.loads, "JSON")

# Column → where a run card has its value, and how the cell is read. The frequency of a group is not in the card's root.
_CARD_COLUMNS: dict[str, tuple[tuple[str, ...], Any]] = {
    "params": (("model", "params"), _WHOLE),
    "tokens": (("tokens",), _WHOLE),
    "seed": (("seed",), _WHOLE),
    "train_seed": (("train_seed",), _WHOLE),
    "seq_length": (("seq_length",), _WHOLE),
    "iteration": (("iteration",), _WHOLE),
    "train_iters": (("train_iters",), _WHOLE),
    "engine": (("engine",), _TEXT),
    "form": (("form",), _TEXT),
    "spacing": (("spacing",), _TEXT),
    "template": (("template",), _JSON),
    "window": (("window",), _JSON),
    "triples": (("triples", "count"), _WHOLE),
    "control": (("triples", "control"), _WHOLE),
    "sha256": (("triples", "sha256"), _TEXT),
}
_COUNTS = ("correct", "total", "control_correct", "control_total")
_READERS: dict[str, Any] = {
    **{column: kind for column, (_, kind) in _CARD_COLUMNS.items()},
    **dict.fromkeys(("frequency", *_COUNTS), _WHOLE),
    **dict.fromkeys(("bits_per_byte", "date"), _REAL),
    **dict.fromkeys(("group", "task", "model", "path", "samples"), _TEXT),
    "card": _JSON,
}
# First what a person looks for; `card` is the whole run card
_FIRST = ("params", "tokens", "frequency", "group", "seed", "train_seed", *_COUNTS, "bits_per_byte")
_LAST = ("date", "task", "model", "path", "samples", "card")
_COLUMNS = (*_FIRST, *(column for column in _CARD_COLUMNS if column not in _FIRST), *_LAST)
_REQUIRED = ("params", "tokens", "frequency", "seed")
REQUIRED_COUNTS = (*_REQUIRED, "correct", "total")
_ABOVE_ZERO = ("params", "tokens", "total")


@dataclass(frozen=True)
class Row:
    """A row as it was (`cells`) and as it was read (`values`, None where empty), both by column.

    `where` is the file and the row's number as a spreadsheet counts (the header is row 1).
    """

    where: str
    cells: Mapping[str, str]
    values: dict[str, Any] = field(default_factory=dict)

    def error(self, column: str, expected: str) -> InputError:
        """What is wrong with the cell of `column`."""
        return InputError(f"{self.where}, column {column}: {self.cells.get(column, '')!r}; expected {expected}")

    @property
    def card(self) -> dict[str, Any]:
        """What the columns say of the run card, as JSON; `frequency` only where the row is not of a group."""
        card: dict[str, Any] = {"schema": 1, "model": {}, "triples": {}}
        for column, (keys, _) in _CARD_COLUMNS.items():
            if self.values[column] is not None:
                (card if len(keys) == 1 else card[keys[0]])[keys[-1]] = self.values[column]
        return card if self.values["group"] is not None else {**card, "frequency": self.values["frequency"]}

    def names(self, file: Path, model: str) -> bool:
        """Whether these results are meant: by `path` where the row has one, else by `model`."""
        path, file = self.values["path"], file.resolve()
        return self.values["model"] == model if path is None else path == file or path in file.parents


def _read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[Row]:
    """The rows that are not empty. Columns may be in any order, with commas, semicolons or tabs; others are allowed.

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
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; required are {', '.join(required)}, optional "
            f"{', '.join(optional)}; the header is {', '.join(header)[:200] or 'empty'}"
        )
    for name in filter(None, header):
        if header.count(name) > 1:
            raise InputError(f"{path}: column {name} is there twice; keep one of them")
        hint = did_you_mean(name, [column for column in optional if column not in header])
        if name not in (*required, *optional) and hint:
            raise InputError(f"{path}: column {name} is unknown; {hint}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if any(cells[len(header) :]):
            raise InputError(
                f"{path}: row {number} has {len(cells)} cells, the header {len(header)}; quote texts with commas"
            )
        if not any(cell.strip() for cell in cells):
            continue
        row = Row(f"{path}: row {number}", dict(zip(header, cells, strict=False)))
        for column in (*required, *optional):
            cell = row.cells.get(column, "").removeprefix(NO_FORMULA)
            read, expected = _READERS[column]
            try:
                row.values[column] = read(cell) if cell.strip() or (cell and read is str) else None
            except (ValueError, ArithmeticError, RecursionError):  # Decimal raises ArithmeticError
                raise row.error(column, expected) from None
            if column in required and row.values[column] is None:
                raise row.error(column, "a whole number")
            if column in _ABOVE_ZERO and row.values[column] == 0:
                raise row.error(column, "a number above 0")
        rows.append(row)
    return rows


# observations.csv


def write_observations(observations: Sequence[Observation], path: Path) -> Path:
    """Write the observations as CSV; `read_observations` gives equal ones. Samples are named relative to the CSV.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _COLUMNS)
    table.writeheader()
    for one in observations:
        card = one.card.to_dict()
        cells = {name: getattr(one, name) for name in ("frequency", "group", *_COUNTS, "bits_per_byte")}
        cells |= {"date": repr(one.date), "task": one.task, "model": one.model, "path": one.path}
        cells["card"] = json.dumps(card)
        if one.samples is not None:
            cells["samples"] = os.path.relpath(one.samples.resolve(), path.parent.resolve())
        for column, (keys, kind) in _CARD_COLUMNS.items():
            value = (card if len(keys) == 1 else card[keys[0]]).get(keys[-1])
            if kind is _JSON and value is not None:
                cells[column] = json.dumps(value)
            elif (kind is _WHOLE and type(value) is int and 0 <= value < TOO_LARGE) or (
                kind is _TEXT and isinstance(value, str)
            ):  # what its column could not hold is in `card` alone
                cells[column] = value
        table.writerow({name: no_formula(cell) if isinstance(cell, str) else cell for name, cell in cells.items()})
    return write_atomically(path, text.getvalue())


def read_observations(path: Path) -> list[Observation]:
    """The observations of a CSV with at least the columns params, tokens, frequency, seed, correct and total.

    Raises:
        InputError: the file or a row is wrong; the error names row and column.
    """
    optional = [name for name in _COLUMNS if name not in REQUIRED_COUNTS]
    observations = []
    for row in _read_rows(path, REQUIRED_COUNTS, optional):
        values, total, group = row.values, row.values["total"], row.values["group"]
        # Counts that contradict each other
        for column, most in (("correct", total), ("control_correct", values["control_total"] or 0)):
            if (values[column] or 0) > most:
                raise row.error(column, f"at most {most}, the number of items")
        if (values["control_correct"] is None) != (values["control_total"] is None):
            raise row.error("control_correct", "both control_correct and control_total, or neither")
        # The columns go over what the column `card` says
        whole, columns = values["card"] or {}, row.card
        if not isinstance(whole, Mapping):
            raise row.error("card", "a JSON object")
        if group is not None and "groups" not in whole:
            groups = '{"groups": {name: {"frequency": F, "count": n}}}'
            raise row.error("group", f"an empty cell, or {groups} in column card")
        parts = {key: {**object_at(whole, key), **columns[key]} for key in ("model", "triples")}
        parts["triples"].setdefault("count", total)
        card = RunCard.from_dict({"created": "", **whole, **columns, **parts}, row.where)
        check_card(card, row.where)
        frequency = object_at(card.groups, group or "").get("frequency")
        if group is not None and frequency != values["frequency"]:
            raise row.error("frequency", f"{frequency}, the frequency of group {group} in the column card")
        observations.append(
            Observation(
                path=values["path"] or row.where.rpartition(": ")[2],
                model=values["model"] or "",
                card=card,
                group=group,
                date=values["date"] or 0.0,
                task=values["task"] or "",
                samples=(path.parent / values["samples"]).resolve() if values["samples"] else None,
                **{name: values[name] for name in ("frequency", *_COUNTS, "bits_per_byte")},
            )
        )
    return observations


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


# --runs: what runs without a run card were. Nothing is guessed from the names of files


def read_runs(path: Path) -> list[Row]:
    """The rows of the table, each with an absolute `path` or lm-eval's `model` name; paths are relative to its folder.

    Raises:
        InputError: the file or a row is wrong; the error names the row.
    """
    optional = ("path", "model", "group", *(column for column in _CARD_COLUMNS if column not in _REQUIRED))
    rows = _read_rows(path, _REQUIRED, optional)
    for row in rows:
        if row.values["path"] is not None:
            row.values["path"] = (path.parent / row.values["path"]).resolve()
        elif row.values["model"] is None:
            raise row.error("path", "a results file or folder, or lm-eval's model_name in the column model")
        if row.values["group"] is not None:
            raise row.error("group", "an empty cell: a run with groups needs its run card")
    return rows
