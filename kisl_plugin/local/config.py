"""The GPT-NeoX keys that the embedded engine honours: their defaults, the values it accepts, and how they must fit.

Defaults are GPT-NeoX's own (megatron/neox_arguments at the tested commit), so that a key which is left out means the
same to both engines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import KEY_RULES, Yamls, is_same_value, read_yamls, refuse_keys, unused_keys
from kisl_plugin.plan import is_number, is_whole
from kisl_plugin.schedule import MOST_SAMPLES

__all__ = ["LocalConfig", "read_config", "read_row_config"]


@dataclass(frozen=True)
class _Setting:
    """A key's default, the test of a value that is given, and the words for what passes the test."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str
    convert: Callable[[Any], Any] = lambda value: value


def _whole(default: int | None = None, least: int = 1) -> _Setting:
    return _Setting(default, lambda value: is_whole(value, least), f"a whole number, {least} or more")


def _real(default: float | None, expected: str, above: float = -inf, most: float = inf) -> _Setting:
    return _Setting(default, lambda v: is_number(v) and 0 <= v <= most and v > above, expected, float)


def _choice(default: str | None, *choices: str) -> _Setting:
    return _Setting(default, lambda value: value in choices, f"one of {', '.join(choices)}")


def _is_split(value: Any) -> bool:
    try:
        shares = [float(part) for part in value.split("," if "," in value else "/")]
    except (AttributeError, ValueError):
        return False
    return all(is_number(share) and share >= 0 for share in shares) and sum(shares[:3]) > 0


_NOT_NEGATIVE = "a finite number, 0 or more"
_INIT_METHODS = ("normal", "scaled_normal", "small_init", "wang_init")
_FLAG = _Setting(False, lambda value: isinstance(value, bool), "true or false")
_PATH = _Setting(
    None,
    lambda value: isinstance(value, str) and bool(value.strip() and Path(value).name),
    "the path of a file or folder",
)
_SECTION = _Setting(None, lambda value: isinstance(value, Mapping), "a section (a mapping of keys to values)")

_SETTINGS: Mapping[str, _Setting] = {
    # The model
    **dict.fromkeys(("num_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_kv_heads",
                     "seq_length", "max_position_embeddings"), _whole()),
    "mlp_multiple_of": _whole(1),
    "rms_norm_epsilon": _real(1e-8, "a finite number above 0", above=0),
    "rotary_emb_base": _whole(10_000),
    "no_weight_tying": _FLAG,
    "make_vocab_size_divisible_by": _whole(128),
    "model_parallel_size": _whole(1),  # the vocabulary is padded to a multiple of it
    "init_method": _choice("normal", *_INIT_METHODS),
    "output_layer_init_method": _choice("scaled_normal", *_INIT_METHODS),
    "init_method_std": _real(0.02, "a finite number above 0", above=0),
    "precision": _choice(None, "fp32", "bfloat16"),
    "bf16": _SECTION,
    # The optimizer
    "optimizer": _SECTION,
    "lr_decay_style": _choice("linear", "constant", "linear", "cosine"),
    "lr_decay_fraction": _real(None, "a finite number above 0, at most 1", above=0, most=1),
    "warmup": _real(0.01, "a finite number from 0 to 1, the share of the steps", most=1),
    **{key: _real(default, _NOT_NEGATIVE)
       for key, default in (("min_lr", 0.0), ("weight_decay", 0.1), ("gradient_clipping", 1.0))},
    **dict.fromkeys(("train_iters", "lr_decay_iters", "train_batch_size", "train_micro_batch_size_per_gpu"), _whole()),
    "gradient_accumulation_steps": _whole(1),
    "seed": _Setting(1234, lambda value: is_whole(value) and value < 2**32, "a whole number from 0 to 2**32 - 1"),
    # Data, checkpoints and log
    **dict.fromkeys(("data_path", "vocab_file", "save", "load"), _PATH),
    "split": _Setting("969, 30, 1", _is_split, "shares such as '969, 30, 1', none negative and not all zero"),
    "finetune": _FLAG,
    **dict.fromkeys(("checkpoint_factor", "keep_last_n_checkpoints"), _whole()),
    "extra_save_iters": _Setting(
        None, lambda value: isinstance(value, list) and all(map(is_whole, value)), "a list of whole numbers, 0 or more"
    ),
    "log_interval": _whole(100),
    "eval_interval": _whole(1000),
    "eval_iters": _whole(100, least=0),
    "kisl": _SECTION,  # read by kisl_plugin.plan
}  # fmt: skip
_OPTIMIZER_PARAMS: Mapping[str, _Setting] = {
    "lr": _real(None, _NOT_NEGATIVE),
    "betas": _Setting(
        None,
        lambda value: isinstance(value, list) and len(value) == 2 and all(is_number(b) and 0 <= b < 1 for b in value),
        "a list of two numbers, each 0 or more and below 1",
        lambda value: [*map(float, value)],  # torch refuses whole numbers among betas
    ),
    "eps": _real(None, _NOT_NEGATIVE),
}
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
    unused = unused_keys(yamls, [*_SETTINGS, "deepspeed_extra_args"])
    values = {key: _read(yamls, key) for key in _SETTINGS}
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
    setting, value = _SETTINGS[key], yamls.values.get(key)
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
    for key, value in params.items():
        if key not in _OPTIMIZER_PARAMS:
            expected = f"expected {', '.join(_OPTIMIZER_PARAMS)}"
            raise InputError(f"{yamls.file_of('optimizer')}: optimizer.params.{key} is not supported here; {expected}")
        if not _OPTIMIZER_PARAMS[key].accepts(value):
            raise yamls.wrong_value(f"optimizer.params.{key}", value, _OPTIMIZER_PARAMS[key].expected)
    return {**section, "params": {key: _OPTIMIZER_PARAMS[key].convert(value) for key, value in params.items()}}


def _unused_extra_args(yamls: Yamls) -> list[str]:
    """The keys of deepspeed_extra_args without effect, dotted.

    DeepSpeed prefers these keys to those of the YAML itself; where they matter, the two must say the same.
    """
    extra = yamls.values.get("deepspeed_extra_args")
    if extra is not None and not isinstance(extra, Mapping):
        raise yamls.wrong_value("deepspeed_extra_args", extra, _SECTION.expected)
    defaults = {rule.key: rule.default for rule in KEY_RULES} | {key: s.default for key, s in _SETTINGS.items()}
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
