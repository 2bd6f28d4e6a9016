"""The GPT-NeoX keys that the embedded engine honours, and how their values must fit each other.

Defaults are GPT-NeoX's own (megatron/neox_arguments at the tested commit), so that a key which is left out means the
same to both engines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import (
    KEY_RULES,
    KEY_VALUES,
    OPTIMIZER_VALUES,
    Yamls,
    check_optimizer_values,
    check_swiglu_width,
    is_same_value,
    read_yamls,
    refuse_keys,
    unused_keys,
)
from kisl_plugin.schedule import MOST_SAMPLES

__all__ = ["LocalConfig", "read_config", "read_row_config"]


_REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "max_position_embeddings", "optimizer",
             "train_iters", "data_path", "vocab_file")  # fmt: skip
# The keys that decide what a run's rows hold, in either engine.
_ROW_KEYS = ("data_path", "vocab_file", "seq_length", "train_iters", "train_batch_size", "split", "seed", "kisl",
             "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")  # fmt: skip


@dataclass(frozen=True)
class LocalConfig:
    """A run's settings by GPT-NeoX's keys.

    Attributes:
        values: each honoured key's value, GPT-NeoX's default where the key was left out.
        where: the YAMLs, for messages.
        unused: keys that have no effect in the embedded engine.
    """

    values: Mapping[str, Any]
    where: str
    unused: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def batch(self) -> int:
        """Rows of a training step."""
        return int(self["train_micro_batch_size_per_gpu"] * self["gradient_accumulation_steps"])

    @property
    def samples(self) -> int:
        """S = train_iters × train_batch_size."""
        return int(self["train_iters"] * self.batch)


def read_config(paths: Sequence[Path]) -> LocalConfig:
    """Read the YAMLs of a run for the embedded engine.

    Every key is honoured, or refused with the reason (`neox_config.KEY_RULES`), or listed in `unused`.

    Raises:
        InputError: names the file, the key, its value and what was expected.
    """
    yamls = read_yamls(paths)
    refuse_keys(yamls, "local")
    unused = unused_keys(yamls, [*KEY_VALUES, "deepspeed_extra_args"])
    values = {key: _read(yamls, key) for key in KEY_VALUES}
    # Either fp32 or bfloat16, from precision and bf16 as GPT-NeoX derives it (calculate_derived).
    enabled = (values["bf16"] or {}).get("enabled", False)
    if not isinstance(enabled, bool):
        raise yamls.wrong_value("bf16.enabled", enabled, "true or false")
    values["precision"] = values["precision"] or ("bfloat16" if enabled else "fp32")
    if values["bf16"] and enabled != (values["precision"] == "bfloat16"):
        raise yamls.wrong_value("bf16.enabled", enabled, f"{not enabled}, since precision is {values['precision']!r}")
    values["optimizer"] = _optimizer(yamls)
    _fill_batch(yamls, values)
    heads, head_size = values["num_attention_heads"], values["hidden_size"] // values["num_attention_heads"]
    lr, samples = values["optimizer"]["params"]["lr"], values["train_iters"] * values["train_batch_size"]
    for key, fits, expected in (
        ("train_iters", samples <= MOST_SAMPLES,
         f"at most {MOST_SAMPLES} samples in all, with train_batch_size {values['train_batch_size']}"),
        ("max_position_embeddings", values["max_position_embeddings"] >= values["seq_length"],
         f"seq_length, {values['seq_length']}, or more"),
        ("hidden_size", values["hidden_size"] % heads == 0, f"a multiple of num_attention_heads, {heads}"),
        ("hidden_size", head_size % 2 == 0,
         f"an even size for each of num_attention_heads, {heads}: rotary embeddings turn pairs"),
        ("num_kv_heads", heads % (values["num_kv_heads"] or heads) == 0, f"a divisor of num_attention_heads, {heads}"),
        ("min_lr", values["min_lr"] <= lr, f"at most optimizer.params.lr, {lr}"),
    ):  # fmt: skip
        if not fits:
            raise yamls.wrong_value(key, values[key], expected)
    check_swiglu_width(yamls)
    return LocalConfig(values, yamls.where, (*unused, *_unused_extra_args(yamls)))


def read_row_config(paths: Sequence[Path]) -> LocalConfig:
    """Read the keys that decide what the rows of a run hold, whichever engine trains it; the others are not checked.

    `train_batch_size` stays None where it is not given: then `batch` is that of one device.

    Raises:
        InputError: a key is missing or wrong, or the rows are such as only GPT-NeoX lays out.
    """
    yamls = read_yamls(paths)
    refuse_keys(yamls, "rows")
    values = {key: _read(yamls, key) for key in _ROW_KEYS}
    if values["train_batch_size"] is not None:
        # How a batch is divided among GPUs and micro batches changes no row.
        values |= {"train_micro_batch_size_per_gpu": values["train_batch_size"], "gradient_accumulation_steps": 1}
    total = values["train_batch_size"]
    _fill_batch(yamls, values)
    return LocalConfig({**values, "train_batch_size": total, "eval_interval": 1, "eval_iters": 0}, yamls.where)


def _read(yamls: Yamls, key: str) -> Any:
    """A key's value, checked and converted; null means the default, as in GPT-NeoX."""
    setting, value = KEY_VALUES[key], yamls.values.get(key)
    if value is None and key in _REQUIRED:
        raise InputError(f"{yamls.where}: {key} is missing; expected {setting.expected}")
    if value is None:
        return setting.default
    if not setting.accepts(value):
        raise yamls.wrong_value(key, value, setting.expected)
    return setting.convert(value)


