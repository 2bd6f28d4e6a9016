"""The `kisl` section of a GPT-NeoX YAML, checked before anything starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.triples import CONTROL


@dataclass(frozen=True, kw_only=True)
class InjectionSettings:
    """What is injected, how often and where. See DESIGN's `kisl` section for the meaning of each key."""

    triples: str
    frequency: int | Mapping[str, int]
    form: str = "statement"
    template: int | tuple[int, ...] = 0
    spacing: str = "shuffled"
    seed: int = 1234
    window: tuple[float, float] = (0.0, 1.0)
    max_fraction: float = 0.95

    @property
    def templates(self) -> tuple[int, ...]:
        """The templates as a list, one or more."""
        return (self.template,) if isinstance(self.template, int) else self.template


def read_settings(section: Any, where: str, default_seed: int) -> InjectionSettings:
    """Check a `kisl` section. `where` names its file; `default_seed` is the run's own seed.

    Raises:
        InputError: an unknown or missing key, a wrong type or a value out of range.
    """
    if not isinstance(section, Mapping):
        raise InputError(f"{where}: kisl is {section!r}; expected a section with triples and frequency")
    _refuse_unknown(section, where)
    for key in ("triples", "frequency"):
        if key not in section:
            raise InputError(f"{where}: kisl.{key} is missing; give {_EXPECTED[key]}")
    values = {"seed": default_seed, **section}
    for key, value in values.items():
        if not _CHECKS[key](value):
            raise InputError(f"{where}: kisl.{key} is {value!r}; expected {_EXPECTED[key]}")
    for key in ("window", "template"):
        if isinstance(values.get(key), list):
            values[key] = tuple(values[key])
    return InjectionSettings(**values)


def _refuse_unknown(section: Mapping[Any, Any], where: str) -> None:
    known = [f.name for f in fields(InjectionSettings)]
    for key in section:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise InputError(f"{where}: kisl.{key} is unknown; {hint}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_frequency(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(g, str) and g != CONTROL and _whole(f) for g, f in value.items())
    return _whole(value)


def _is_template(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_whole, value)) and len(set(value)) == len(value)
    return _whole(value)


def _is_window(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(map(_number, value))
    return pair and 0 <= value[0] < value[1] <= 1


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_share(value: Any) -> bool:
    return _number(value) and 0 < value <= 1


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "triples": _is_name,
    "frequency": _is_frequency,
    "form": _is_name,
    "template": _is_template,
    "spacing": _is_name,
    "seed": _whole,
    "window": _is_window,
    "max_fraction": _is_share,
}
_EXPECTED = {
    "triples": "a file of triples, a bundled name such as wikidata_six, or a hub data set id",
    "frequency": "a whole number, or a mapping from group to whole number (the group control is never injected)",
    "form": "statement, question, or a form that an installed plugin adds",
    "template": "a template's index (0 is the first), or a list of different indices",
    "spacing": "shuffled, even, or a spacing that an installed plugin adds",
    "seed": "a whole number",
    "window": "[from, to] with 0 <= from < to <= 1",
    "max_fraction": "a number above 0, at most 1",
}
