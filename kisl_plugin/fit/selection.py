"""`--select`: which run cards are meant by `tokens=307200,614400` or `data.corpus=d70d317b`.

Hidden here: how the fields of a run card are named, and when a value that a person writes is that of a card.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kisl_plugin.errors import InputError, did_you_mean
from kisl_plugin.fit.text import UNITS
from kisl_plugin.runcard import RunCard

__all__ = ["Selection", "parse_selection", "select_cards", "selection_text"]

Selection = Mapping[str, Sequence[str]]  # for each field the values that are wanted

_NUMBER = re.compile(r"([+-]?\d+(?:\.\d*)?(?:e[+-]?\d{1,3})?)\s*([KMBT]?)", re.IGNORECASE)
_FINGERPRINT, _FEWEST_DIGITS = re.compile("[0-9a-f]{12,64}"), 8
_VALUES_NAMED = 20
_UNITS = {unit: int(size) for size, unit in UNITS}


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
    number = _NUMBER.fullmatch(text)
    if number is None:
        return False
    written, unit = Decimal(number[1]), _UNITS.get(number[2].upper(), 1)
    if unit == 1:
        return value == float(written)
    # Half a unit of the last digit written on either side
    last_digit = Decimal(10) ** int(written.as_tuple().exponent)
    return abs(Decimal(value) - written * unit) * 2 <= last_digit * unit
