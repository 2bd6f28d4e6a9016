"""The columns of a CSV that say what a run card says."""

from collections.abc import Mapping
from typing import Any

from kisl_plugin.fit.reading.checks import TOO_LARGE
from kisl_plugin.fit.reading.csv_rows import Row

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
