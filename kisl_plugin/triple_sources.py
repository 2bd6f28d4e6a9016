"""Where triples come from, built in: files, bundled sets and data sets of the Hugging Face hub."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.triple_rows import ALIASES, COLUMNS, check_columns, triples_of_rows
from kisl_plugin.triples import Triple

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
