"""The run card `kisl.json`: the record of a run, written beside every checkpoint and copied into every result."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, is_whole
from kisl_plugin.files import sha256, write_atomically

__all__ = [
    "CARD_NAME",
    "DECIDES_THE_SCHEDULE",
    "TRIPLES_NAME",
    "RunCard",
    "check_resume",
    "describe_optimizer",
    "read_run_card",
    "write_run_card",
]

_SCHEMA = 1
CARD_NAME = "kisl.json"
TRIPLES_NAME = "kisl_triples.jsonl"
# Keys of the card that decide which rows a run trains on. A resume must not change them.
DECIDES_THE_SCHEDULE = tuple(
    "seq_length samples train_iters frequency groups seed train_seed form template spacing window "
    "statements_sha256".split()
)


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """One training run at one checkpoint. `tokens` is D so far (samples so far × seq_length).

    Exactly one of `frequency` (of every injected triple) and `groups` ({name: {"frequency", "count"}}) is set. `seed`
    is the injection's, `train_seed` that of initialisation and row order. `data` are the SHA-256 of the background
    corpus and of the tokenizer, `optimizer` its name, learning rate and schedule, and the batch in samples: runs that
    differ in them, or in the shape in `model`, are different experiments. `run_id` is the same after every resume.
    """

    engine: str
    model: Mapping[str, Any]
    tokens: int
    seed: int
    triples: Mapping[str, Any]
    frequency: int | None = None
    groups: Mapping[str, Mapping[str, int]] | None = None
    samples: int | None = None
    seq_length: int | None = None
    iteration: int | None = None
    train_iters: int | None = None
    form: str | None = None
    template: int | list[int] | None = None
    spacing: str | None = None
    window: list[float] | None = None
    injected_tokens: int | None = None
    injected_fraction: float | None = None
    statements_sha256: str | None = None
    data: Mapping[str, str] | None = None
    optimizer: Mapping[str, Any] | None = None
    run_id: str | None = None
    parent: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    train_seed: int | None = None
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def to_dict(self) -> dict[str, Any]:
        """The card as a JSON object; fields that are None are left out."""
        kept = {key: value for key, value in asdict(self).items() if value is not None}
        return {"schema": _SCHEMA, **kept}

    @classmethod
    def from_dict(cls, data: Any, where: str) -> "RunCard":
        """Read a card; `where` names its file in errors. Unknown keys, which a newer version wrote, are ignored.

        Raises:
            InputError: a key that every reader needs is missing or of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"{where}: a run card is a JSON object, not {type(data).__name__}")
        if data.get("schema") != _SCHEMA:
            raise InputError(f"{where}: schema is {data.get('schema')!r}; this version reads schema {_SCHEMA}")
        kept = {f.name: data[f.name] for f in fields(cls) if data.get(f.name) is not None}
        if ("frequency" in kept) == ("groups" in kept):
            raise InputError(f"{where}: expected either frequency or groups, one of the two")
        whole = {"tokens": kept.get("tokens"), "seed": kept.get("seed"), "frequency": kept.get("frequency", 0)}
        for part, key in (("model", "params"), ("triples", "count")):
            section = kept.get(part)
            whole[f"{part}.{key}"] = section.get(key) if isinstance(section, Mapping) else None
        for key, value in whole.items():
            if not is_whole(value):
                raise InputError(f"{where}: {key} is {value!r}; expected a whole number")
        template, groups = kept.get("template", 0), kept.get("groups", {})
        if template == [] or not all(map(is_whole, template if isinstance(template, list) else [template])):
            raise InputError(f"{where}: template is {template!r}; expected an index or a list of indices")
        if not isinstance(groups, Mapping):
            raise InputError(f"{where}: groups is {groups!r}; expected an object of groups")
        for name, group in groups.items():
            if not (isinstance(group, Mapping) and all(is_whole(group.get(key)) for key in ("frequency", "count"))):
                raise InputError(f"{where}: groups.{name} is {group!r}; expected {{'frequency': F, 'count': n}}")
        return cls(**{"engine": "unknown", **kept})


def describe_optimizer(values: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The card's `optimizer` from GPT-NeoX's keys; `batch` in samples."""
    section = values["optimizer"] or {}
    keys = "weight_decay gradient_clipping warmup min_lr lr_decay_iters".split()
    described = {
        "name": str(section.get("type", "")).lower(),
        **section.get("params", {}),
        "schedule": values["lr_decay_style"],
        **{key: values[key] for key in keys},
        "batch": batch,
    }
    return {key: value for key, value in described.items() if value is not None}


def read_run_card(folder: Path) -> RunCard:
    """The card of a checkpoint or export.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = folder / CARD_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError:
        raise InputError(f"{path}: no run card; was this model trained with kisl?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    return RunCard.from_dict(data, str(path))


def _finite(number: str) -> float:
    # JSON has no NaN and no Infinity. The card is copied into results files, which other programs must be able to read.
    if not math.isfinite(float(number)):
        raise ValueError(f"contains {number}; expected a finite number")
    return float(number)


def write_run_card(folder: Path, card: RunCard, triples_jsonl: str) -> None:
    """Write `kisl.json` and `kisl_triples.jsonl`, the card last: if there is a card, its triples are complete.

    Raises:
        InputError: `triples.sha256` in the card is not that of `triples_jsonl`.
    """
    digest = sha256(triples_jsonl)
    if card.triples.get("sha256") != digest:
        raise InputError(f"{folder}: the card's triples.sha256 is not that of the triples ({digest})")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TRIPLES_NAME, triples_jsonl)
    write_atomically(folder / CARD_NAME, json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n")


def check_resume(old: RunCard, new: RunCard, where: str) -> None:
    """Refuse to resume a run whose schedule, data or optimizer would differ from those of its checkpoint.

    Raises:
        InputError: names the first key that differs, with both values.
    """
    before, now = old.to_dict(), new.to_dict()
    pairs = []
    for part in ("data", "optimizer"):
        if part in before and part in now:  # older cards have neither
            keys = sorted(before[part].keys() | now[part].keys())
            pairs += [(f"{part}.{key}", before[part].get(key), now[part].get(key)) for key in keys]
    pairs += [(key, before.get(key), now.get(key)) for key in DECIDES_THE_SCHEDULE]
    pairs.append(("triples.sha256", old.triples.get("sha256"), new.triples.get("sha256")))
    for key, was, is_now in pairs:
        if was != is_now:
            raise InputError(
                f"{where}: the checkpoint was trained with {key} = {was!r}, the configuration now gives {is_now!r}; "
                "restore the old value to resume, or set finetune: true to start a new run from these weights"
            )
