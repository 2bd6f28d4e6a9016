"""Triples: the facts that are injected and asked, where they are read from, and which rows are valid."""

import ast
import csv
import json
import re
import shlex
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, needs_extra
from kisl_plugin.hookspecs import hookimpl, manager

__all__ = ["CONTROL", "INJECTED", "Triple", "TriplesWarning", "folded_words", "normalised", "read_triples",
           "triples_to_jsonl"]  # fmt: skip

CONTROL = "control"
INJECTED = "injected"

# Labels. `normalised` is the spelling that is stored; `folded_words` is what two labels are compared by.

_NO_BREAK_SPACES = str.maketrans({"\u00a0": " ", "\u2007": " ", "\u202f": " "})
# Letters that Unicode does not decompose into a base letter and a mark.
_BARRED = str.maketrans("øłđı", "oldi")
_JOINING = ".'’"


def normalised(label: str) -> str:
    """The label in Unicode NFC, with plain spaces for no-break ones, without spaces at the ends."""
    if label.isascii():
        return label.strip()
    return unicodedata.normalize("NFC", label.translate(_NO_BREAK_SPACES)).strip()


def folded_words(label: str) -> tuple[str, ...]:
    """The label's words without case, diacritics, punctuation and a leading "the": U.S.A. → usa."""
    decomposed = unicodedata.normalize("NFKD", label.casefold()).translate(_BARRED)
    # Letters, marks, numbers and symbols belong to words; joining marks vanish; all else separates words.
    parts = (char if unicodedata.category(char)[0] in "LMNS" else " " for char in decomposed if char not in _JOINING)
    words = "".join(char for char in parts if not unicodedata.combining(char)).split()
    return tuple(words[1:] if len(words) > 1 and words[0] == "the" else words)


@dataclass(frozen=True, slots=True)
class Triple:
    """A fact (subject, relation, object). `group` is its frequency group; `control` is never injected."""

    subject: str
    relation_id: str
    object: str
    subject_id: str = ""
    object_id: str = ""
    subject_aliases: tuple[str, ...] = ()
    object_aliases: tuple[str, ...] = ()
    group: str = INJECTED


class TriplesWarning(UserWarning):
    """Rows of a triples file that were left out, with their number."""


def read_triples(source: str | Path, skip_bad_rows: bool = False) -> list[Triple]:
    """The triples of a file (JSONL, CSV, TSV, Parquet), a bundled name or a hub data set id.

    `skip_bad_rows`: rows that are wrong are left out, with a TriplesWarning that counts and names them.

    Raises:
        InputError: no plugin reads this source, or rows are wrong; the error names the file and the rows.
    """
    triples: list[Triple] | None = manager().hook.kisl_read_triples(source=str(source), skip_bad_rows=skip_bad_rows)
    if triples is None:
        endings = ", ".join(_FILE_READERS)
        file = f"a file, but its ending is not {endings}" if _exists(Path(source)) else f"no such file ({endings})"
        raise InputError(
            f"triples {str(source)!r}: {file}; not a bundled name ({', '.join(_BUNDLED)}); not a hub data set "
            "(owner/name or owner/name:split); and no plugin's hook kisl_read_triples reads it"
        )
    return triples


def triples_to_jsonl(triples: Iterable[Triple]) -> str:
    """The triples as JSON lines, which `read_triples` reads back to equal ones; keys in the order of the fields."""
    lines = []
    for triple in triples:
        row = {field.name: getattr(triple, field.name) for field in fields(triple)}
        kept = {key: value for key, value in row.items() if value or key in (*_REQUIRED, "group")}
        lines.append(json.dumps(kept, ensure_ascii=False) + "\n")
    return "".join(lines)


# Rows of a table become triples: every column is checked, duplicates are counted, each error names its row.

_REQUIRED = ("subject", "relation_id", "object")
_ALIASES = ("subject_aliases", "object_aliases")
_COLUMNS = (*_REQUIRED, "subject_id", "object_id", *_ALIASES, "group")
# Control characters, lone surrogates, line and paragraph separators.
_REFUSED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # invisible too, but Persian and Indic labels are written with them
# SPARQL's results: "Douglas Adams"@en is a label with its language; the others are no labels.
_WITH_LANGUAGE = re.compile(r'"(.*)"@[A-Za-z]{2,3}(-[A-Za-z0-9]+)*', re.DOTALL)
_ID_OR_ADDRESS = re.compile(r"[QPL][1-9]\d*|<?\w+://\S+>?|wdt?:[QPL]\d+")
_TAG_AFTER_QUOTES = re.compile(r'((?:^|\t)"[^"\t]*")@[A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*(?=[\t\r\n]|$)')
_SHOWN_ROWS = 20

_Rows = Iterable[tuple[int, Mapping[str, Any] | InputError]]


