"""Reads GPT-NeoX YAMLs for the embedded engine: what it can honour is kept, what it cannot is refused by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError
from kisl_plugin.local.keys import FIXED, HONOURED, NEEDED, SWITCHED_OFF, WITHOUT_EFFECT

INIT_METHODS = ("normal", "scaled_normal", "small_init", "wang_init", "xavier_uniform", "xavier_normal")
DECAY_STYLES = ("constant", "linear", "cosine", "exponential")


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
        return "bfloat16" if (self["bf16"] or {}).get("enabled") else str(self["precision"])


def read_config(paths: Sequence[Path]) -> Config:
    """Merge YAMLs as GPT-NeoX does (a key may stand in one of them only) and check every key.

    Raises:
        InputError: names the file and the key.
    """
    found: dict[str, tuple[Any, str]] = {}
    texts = {}
    for path in paths:
        texts[path.name] = _read_text(path)
        for key, value in _parse(texts[path.name], path).items():
            name = str(key).replace("-", "_")
            if name in found:
                raise InputError(f"{path}: {name} stands in {found[name][1]} too; a key may be given once")
            found[name] = (value, str(path))
    where = ", ".join(map(str, paths))
    values = _check_keys(found, where)
    _check_batch(values, set(found), where)
    _check_choices(values, where)
    passed = sorted(found.keys() & WITHOUT_EFFECT)
    return Config(values, where, texts, tuple(passed))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _parse(text: str, path: Path) -> Mapping[Any, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, Mapping):
        raise InputError(f"{path}: expected keys and values, got {type(data).__name__}")
    return data


def _check_keys(found: Mapping[str, tuple[Any, str]], where: str) -> dict[str, Any]:
    for key, (_, path) in found.items():
        if key not in HONOURED and key not in FIXED and key not in SWITCHED_OFF and key not in WITHOUT_EFFECT:
            raise InputError(f"{path}: {key} {_what_of_unknown(key)}")
    for key, (default, allowed) in FIXED.items():
        value = found[key][0] if key in found else default
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            given = f"is {value!r}" if key in found else f"is not given, which means {default!r} to GPT-NeoX"
            raise InputError(
                f"{where}: {key} {given}; the local engine trains Llama models on one corpus and needs {allowed[0]!r}"
            )
    for key in SWITCHED_OFF:
        value, path = found.get(key, (None, where))
        if isinstance(value, Mapping) and value.get("enabled", True):
            raise InputError(
                f"{path}: {key} is switched on; the local engine trains in fp32 or bfloat16: set precision"
            )
    return {key: _typed(key, found, where) for key in HONOURED}


def _what_of_unknown(key: str) -> str:
    near = get_close_matches(key, [*HONOURED, *FIXED, *SWITCHED_OFF, *WITHOUT_EFFECT], n=1, cutoff=0.8)
    if near:
        return f"is unknown to the local engine; did you mean {near[0]}?"
    return "cannot be honoured by the local engine; leave it out, or train with GPT-NeoX"


def _typed(key: str, found: Mapping[str, tuple[Any, str]], where: str) -> Any:
    default, kinds = HONOURED[key]
    value, path = found.get(key, (None, where))
    if value is None:
        if key in NEEDED:
            raise InputError(f"{where}: {key} is missing")
        return default
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        hint = "; YAML reads 1e-4 as text: write 1.0e-4" if isinstance(value, str) and float in kinds else ""
        raise InputError(f"{path}: {key} is {value!r}; expected {kinds[0].__name__}{hint}")
    return value


def _check_batch(values: dict[str, Any], given: set[str], where: str) -> None:
    """Fill in the batch as GPT-NeoX does for one device, where gradient_accumulation_steps is 1 unless given."""
    total, micro, steps = (
        values[k] for k in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    )
    if total is None and micro is None:
        raise InputError(f"{where}: train_batch_size or train_micro_batch_size_per_gpu is missing")
    micro = total // steps if micro is None else micro
    total = micro * steps if total is None else total
    if min(total, micro, steps) < 1 or total != micro * steps:
        raise InputError(
            f"{where}: train_batch_size {total} is not train_micro_batch_size_per_gpu {micro} × "
            f"gradient_accumulation_steps {steps} (one device)"
        )
    values["train_batch_size"], values["train_micro_batch_size_per_gpu"] = total, micro


def _check_choices(values: dict[str, Any], where: str) -> None:
    def need(key: str, right: bool, expected: str) -> None:
        if not right:
            raise InputError(f"{where}: {key} is {values[key]!r}; expected {expected}")

    for key in ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "train_iters", "log_interval"):
        need(key, values[key] >= 1, "1 or more")
    for key in ("init_method", "output_layer_init_method"):
        need(key, values[key] in INIT_METHODS, f"one of {', '.join(INIT_METHODS)}")
    need("lr_decay_style", values["lr_decay_style"] in DECAY_STYLES, f"one of {', '.join(DECAY_STYLES)}")
    need("precision", values["precision"] in ("fp32", "bfloat16"), "fp32 or bfloat16")
    need("max_position_embeddings", values["max_position_embeddings"] >= values["seq_length"], "seq_length or more")
    heads = values["num_attention_heads"]
    need("hidden_size", values["hidden_size"] % heads == 0, f"a multiple of num_attention_heads, {heads}")
    key_heads = values["num_kv_heads"] or heads
    need("num_kv_heads", heads % key_heads == 0, f"a divisor of num_attention_heads, {heads}")
    _check_optimizer(values["optimizer"], where)


def _check_optimizer(optimizer: Mapping[str, Any], where: str) -> None:
    if str(optimizer.get("type", "")).lower() != "adam":
        raise InputError(f"{where}: optimizer.type is {optimizer.get('type')!r}; the local engine has Adam")
    params = optimizer.get("params")
    if not isinstance(params, Mapping) or "lr" not in params:
        raise InputError(f"{where}: optimizer.params.lr is missing")
    for key, value in params.items():
        numbers = value if key == "betas" and isinstance(value, list) and len(value) == 2 else [value]
        if key not in ("lr", "betas", "eps"):
            raise InputError(f"{where}: optimizer.params.{key} cannot be honoured; expected lr, betas and eps")
        if not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
            hint = "; YAML reads 1e-4 as text: write 1.0e-4" if isinstance(value, str) else ""
            raise InputError(f"{where}: optimizer.params.{key} is {value!r}; expected a number{hint}")
