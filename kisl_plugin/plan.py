"""From the `kisl` section to a run's statements and schedule, the same for every engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.files import sha256
from kisl_plugin.hookspecs import Verbalizer
from kisl_plugin.options import choices_of
from kisl_plugin.schedule import Schedule
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import verbalizer_of

# The `kisl` section of a GPT-NeoX YAML, checked before anything starts.


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


# From the `kisl` section to a run's statements and schedule, the same for every engine.

Encode = Callable[[str], Sequence[int]]
BUILT_IN_SPACINGS = ("shuffled", "even")


@dataclass(frozen=True)
class Statement:
    """One wording of one triple, as it is injected."""

    triple: Triple
    text: str
    tokens: NDArray[np.int64]
    frequency: int


@dataclass(frozen=True)
class InjectionPlan:
    """What a run injects. `statements` [K] are numbered as the schedule numbers them."""

    settings: InjectionSettings
    triples: list[Triple]
    statements: list[Statement]
    schedule: Schedule
    seq_length: int

    @property
    def injected_tokens(self) -> int:
        """Statement tokens over the whole run, without separators."""
        return sum(len(s.tokens) * s.frequency for s in self.statements)

    @property
    def injected_fraction(self) -> float:
        """Statement tokens / (S · seq_length)."""
        return self.injected_tokens / (self.schedule.samples * self.seq_length)

    def card_fields(self) -> dict[str, Any]:
        """The part of the run card that says what was injected."""
        settings = self.settings
        injected = sum(triple.group != CONTROL for triple in self.triples)
        template = settings.template
        return {
            **_frequency_fields(self.triples, settings),
            "seed": settings.seed,
            "triples": {
                "source": settings.triples,
                "count": injected,
                "control": len(self.triples) - injected,
                "sha256": sha256(triples_to_jsonl(self.triples)),
            },
            "form": settings.form,
            "template": template if isinstance(template, int) else list(template),
            "spacing": settings.spacing,
            "window": list(settings.window),
            "injected_tokens": self.injected_tokens,
            "injected_fraction": round(self.injected_fraction, 6),
            "repacked_rows": self.schedule.repacked_rows or None,
            "statements_sha256": sha256("\n".join(f"{s.text}\t{s.tokens.tolist()}" for s in self.statements)),
        }


def make_plan(settings: InjectionSettings, encode: Encode, samples: int, seq_length: int) -> InjectionPlan:
    """Read the triples, put them into words and tokens, and schedule their exposures over `samples` rows.

    `encode` gives a text's tokens without special tokens. With T templates a triple's F exposures are shared out
    among its T statements as evenly as whole numbers allow.

    Raises:
        InputError: bad triples or groups, statements that cannot be told apart, or more than fits.
    """
    triples = read_triples(settings.triples)
    frequencies = _group_frequencies(triples, settings)
    choices_of(triples)  # What could not be asked is found before training, not after.
    verbalizer = verbalizer_of(settings.form)
    _refuse_missing_templates({triple.relation_id for triple in triples}, settings, verbalizer)
    statements = [
        statement
        for k, triple in enumerate(triples)
        if triple.group != CONTROL
        for statement in _statements_of(triple, k, frequencies[triple.group], settings, verbalizer, encode)
    ]
    _refuse_twins(statements)
    _refuse_excess(statements, samples * seq_length, settings.max_fraction)
    schedule = Schedule(
        np.array([s.frequency for s in statements], dtype=np.int64),
        samples,
        settings.seed,
        settings.spacing,
        lengths=[len(s.tokens) for s in statements],
        capacity=seq_length + 1,
        window=settings.window,
    )
    if settings.spacing not in BUILT_IN_SPACINGS:
        _refuse_inexact(schedule)
    return InjectionPlan(settings, triples, statements, schedule, seq_length)


def _group_frequencies(triples: list[Triple], settings: InjectionSettings) -> dict[str, int]:
    groups = {triple.group for triple in triples} - {CONTROL}
    if not groups:
        raise InputError(f"{settings.triples}: every triple is in the group control; nothing would be injected")
    if isinstance(settings.frequency, int):
        return dict.fromkeys(groups, settings.frequency)
    for group in sorted(groups ^ settings.frequency.keys()):
        what = "has no frequency" if group in groups else "has a frequency and no triples"
        raise InputError(
            f"kisl.frequency: group {group!r} {what}; the groups of {settings.triples} are {', '.join(sorted(groups))}"
        )
    return dict(settings.frequency)


def _statements_of(
    triple: Triple, k: int, frequency: int, settings: InjectionSettings, verbalizer: Verbalizer, encode: Encode
) -> list[Statement]:
    templates = settings.templates
    share, rest = divmod(frequency, len(templates))
    found = []
    for place, template in enumerate(templates):
        text = verbalizer.text(triple, template)
        tokens = np.asarray(encode(text), dtype=np.int64)
        own = share + ((place - k) % len(templates) < rest)
        found.append(Statement(triple, text, tokens, own))
    return found


def _refuse_missing_templates(relations: set[str], settings: InjectionSettings, verbalizer: Verbalizer) -> None:
    for relation in sorted(relations):
        count = verbalizer.count(relation)
        if max(settings.templates) >= count:
            raise InputError(
                f"kisl.template is {settings.template!r}; the form {settings.form!r} of relation {relation!r} has "
                f"{count} templates, numbered from 0"
            )


def _refuse_twins(statements: list[Statement]) -> None:
    seen: dict[bytes, Statement] = {}
    for statement in statements:
        first = seen.setdefault(statement.tokens.tobytes(), statement)
        if first is not statement:
            raise InputError(
                f"two statements have the same tokens: {first.text!r} (of {_name(first.triple)}) and "
                f"{statement.text!r} (of {_name(statement.triple)}); their exposures could not be told apart: "
                "leave one out"
            )


def _name(triple: Triple) -> str:
    return f"{triple.subject_id or triple.subject} {triple.relation_id} {triple.object_id or triple.object}"


def _refuse_excess(statements: list[Statement], tokens: int, max_fraction: float) -> None:
    injected = sum(len(s.tokens) * s.frequency for s in statements)
    if injected > max_fraction * tokens:
        raise InputError(
            f"the statements take {injected:,} of the run's {tokens:,} tokens ({injected / tokens:.1%}); "
            f"kisl.max_fraction allows {max_fraction:.0%}: lower the frequency or train for more tokens"
        )


def _refuse_inexact(schedule: Schedule) -> None:
    largest = max(len(schedule.triples_in(i)) for i in range(schedule.samples))
    if largest > schedule.largest_row:
        raise InputError(
            f"spacing {schedule.spacing!r} (a plugin's) puts {largest} exposures into a sample; its largest_row says "
            f"{schedule.largest_row}"
        )
    counts = schedule.count_exposures()
    wrong = np.flatnonzero(counts != schedule.frequencies)
    if len(wrong):
        k = int(wrong[0])
        raise InputError(
            f"spacing {schedule.spacing!r} (a plugin's) gives statement {k} {counts[k]} exposures; "
            f"expected {schedule.frequencies[k]}: the plugin is not exact"
        )


def _frequency_fields(triples: list[Triple], settings: InjectionSettings) -> dict[str, Any]:
    frequencies = _group_frequencies(triples, settings)
    if len(set(frequencies.values())) == 1:
        return {"frequency": next(iter(frequencies.values()))}
    counts = {group: sum(triple.group == group for triple in triples) for group in sorted(frequencies)}
    return {"groups": {group: {"frequency": frequencies[group], "count": counts[group]} for group in counts}}