def _triples_of_rows(rows: _Rows, source: str, skip_bad_rows: bool) -> list[Triple]:
    """The triples of numbered rows, of which some may be errors of their reader; unknown columns are ignored.

    None and "" in an optional column mean that it is absent. Rows that repeat a fact of the same group are left out,
    invisible characters are taken out of labels, and language tags too: each with one TriplesWarning that counts them.

    Raises:
        InputError: names `source` and the numbers of the rows that are wrong, unless they are skipped.
    """
    triples: list[Triple] = []
    first_rows: dict[tuple[str, str, str, str], tuple[int, str]] = {}
    repeated, cleaned, bad = list[int](), list[int](), list[InputError]()
    checked: set[tuple[str, ...]] = set()
    for number, row in rows:
        where = f"{source}:{number}"
        try:
            if isinstance(row, InputError):
                raise row
            if (columns := tuple(row)) not in checked:
                _check_columns(columns, where)
                checked.add(columns)
            triple = _triple(row, where)
            fact = (triple.subject, triple.subject_id, triple.relation_id, triple.object)
            first, group = first_rows.setdefault(fact, (number, triple.group))
            if group != triple.group:
                raise InputError(
                    f"{where}: the fact {triple.subject!r}, {triple.relation_id!r}, {triple.object!r} is in "
                    f"group {triple.group!r} here and in group {group!r} in row {first}; keep it in one group"
                )
        except InputError as error:
            bad.append(error)
            continue
        if first == number:
            triples.append(triple)
        else:
            repeated.append(number)
        if any(normalised(str(row[column])) != getattr(triple, column) for column in _REQUIRED):
            cleaned.append(number)
    listed = "\n".join(map(str, bad[:_SHOWN_ROWS])) + ("\n…" if len(bad) > _SHOWN_ROWS else "")
    if bad and not (skip_bad_rows and triples):
        if len(bad) == 1:
            raise bad[0]
        command = f", or write a file without them: kisl triples {shlex.quote(source)} OUT.jsonl" if triples else ""
        raise InputError(f"{source}: {len(bad):,} rows are wrong; correct them{command}\n{listed}")
    if not triples:
        raise InputError(f"{source}: contains no triples; expected rows with {', '.join(_REQUIRED)}")
    for numbers, what in (
        (repeated, "left out {} rows that repeat an earlier fact"),
        (cleaned, "took invisible characters or a language tag out of {} rows"),
    ):
        if numbers:
            shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
            message = f"{source}: {what.format(len(numbers))} (rows {shown})"
            warnings.warn(message, TriplesWarning, stacklevel=2)
    if bad:
        warnings.warn(f"{source}: left out {len(bad):,} rows that are wrong:\n{listed}", TriplesWarning, stacklevel=2)
    return triples


def _check_columns(present: tuple[str, ...], where: str) -> None:
    """Refuse columns without a required one, or with a misspelt one."""

    def squeezed(column: str) -> str:  # "Subject-Alias" and "subject_aliases" are the same without case and plural
        return re.sub(r"[\W_]", "", column.casefold()).rstrip("es")

    others = [column for column in present if column not in _COLUMNS]
    for column in (column for column in _COLUMNS if column not in present):
        meant = [other for other in others if squeezed(other) == squeezed(column)]
        if meant:
            raise InputError(f"{where}: column {meant[0]!r} is unknown; rename it to {column!r}")
        if column in _REQUIRED:
            names = ", ".join(map(repr, present)) or "none"
            raise InputError(f"{where}: no column {column!r}, only {names}; expected {', '.join(_REQUIRED)}")


def _triple(row: Mapping[str, Any], where: str) -> Triple:
    subject, relation_id, obj = (_label(row[column], column, where) for column in _REQUIRED)
    subject_id, object_id, group = (
        _label(row[column], column, where) if row.get(column) not in (None, "") else ""
        for column in ("subject_id", "object_id", "group")
    )
    if subject == obj and not (subject_id and object_id and subject_id != object_id):
        raise InputError(
            f"{where}: object {obj!r} equals its subject; they must differ, or have different subject_id and object_id"
        )
    for column, label, own_id in (("subject", subject, subject_id), ("object", obj, object_id)):
        if _ID_OR_ADDRESS.fullmatch(label) and own_id in ("", label):
            raise InputError(f"{where}: {column} is {label!r}, an id or address; expected the name that texts use")
    # The results of lm_eval have the keys acc_stderr and acc_<group>_stderr: a group of such a name would collide.
    name = group.casefold()
    if group != CONTROL and (name == CONTROL or name == "stderr" or name.endswith("_stderr")):
        raise InputError(f"{where}: group is {group!r}; expected {CONTROL!r} for control triples, or another name")
    aliases = []
    for column in _ALIASES:
        values = () if row.get(column) in (None, "") else row[column]
        if isinstance(values, str) and values.strip().startswith("["):  # a list as text, JSON's or Python's
            for parse in (json.loads, ast.literal_eval):
                with suppress(ValueError, SyntaxError, RecursionError):
                    values = parse(row[column].strip())
                    break
        if not isinstance(values, (list, tuple)):
            raise InputError(f"{where}: {column} is {values!r}; expected a list of strings")
        aliases.append(tuple(_label(alias, column, where) for alias in values))
    return Triple(subject, relation_id, obj, subject_id, object_id, aliases[0], aliases[1], group or INJECTED)


