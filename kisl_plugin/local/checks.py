"""What the values of a GPT-NeoX YAML must be, one by one and beside each other, for the embedded engine."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.schedule import MOST_SAMPLES

Check = tuple[Callable[[Any], bool], str]

INIT_METHODS = ("normal", "scaled_normal", "small_init", "wang_init", "xavier_uniform", "xavier_normal")
DECAY_STYLES = ("constant", "linear", "cosine", "exponential")


@dataclass(frozen=True)
class Given:
    """What the YAMLs say: each key's value and file. `where` names all the files, for keys that are in none."""

    values: Mapping[str, Any]
    files: Mapping[str, str]
    where: str

    def file_of(self, key: str) -> str:
        """The file in which `key` stands; of a dotted key, its first part."""
        return self.files.get(key.split(".")[0], self.where)

    def wrong(self, key: str, value: Any, expected: str) -> InputError:
        """The error for a value that is not what was expected."""
        as_text = isinstance(value, str) and "number" in expected
        hint = "; YAML reads 1e-4 as text: write 1.0e-4" if as_text else ""
        return InputError(f"{self.file_of(key)}: {key} is {value!r}; expected {expected}{hint}")


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float and neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _at_least(least: int) -> Check:
    return (lambda value: is_number(value) and value >= least), f"a number, {least} or more"


def _one_of(*choices: str) -> Check:
    return (lambda value: value in choices), f"one of {', '.join(choices)}"


def _is_split(value: str) -> bool:
    try:
        shares = [float(part) for part in value.split("," if "," in value else "/")]
    except ValueError:
        return False
    return all(is_number(share) and share >= 0 for share in shares) and sum(shares[:3]) > 0


def _are_betas(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(beta) and 0 <= beta < 1 for beta in value)


def _are_iterations(value: list[Any]) -> bool:
    return all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in value)


def _is_path(value: str) -> bool:
    return bool(value.strip() and Path(value).name)


_ABOVE_ZERO: Check = (lambda value: value > 0, "a number above 0")

# The value of an honoured key, once its type is right.
VALUES: dict[str, Check] = {
    **dict.fromkeys(
        "num_layers hidden_size intermediate_size mlp_multiple_of num_attention_heads num_kv_heads seq_length "
        "rotary_emb_base make_vocab_size_divisible_by model_parallel_size train_iters lr_decay_iters train_batch_size "
        "train_micro_batch_size_per_gpu gradient_accumulation_steps checkpoint_factor keep_last_n_checkpoints "
        "log_interval eval_interval".split(),
        _at_least(1),
    ),
    **dict.fromkeys(("min_lr", "weight_decay", "gradient_clipping", "eval_iters"), _at_least(0)),
    **dict.fromkeys(("rms_norm_epsilon", "init_method_std"), _ABOVE_ZERO),
    **dict.fromkeys(("init_method", "output_layer_init_method"), _one_of(*INIT_METHODS)),
    **dict.fromkeys(("data_path", "vocab_file", "save", "load"), (_is_path, "the path of a file or folder")),
    "lr_decay_style": _one_of(*DECAY_STYLES),
    "lr_decay_fraction": (lambda value: 0 < value <= 1, "a number above 0, 1 at most"),
    "warmup": (lambda value: 0 <= value <= 1, "a number from 0 to 1, the share of the steps"),
    "seed": (lambda value: 0 <= value < 2**32, "a number from 0 to 2**32 - 1"),
    "split": (_is_split, "shares such as '969, 30, 1', none negative and not all zero"),
    "extra_save_iters": (_are_iterations, "a list of whole numbers, 0 or more"),
}

# The value of a key of optimizer.params.
OPTIMIZER_PARAMS: dict[str, Check] = {
    "lr": _at_least(0),
    "betas": (_are_betas, "a list of two numbers, each 0 or more and below 1"),
    "eps": _at_least(0),
}

# How values must fit each other.
RELATIONS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], str], ...] = (
    (
        "train_iters",
        lambda v: v["train_iters"] * v["train_batch_size"] <= MOST_SAMPLES,
        f"at most {MOST_SAMPLES} samples in all, with train_batch_size {{train_batch_size}}",
    ),
    (
        "max_position_embeddings",
        lambda v: v["max_position_embeddings"] >= v["seq_length"],
        "seq_length, {seq_length}, or more",
    ),
    (
        "hidden_size",
        lambda v: v["hidden_size"] % v["num_attention_heads"] == 0,
        "a multiple of num_attention_heads, {num_attention_heads}",
    ),
    (
        "hidden_size",
        lambda v: v["hidden_size"] // v["num_attention_heads"] % 2 == 0,
        "an even size for each of num_attention_heads, {num_attention_heads}: rotary embeddings turn pairs",
    ),
    (
        "num_kv_heads",
        lambda v: v["num_attention_heads"] % (v["num_kv_heads"] or v["num_attention_heads"]) == 0,
        "a divisor of num_attention_heads, {num_attention_heads}",
    ),
    (
        "min_lr",
        lambda v: v["min_lr"] <= v["optimizer"]["params"]["lr"],
        "optimizer.params.lr, {optimizer[params][lr]}, at most",
    ),
)


def check_values(values: Mapping[str, Any], given: Given) -> None:
    """Check each honoured key's value on its own; a key without value (None) passes.

    Raises:
        InputError: names the first that is wrong.
    """
    for key, (right, expected) in VALUES.items():
        if values[key] is not None and not right(values[key]):
            raise given.wrong(key, given.values.get(key, values[key]), expected)


def check_relations(values: Mapping[str, Any], given: Given) -> None:
    """Check how the values fit each other; `values` has passed the other checks.

    Raises:
        InputError: names the first that does not fit.
    """
    for key, fits, expected in RELATIONS:
        if not fits(values):
            raise given.wrong(key, values[key], expected.format(**values))