def _optimizer(yamls: Yamls) -> dict[str, Any]:
    """Adam with lr, and betas and eps where they are given."""
    section = yamls.values["optimizer"]
    if str(section.get("type", "")).lower() != "adam":
        raise yamls.wrong_value("optimizer.type", section.get("type"), "Adam, the optimizer of the local engine")
    params = section.get("params")
    if not isinstance(params, Mapping) or "lr" not in params:
        raise InputError(f"{yamls.file_of('optimizer')}: optimizer.params.lr is missing")
    for key in params:
        if key not in OPTIMIZER_VALUES:
            expected = f"expected {', '.join(OPTIMIZER_VALUES)}"
            raise InputError(f"{yamls.file_of('optimizer')}: optimizer.params.{key} is not supported here; {expected}")
    check_optimizer_values(yamls)
    return {**section, "params": {key: OPTIMIZER_VALUES[key].convert(value) for key, value in params.items()}}


def _unused_extra_args(yamls: Yamls) -> list[str]:
    """The keys of deepspeed_extra_args without effect, dotted.

    DeepSpeed prefers these keys to those of the YAML itself; where they matter, the two must say the same.
    """
    extra = yamls.values.get("deepspeed_extra_args")
    if extra is not None and not isinstance(extra, Mapping):
        raise yamls.wrong_value("deepspeed_extra_args", extra, KEY_VALUES["bf16"].expected)
    defaults = {rule.key: rule.default for rule in KEY_RULES} | {key: s.default for key, s in KEY_VALUES.items()}
    unused = []
    for key, value in (extra or {}).items():
        if key not in defaults:
            unused.append(f"deepspeed_extra_args.{key}")
        elif not is_same_value(value, own := yamls.values.get(key, defaults[key])):
            raise yamls.wrong_value(f"deepspeed_extra_args.{key}", value, f"the value of {key} itself, {own!r}")
    return unused


def _fill_batch(yamls: Yamls, values: dict[str, Any]) -> None:
    """Complete the three keys of the batch as GPT-NeoX does for one device.

    There gradient_accumulation_steps is 1 unless given, and follows from the other two where it is given as null.
    """
    total, micro, steps = (
        values[key] for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    )
    if total is None and micro is None:
        raise InputError(f"{yamls.where}: train_batch_size or train_micro_batch_size_per_gpu is missing")
    if yamls.values.get("gradient_accumulation_steps", 1) is None and total is not None and micro is not None:
        steps = max(1, total // micro)
    micro = total // steps if micro is None else micro
    total = micro * steps if total is None else total
    if micro < 1 or total != micro * steps:
        raise InputError(
            f"{yamls.where}: train_batch_size is {total}; expected train_micro_batch_size_per_gpu {micro} × "
            f"gradient_accumulation_steps {steps} (one device)"
        )
    values.update(train_batch_size=total, train_micro_batch_size_per_gpu=micro, gradient_accumulation_steps=steps)
