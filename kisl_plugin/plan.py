"""From the `kisl` section of a YAML to a run's statements and schedule, the same for every engine."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError, did_you_mean, is_number, is_whole
from kisl_plugin.files import sha256
from kisl_plugin.options import choices_of
from kisl_plugin.schedule import Schedule
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import verbalizer_of

__all__ = [
    "Encode",
    "InjectionPlan",
    "InjectionSettings",
    "describe_passes",
    "make_plan",
    "read_settings",
]

_FEW_PASSES = 4  # from there on repeated text counts for less (Muennighoff et al., 2023, arXiv 2305.16264)
Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class InjectionSettings:
    """The `kisl` section: what is injected, how often and where.

    | key | default | meaning |
    | --- | --- | --- |
    | `triples` | required | a file (from the working directory), a bundled name, or a hub data set id |
    | `frequency` | required | F: how often each triple is stated in the whole run; or {group: F} |
    | `form` | statement | how a triple becomes text: statement, question, or a plugin's |
    | `template` | 0 | the index of the wording, or a list of indices among which F is shared |
    | `spacing` | shuffled | how exposures are spread: shuffled, even, or a plugin's |
    | `seed` | the run's seed | decides which samples hold which statements, and where in them |
    | `window` | [0.0, 1.0] | the part of the run that is injected, as shares of its samples |
    | `max_fraction` | 0.95 | statements may take at most this share of the run's tokens |

    Triples of the group `control` are never injected. `frequency: 0` trains on the rows of a run without the section
    and writes a run card: the baseline.
    """

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
        """The templates as a tuple of one or more."""
        return (self.template,) if isinstance(self.template, int) else self.template


def read_settings(section: Any, where: str, default_seed: int) -> InjectionSettings:
    """Check a `kisl` section before anything starts. `where` names its file; `default_seed` is the run's own seed.

    Raises:
        InputError: an unknown or missing key, a wrong type or a value out of range.
    """
    if not isinstance(section, Mapping):
        raise InputError(f"{where}: kisl is {section!r}; expected a section with triples and frequency")
    for key in section:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS, f"expected one of {', '.join(_KEYS)}")
            raise InputError(f"{where}: kisl.{key} is unknown; {hint}")
    for key in ("triples", "frequency"):
        if key not in section:
            raise InputError(f"{where}: kisl.{key} is missing; expected {_KEYS[key][1]}")
    values = {"seed": default_seed, **section}
    for key, value in values.items():
        is_valid, expected = _KEYS[key]
        if not is_valid(value):
            raise InputError(f"{where}: kisl.{key} is {value!r}; expected {expected}")
    for key in ("window", "template"):
        if isinstance(values.get(key), list):
            values[key] = tuple(values[key])
    if values["triples"].startswith("~"):
        values["triples"] = str(Path(values["triples"]).expanduser())
    return InjectionSettings(**values)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_frequency(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(g, str) and g != CONTROL and is_whole(f) for g, f in value.items())
    return is_whole(value)


def _is_template(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(is_whole, value)) and len(set(value)) == len(value)
    return is_whole(value)


def _is_window(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
    return pair and 0 <= value[0] < value[1] <= 1


# Every key: its check, and what an error says was expected.
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "triples": (_is_name, "a file of triples, a bundled name such as wikidata_six, or a hub data set id"),
    "frequency": (_is_frequency, "a whole number, or {group: whole number} (the group control is never injected)"),
    "form": (_is_name, "statement, question, or a form that an installed plugin adds"),
    "template": (_is_template, "a template's index (0 is the first), or a list of different indices"),
    "spacing": (_is_name, "shuffled, even, or a spacing that an installed plugin adds"),
    "seed": (is_whole, "a whole number"),
    "window": (_is_window, "[from, to] with 0 <= from < to <= 1"),
    "max_fraction": (lambda value: is_number(value) and 0 < value <= 1, "a number above 0, at most 1"),
}


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

    def describe(self) -> str:
        """The injection in one line."""
        card = self.card_fields()
        return (
            f"{self.schedule.exposures:,} exposures of {card['triples']['count']:,} triples "
            f"(F = {card.get('frequency', 'of its group')}) in {self.schedule.samples:,} samples, "
            f"{self.injected_fraction:.2%} of the tokens; {card['triples']['control']:,} control triples"
        )

    def card_fields(self) -> dict[str, Any]:
        """The part of the run card that records what was injected."""
        settings = self.settings
        frequencies = _group_frequencies(self.triples, settings)
        counts = Counter(triple.group for triple in self.triples)
        groups = {group: {"frequency": frequencies[group], "count": counts[group]} for group in sorted(frequencies)}
        is_one = len(set(frequencies.values())) == 1
        template = settings.template
        return {
            **({"frequency": next(iter(frequencies.values()))} if is_one else {"groups": groups}),
            "seed": settings.seed,
            "triples": {
                "source": settings.triples,
                "count": len(self.triples) - counts[CONTROL],
                "control": counts[CONTROL],
                "sha256": sha256(triples_to_jsonl(self.triples)),
            },
            "form": settings.form,
            "template": template if isinstance(template, int) else list(template),
            "spacing": settings.spacing,
            "window": list(settings.window),
            "injected_tokens": self.injected_tokens,
            "injected_fraction": round(self.injected_fraction, 6),
            "statements_sha256": sha256("\n".join(f"{s.text}\t{s.tokens.tolist()}" for s in self.statements)),
        }


def describe_passes(background: int, tokens: int) -> str | None:
    """A warning where a run of `tokens` reads a background of so many tokens more than a few times."""
    passes = tokens / background
    if passes <= _FEW_PASSES:
        return None
    return (
        f"the background of {background:,} tokens is read {passes:,.0f} times in a run of {tokens:,}; a model that "
        "knows it by heart says little about facts: use a larger corpus, or train for fewer tokens"
    )


def make_plan(settings: InjectionSettings, encode: Encode, samples: int, seq_length: int) -> InjectionPlan:
    """Read the triples, turn them into statements and tokens, and schedule their exposures over `samples` rows.

    `encode` gives a text's tokens without special tokens. With T templates a triple's F exposures are shared among its
    T statements as evenly as whole numbers allow.

    Raises:
        InputError: bad triples or groups, statements that cannot be told apart, or more than fits.
    """
    triples = read_triples(settings.triples)
    frequencies = _group_frequencies(triples, settings)
    choices_of(triples)  # a triple that could not be asked is reported before training, not after
    statements = _make_statements(triples, frequencies, settings, encode)
    injected, tokens = sum(len(s.tokens) * s.frequency for s in statements), samples * seq_length
    if injected > settings.max_fraction * tokens:
        raise InputError(
            f"the statements take {injected:,} of the run's {tokens:,} tokens ({injected / tokens:.1%}); "
            f"kisl.max_fraction allows {settings.max_fraction:.0%}: lower the frequency or train for more tokens"
        )
    longest = max(statements, key=lambda s: len(s.tokens) if s.frequency else 0)
    if longest.frequency and len(longest.tokens) + 2 > seq_length + 1:
        text = longest.text if len(longest.text) <= 100 else f"{longest.text[:100]}…"
        raise InputError(
            f"{text!r} (of {_ids_of(longest.triple)}) has {len(longest.tokens)} tokens, and with its two separators "
            f"does not fit a row of {seq_length + 1}; leave the triple out, or use a longer seq_length"
        )
    schedule = Schedule(
        np.array([s.frequency for s in statements], dtype=np.int64),
        samples,
        settings.seed,
        settings.spacing,
        lengths=[len(s.tokens) for s in statements],
        capacity=seq_length + 1,
        window=settings.window,
    )
    if settings.spacing not in ("shuffled", "even"):  # a plugin's exposures are counted over the whole run
        name = f"spacing {settings.spacing!r} (a plugin's)"
        most, largest = max(len(schedule.triples_in(i)) for i in range(samples)), schedule.largest_row
        if most > largest:
            raise InputError(f"{name} puts {most} exposures into a sample; its largest_row is {largest}")
        counts = schedule.count_exposures()
        for k in np.flatnonzero(counts != schedule.frequencies)[:1]:
            right = f"expected {schedule.frequencies[k]}: the plugin is not exact"
            raise InputError(f"{name} gives statement {k} {counts[k]} exposures; {right}")
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


def _make_statements(
    triples: list[Triple], frequencies: Mapping[str, int], settings: InjectionSettings, encode: Encode
) -> list[Statement]:
    verbalizer, templates = verbalizer_of(settings.form), settings.templates
    refused: dict[str, list[str]] = {}  # all relations that cannot be stated, by the reason
    for relation in sorted({triple.relation_id for triple in triples}):
        try:
            count = verbalizer.count(relation)
        except InputError as error:
            refused.setdefault(str(error).removeprefix(f"relation {relation!r}: "), []).append(relation)
            continue
        if max(templates) >= count:
            raise InputError(
                f"kisl.template is {settings.template!r}; the form {settings.form!r} of relation {relation!r} has "
                f"{count} templates, numbered from 0"
            )
    if refused:
        reason, relations = next(iter(refused.items()))
        raise InputError(f"relation{'s' * (len(relations) > 1)} {', '.join(map(repr, relations))}: {reason}")
    statements: list[Statement] = []
    first_of: dict[bytes, Statement] = {}
    for k, triple in enumerate(triples):
        if triple.group == CONTROL:
            continue
        share, rest = divmod(frequencies[triple.group], len(templates))
        for place, template in enumerate(templates):
            text = verbalizer.text(triple, template)
            tokens = np.asarray(encode(text), dtype=np.int64)
            # The `rest` exposures that cannot be shared evenly go to other templates for every triple.
            frequency = share + ((place - k) % len(templates) < rest)
            statement = Statement(triple, text, tokens, frequency)
            first = first_of.setdefault(tokens.tobytes(), statement)
            if first is not statement:
                raise InputError(
                    f"two statements have the same tokens: {first.text!r} (of {_ids_of(first.triple)}) and {text!r} "
                    f"(of {_ids_of(triple)}); their exposures could not be told apart: leave one out"
                )
            statements.append(statement)
    return statements


def _ids_of(triple: Triple) -> str:
    return f"{triple.subject_id or triple.subject:.40} {triple.relation_id} {triple.object_id or triple.object:.40}"