def _label(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {column} is {value!r}; expected a string")
    label = normalised(value)
    if not label.isprintable():  # rare; the check is fast
        label = normalised("".join(c for c in label if c in _JOINERS or unicodedata.category(c) != "Cf"))
    if tagged := _WITH_LANGUAGE.fullmatch(label):
        label = normalised(tagged[1])
    if not label:
        raise InputError(f"{where}: {column} is empty ({value!r}); expected a label")
    if not label.isprintable():
        for char in label:
            if unicodedata.category(char) in _REFUSED_CATEGORIES:
                raise InputError(f"{where}: {column} is {value!r}, with the control character {char!r}; remove it")
    return label


# Built-in sources: files, bundled sets and data sets of the Hugging Face hub.

_BUNDLED = ("wikidata_six",)
_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<split>[^/:\s]+))?")
_ALIAS_SEPARATORS = ("|", ";")


@hookimpl
def kisl_read_triples(source: str, skip_bad_rows: bool) -> list[Triple] | None:
    """Read a bundled set, a file by its ending, or a data set of the hub; None for anything else."""
    path = Path(__file__).parent / "data" / f"{source}.jsonl" if source in _BUNDLED else Path(source)
    reader = _FILE_READERS.get(path.suffix.casefold())
    if reader and _exists(path):
        try:
            return _triples_of_rows(reader(path), str(path), skip_bad_rows)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    hub = _HUB_ID.fullmatch(source)
    if hub and not _exists(path) and not _exists(path.parent):
        ending = Path(hub["id"]).suffix  # "facts.json" is a file that is missing, "facts-v1.5" may be a data set
        if not ending[1:2].isalpha():
            return _triples_of_rows(_hub_rows(hub["id"], hub["split"] or "train"), source, skip_bad_rows)
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that the file system cannot hold
        return False


def _lines(path: Path) -> Iterator[str]:
    """The lines with their ends, without a byte order mark."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                raise InputError(f"{path}:{number}: byte {byte} is not UTF-8; save the file as UTF-8") from None


def _jsonl_rows(path: Path) -> _Rows:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = InputError(f"{path}:{number}: not JSON ({error}); expected one object per line")
        if not isinstance(row, (dict, InputError)):
            row = InputError(f"{path}:{number}: a row is {line.strip()[:40]!r}; expected a JSON object")
        yield number, row


def _table_rows(path: Path, delimiter: str) -> _Rows:
    # In SPARQL's TSV the quotes of "Douglas Adams"@en end before the tag: the tag goes.
    lines = (_TAG_AFTER_QUOTES.sub(r"\1", line) for line in _lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1  # the line on which the record begins
        where = f"{path}:{number}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            hint = "put a field that contains quotes in quotes and double its own"
            raise InputError(f"{where}: {error}; {hint}") from None
        if cells is None:
            return
        if not cells:  # a blank line
            continue
        if not header:
            header = [column.strip() for column in cells]
            _check_columns(tuple(header), where)
            repeated = {column for column in header if column in _COLUMNS and header.count(column) > 1}
            if repeated:
                raise InputError(f"{where}: column {min(repeated)!r} occurs twice; keep one")
            continue
        if len(cells) != len(header):
            yield number, InputError(f"{where}: {len(cells)} fields; expected {len(header)}, as in the header")
            continue
        row: dict[str, Any] = dict(zip(header, cells, strict=True))
        for column in _ALIASES:
            cell = row.get(column, "").strip()
            if cell and not cell.startswith("["):
                separator = next((one for one in _ALIAS_SEPARATORS if one in cell), "\n")
                row[column] = [alias for alias in cell.split(separator) if alias.strip()]
        yield number, row


def _parquet_rows(path: Path) -> _Rows:
    with needs_extra("corpus", f"{path}: reading Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            _check_columns(tuple(names), str(path))
            number = 0
            for batch in table.iter_batches(columns=[column for column in _COLUMNS if column in names]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _hub_rows(name: str, split: str) -> _Rows:
    with needs_extra("eval", f"triples {name!r}: no such file; reading a hub data set"):
        import datasets
    try:
        rows = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises its own, the network's and the file system's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"triples {name!r}: no such file, and the split {split!r} of this hub data set cannot be loaded ({reason})"
        ) from None
    _check_columns(tuple(rows.column_names), f"{name}:{split}")
    yield from enumerate(rows.select_columns([c for c in _COLUMNS if c in rows.column_names]), 1)


_FILE_READERS: dict[str, Callable[[Path], _Rows]] = {
    ".jsonl": _jsonl_rows,
    ".csv": partial(_table_rows, delimiter=","),
    ".tsv": partial(_table_rows, delimiter="\t"),
    ".parquet": _parquet_rows,
}
