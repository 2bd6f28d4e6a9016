"""Reads GPT-NeoX YAMLs for the embedded engine: what it can honour is kept, what it cannot is refused by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.local.checks import Given, check_relations, check_values, is_number
from kisl_plugin.local.keys import FIXED, HONOURED, KNOWN, NEEDED, WITHOUT_EFFECT
from kisl_plugin.local.sections import (
    NOT_HONOURED,
    check_attention,
    check_extra_args,
    read_optimizer,
    read_precision,
)
from kisl_plugin.yamls import read_yamls


@dataclass(frozen=True)
class Config:
    """One run's settings: GPT-NeoX's keys with GPT-NeoX's defaults. `where` names the files in errors."""

    values: Mapping[str, Any]
    where: str
    texts: Mapping[str, str] = field(default_factory=dict)
    without_effect: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def batch(self) -> int:
        """Rows a training step."""
        return int(self["train_micro_batch_size_per_gpu"] * self["gradient_accumulation_steps"])

    @property
    def samples(self) -> int:
        """S = train_iters × train_batch_size."""
        return int(self["train_iters"] * self.batch)

    @property
    def precision(self) -> str:
        """Either fp32 or bfloat16."""
        return str(self["precision"])


def read_config(paths: Sequence[Path]) -> Config:
    """Merge YAMLs as GPT-NeoX does (a key may stand in one of them only) and check every key.

    Raises:
        InputError: names the file and the key.
    """
    yamls = read_yamls(paths)
    given = Given(yamls.values, yamls.files, yamls.where)
    _check_keys(given)
    values = {key: _typed(key, given) for key in HONOURED}
    values["precision"] = read_precision(given)
    check_values(values, given)
    _check_batch(values, given)
    values["optimizer"] = read_optimizer(given)
    check_relations(values, given)
    check_attention(given, values["num_layers"])
    extra = check_extra_args(given, values)
    passed = given.values.keys() & (WITHOUT_EFFECT | {"attention_config", "sparsity_config"})
    return Config(values, given.where, yamls.texts, (*sorted([*passed, *extra]),))


def _check_keys(given: Given) -> None:
    for key in given.values:
        if key not in KNOWN:
            raise InputError(f"{given.file_of(key)}: {key} {_what_of_unknown(key)}")
    for key, (default, allowed) in FIXED.items():
        value = given.values.get(key, default)
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            said = f"is {value!r}" if key in given.values else f"is not given, which means {default!r} to GPT-NeoX"
            raise InputError(
                f"{given.file_of(key)}: {key} {said}; "
                f"the local engine trains Llama models on one corpus and needs {allowed[0]!r}"
            )


def _what_of_unknown(key: str) -> str:
    near = get_close_matches(key, sorted(KNOWN), n=1, cutoff=0.8)
    return f"is unknown to the local engine; did you mean {near[0]}?" if near else NOT_HONOURED


def _typed(key: str, given: Given) -> Any:
    default, kinds = HONOURED[key]
    value = given.values.get(key)
    if value is None:
        if key in NEEDED:
            raise InputError(f"{given.where}: {key} is missing")
        return default
    if float in kinds:
        if not is_number(value):
            raise given.wrong(key, value, "a finite number")
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise given.wrong(key, value, kinds[0].__name__)
    return value


def _check_batch(values: dict[str, Any], given: Given) -> None:
    """Fill in the batch as GPT-NeoX does for one device.

    There gradient_accumulation_steps is 1 unless given, and follows from the other two where it is given as null.
    """
    total, micro, steps = (
        values[k] for k in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    )
    if total is None and micro is None:
        raise InputError(f"{given.where}: train_batch_size or train_micro_batch_size_per_gpu is missing")
    if given.values.get("gradient_accumulation_steps", 1) is None and total is not None and micro is not None:
        steps = values["gradient_accumulation_steps"] = max(1, total // micro)
    micro = total // steps if micro is None else micro
    total = micro * steps if total is None else total
    if micro < 1 or total != micro * steps:
        raise InputError(
            f"{given.where}: train_batch_size {total} is not train_micro_batch_size_per_gpu {micro} × "
            f"gradient_accumulation_steps {steps} (one device)"
        )
    values["train_batch_size"], values["train_micro_batch_size_per_gpu"] = total, micro
