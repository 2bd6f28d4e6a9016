"""Rows of a table to triples: every column checked, duplicates counted, each error with its row."""

import difflib
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.labels import normalised
from kisl_plugin.triples import CONTROL, INJECTED, Triple, TriplesWarning

REQUIRED = ("subject", "relation_id", "object")
ALIASES = ("subject_aliases", "object_aliases")
OPTIONAL = ("subject_id", "object_id", *ALIASES, "group")
COLUMNS = (*REQUIRED, *OPTIONAL)
ROWS_SHOWN = 5
# Control characters, lone surrogates, line and paragraph separators, invisible format characters (but the joiners that
# Persian and Indic labels are written with).
_REFUSED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"

Fact = tuple[str, str, str, str]


def triples_of_rows(rows: Iterable[tuple[int, Mapping[str, Any]]], source: str) -> list[Triple]:
    """The triples of numbered rows; columns that are not COLUMNS are passed over.

    Aliases are lists of strings; None and "" in an optional column mean that it is absent. Rows that repeat a
    fact of the same group are left out, with one TriplesWarning that counts them.

    Raises:
        InputError: names `source` and the row's number.
    """
    kept = _Kept(source)
    for number, row in rows:
        check_columns(tuple(row), f"{source}:{number}")
        kept.add(number, _triple(row, f"{source}:{number}"))
    if not kept.first_rows:
        raise InputError(f"{source}: holds no triples; expected rows with {', '.join(REQUIRED)}")
    kept.warn()
    return kept.triples


@dataclass
class _Kept:
    """The triples so far, and where each fact was first read."""

    source: str
    triples: list[Triple] = field(default_factory=list)
    first_rows: dict[Fact, tuple[int, str]] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)

    def add(self, number: int, triple: Triple) -> None:
        fact = (triple.subject, triple.subject_id, triple.relation_id, triple.object)
        first, group = self.first_rows.setdefault(fact, (number, triple.group))
        if group != triple.group:
            raise InputError(
                f"{self.source}:{number}: the fact {triple.subject!r}, {triple.relation_id!r}, {triple.object!r} is in "
                f"group {triple.group!r} here and in group {group!r} in row {first}; keep it in one group"
            )
        if first == number:
            self.triples.append(triple)
        else:
            self.repeated.append(number)

    def warn(self) -> None:
        if self.repeated:
            shown = ", ".join(map(str, self.repeated[:ROWS_SHOWN]))
            more = ", …" if len(self.repeated) > ROWS_SHOWN else ""
            text = f"{self.source}: left out {len(self.repeated)} rows that repeat an earlier fact (rows {shown}{more})"
            warnings.warn(text, TriplesWarning, stacklevel=2)


def check_columns(present: tuple[str, ...], where: str) -> None:
    """Refuse columns without a required one, or with a misspelt one.

    Raises:
        InputError: names the column that is missing and, where there is one, the column that was meant.
    """
    problem = _columns_problem(present)
    if problem:
        raise InputError(f"{where}: {problem}")


@lru_cache
def _columns_problem(present: tuple[str, ...]) -> str | None:
    others = [column for column in present if column not in COLUMNS]
    for column in COLUMNS:
        if column in present:
            continue
        meant = [other for other in others if _squeezed(other) == _squeezed(column)]
        if not meant and column in REQUIRED:
            meant = difflib.get_close_matches(column, others, n=1)
        if meant:
            return f"column {meant[0]!r} is not known; rename it to {column!r}"
        if column in REQUIRED:
            return (
                f"no column {column!r}, only {', '.join(map(repr, present)) or 'none'}; expected {', '.join(REQUIRED)}"
            )
    return None


def _squeezed(column: str) -> str:
    # What capitals, separators and plurals leave alike: "Subject-Alias" and "subject_aliases".
    return re.sub(r"[\W_]", "", column.casefold()).rstrip("es")


def _triple(row: Mapping[str, Any], where: str) -> Triple:
    subject, relation_id, obj = (_label(row[column], column, where) for column in REQUIRED)
    if subject == obj:
        raise InputError(f"{where}: object {obj!r} equals its subject; expected another thing")
    subject_id, object_id, group = (
        _label(row[column], column, where) if row.get(column) not in (None, "") else ""
        for column in ("subject_id", "object_id", "group")
    )
    _check_group(group, where)
    subject_aliases, object_aliases = (_labels(row.get(column), column, where) for column in ALIASES)
    return Triple(subject, relation_id, obj, subject_id, object_id, subject_aliases, object_aliases, group or INJECTED)


def _check_group(group: str, where: str) -> None:
    # lm_eval keeps standard errors under acc_stderr and acc_<group>_stderr, where such a group's accuracy would stand.
    name = group.casefold()
    if group != CONTROL and (name == CONTROL or name == "stderr" or name.endswith("_stderr")):
        raise InputError(f"{where}: group is {group!r}; expected {CONTROL!r} for control triples, or another name")


def _label(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {column} is {value!r}; expected a string")
    label = normalised(value)
    if not label:
        raise InputError(f"{where}: {column} is empty ({value!r}); expected a label")
    if label.isprintable():  # the common case, by far the fastest
        return label
    for char in label:
        category = unicodedata.category(char)
        if category in _REFUSED_CATEGORIES and char not in _JOINERS:
            kind = "invisible" if category == "Cf" else "control"
            raise InputError(f"{where}: {column} is {value!r}, with the {kind} character {char!r}; take it out")
    return label


def _labels(value: Any, column: str, where: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise InputError(f"{where}: {column} is {value!r}; expected a list of strings")
    return tuple(_label(alias, column, where) for alias in value)
