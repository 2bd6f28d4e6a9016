"""Triples: the facts that are injected and asked."""

import csv
import difflib
import json
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl

# Labels as people write them: one spelling to store, and a folded one to compare.

NO_BREAK_SPACES = str.maketrans({"\u00a0": " ", "\u2007": " ", "\u202f": " "})
# Letters that Unicode does not take apart into a base letter and a mark.
_BARRED = str.maketrans("øłđı", "oldi")
_JOINING = ".'’"


def normalised(label: str) -> str:
    """The label in Unicode NFC, with plain spaces for no-break ones, without spaces at the ends."""
    if label.isascii():
        return label.strip()
    return unicodedata.normalize("NFC", label.translate(NO_BREAK_SPACES)).strip()


def folded_words(label: str) -> tuple[str, ...]:
    """The label's words without case, diacritics, punctuation and a leading "the": U.S.A. → usa."""
    bare = unicodedata.normalize("NFKD", label.casefold()).translate(_BARRED)
    kept = (char if _in_a_word(char) else " " for char in bare if char not in _JOINING)
    words = "".join(char for char in kept if not unicodedata.combining(char)).split()
    return tuple(words[1:] if len(words) > 1 and words[0] == "the" else words)


def _in_a_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMNS"


# Triples: the facts that are injected and asked.

CONTROL = "control"
INJECTED = "injected"


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
    """Rows of a triples file that were left out, counted."""


def read_triples(source: str | Path) -> list[Triple]:
    """The triples of a file (JSONL, CSV, TSV, Parquet), a bundled name or a hub data set id.

    Raises:
        InputError: no plugin knows the source, or a row is wrong; the error names the file and the row.
    """
    from kisl_plugin.hookspecs import manager

    found: list[Triple] | None = manager().hook.kisl_read_triples(source=str(source))
    if found is None:
        raise not_found(str(source))
    return found


def triples_to_jsonl(triples: Iterable[Triple]) -> str:
    """The triples as JSON lines, which `read_triples` reads back to equal ones; keys in the order of the fields."""
    return "".join(json.dumps(_row(triple), ensure_ascii=False) + "\n" for triple in triples)


def _row(triple: Triple) -> dict[str, str | list[str]]:
    ids = {"subject_id": triple.subject_id, "object_id": triple.object_id}
    aliases = {"subject_aliases": list(triple.subject_aliases), "object_aliases": list(triple.object_aliases)}
    optional: dict[str, str | list[str]] = {**ids, **aliases}
    return {
        "subject": triple.subject,
        "relation_id": triple.relation_id,
        "object": triple.object,
        **{key: value for key, value in optional.items() if value},
        "group": triple.group,
    }


# Rows of a table to triples: every column checked, duplicates counted, each error with its row.

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


# Where triples come from, built in: files, bundled sets and data sets of the Hugging Face hub.

DATA = Path(__file__).parent / "data"
BUNDLED = ("wikidata_six",)
HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<split>[^/:\s]+))?")
ALIAS_SEPARATOR = "|"

Rows = Iterator[tuple[int, Mapping[str, Any]]]


@hookimpl
def kisl_read_triples(source: str) -> list[Triple] | None:
    """Read a bundled set, a file by its ending, or a data set of the hub; None for anything else."""
    path = DATA / f"{source}.jsonl" if source in BUNDLED else Path(source)
    reader = _FILE_READERS.get(path.suffix.casefold())
    if reader and _exists(path):
        try:
            return triples_of_rows(reader(path), str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    hub = HUB_ID.fullmatch(source)
    if hub and not _exists(path) and not _has_ending(hub["id"]) and not _exists(path.parent):
        return triples_of_rows(_hub_rows(hub["id"], hub["split"] or "train"), source)
    return None


def not_found(source: str) -> InputError:
    """The error for a source that no plugin knows: what was tried, and what there is."""
    endings = ", ".join(_FILE_READERS)
    file = f"a file, but its ending is not {endings}" if _exists(Path(source)) else f"no such file ({endings})"
    return InputError(
        f"triples {source!r}: {file}; no bundled name ({', '.join(BUNDLED)}); no hub data set (owner/name or "
        "owner/name:split); and no plugin's hook kisl_read_triples knows it"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that the file system cannot hold
        return False


def _has_ending(name: str) -> bool:
    # "facts.json" has one, "facts-v1.5" does not.
    return Path(name).suffix[1:2].isalpha()


def _lines(path: Path) -> Iterator[str]:
    """The lines with their ends, a byte order mark taken off."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                raise InputError(f"{path}:{number}: byte {byte} is not UTF-8; save the file as UTF-8") from None


def _jsonl_rows(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); expected one object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: a row is {line.strip()[:40]!r}; expected a JSON object")
        yield number, row


def _csv_rows(path: Path) -> Rows:
    return _table_rows(path, ",")


def _tsv_rows(path: Path) -> Rows:
    return _table_rows(path, "\t")


def _table_rows(path: Path, delimiter: str) -> Rows:
    records = _records(path, delimiter)
    header_row, header = next(records, (1, []))
    header = [column.strip() for column in header]
    where = f"{path}:{header_row}"
    if header:
        check_columns(tuple(header), where)
    twice = {column for column in header if column in COLUMNS and header.count(column) > 1}
    if twice:
        raise InputError(f"{where}: column {min(twice)!r} is there twice; keep one")
    for number, cells in records:
        if len(cells) != len(header):
            raise InputError(f"{path}:{number}: {len(cells)} fields; expected {len(header)}, as in the header")
        row: dict[str, Any] = dict(zip(header, cells, strict=True))
        for column in ALIASES:
            if column in row:
                row[column] = [alias for alias in row[column].split(ALIAS_SEPARATOR) if alias.strip()]
        yield number, row


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the number of the line on which it begins."""
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}:{begins}: {error}; a field with quotes is written in quotes, with its own doubled"
            ) from None
        if cells is None:
            return
        if cells:
            yield begins, cells


def _parquet_rows(path: Path) -> Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'kisl-plugin[corpus]'") from None
    try:
        with pq.ParquetFile(path) as table:
            check_columns(tuple(table.schema_arrow.names), str(path))
            known = [column for column in COLUMNS if column in table.schema_arrow.names]
            number = 0
            for batch in table.iter_batches(columns=known):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _hub_rows(name: str, split: str) -> Rows:
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"triples {name!r}: no such file, and the hub needs the datasets library; pip install 'kisl-plugin[eval]'"
        ) from None
    try:
        rows = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises its own, the network's and the file system's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"triples {name!r}: no such file, and as a hub data set its split {split!r} cannot be loaded ({reason})"
        ) from None
    check_columns(tuple(rows.column_names), f"{name}:{split}")
    yield from enumerate(rows.select_columns([c for c in COLUMNS if c in rows.column_names]), 1)


_FILE_READERS = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".tsv": _tsv_rows, ".parquet": _parquet_rows}
