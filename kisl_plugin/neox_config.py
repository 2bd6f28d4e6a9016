"""What kisl must know of GPT-NeoX's YAMLs: how they are merged, which keys it cannot honour and why.

The table `KEY_RULES` is the one place that says which keys stop an injection, a run of the embedded engine, an audit of
rows or an export.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

import yaml

from kisl_plugin.errors import InputError, did_you_mean, is_number, is_whole

__all__ = [
    "KEY_RULES",
    "KEY_VALUES",
    "OPTIMIZER_VALUES",
    "PATH_KEYS",
    "ROUNDING_KEYS",
    "Yamls",
    "check_optimizer_values",
    "check_swiglu_width",
    "check_values",
    "hint_for_key",
    "is_same_value",
    "missing_files",
    "missing_files_error",
    "padded_vocabulary",
    "read_yamls",
    "refuse_keys",
    "swiglu_width",
    "unused_keys",
]  # fmt: skip


@dataclass(frozen=True)
class Yamls:
    """A run's GPT-NeoX YAMLs, merged as GPT-NeoX merges them.

    Attributes:
        values: each key's value; `-` in a key is read as `_`.
        files: the file that holds each key.
        where: all files, for messages about keys that no file holds.
    """

    values: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)
    where: str = "the configuration"

    def file_of(self, key: str) -> str:
        """The file that holds `key`; for a dotted key, the one that holds its first part."""
        return self.files.get(key.split(".")[0], self.where)

    def override(self, changes: Mapping[str, Any], source: str) -> "Yamls":
        """The YAMLs with other values; a dotted key changes one key of a section. `source` names them in messages."""
        values, files = copy.deepcopy(dict(self.values)), dict(self.files)
        for key, value in changes.items():
            *sections, last = key.replace("-", "_").split(".")
            place = values
            for section in sections:
                if not isinstance(place.get(section), dict):
                    place[section] = {}
                place = place[section]
            place[last] = value
            files[[*sections, last][0]] = source
        return Yamls(_clean_paths(values), files, self.where)

    def wrong_value(self, key: str, value: Any, expected: str) -> InputError:
        """The error for a value that is not what was expected."""
        as_text = isinstance(value, str) and "finite number" in expected
        hint = "; YAML reads 1e-4 as text: write 1.0e-4" if as_text else ""
        return InputError(f"{self.file_of(key)}: {key} is {value!r}; expected {expected}{hint}")


class _EachKeyOnce(yaml.SafeLoader):
    """YAML's safe loader, which by itself would silently keep the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a mapping that contains a key twice."""
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"it contains the key {name!r} {names.count(name)} times; leave one")
        return super().construct_mapping(node, deep)


# GPT-NeoX takes `~` literally, and where an absolute `save` ends in "/" it deletes no old checkpoint.
PATH_KEYS = frozenset(
    "save load data_path train_data_paths valid_data_paths test_data_paths vocab_file merge_file "
    "tensorboard_dir".split()
)


def _clean_paths(values: dict[str, Any]) -> dict[str, Any]:
    def clean(path: Any) -> Any:
        if not isinstance(path, str):
            return path
        return (str(Path(path).expanduser()) if path.startswith("~") else path).rstrip("/") or path

    for key in PATH_KEYS & values.keys():
        values[key] = [*map(clean, values[key])] if isinstance(values[key], list) else clean(values[key])
    return values


def read_yamls(paths: Sequence[Path]) -> Yamls:
    """Read and merge YAMLs; as in GPT-NeoX, a key may be in one of them only, and once.

    Raises:
        InputError: a file is missing, is not YAML or has no keys, two files have the same name (they are saved side by
            side with every checkpoint), or a key is given twice.
    """
    values: dict[str, Any] = {}
    files: dict[str, str] = {}
    names: set[str] = set()
    for path in paths:
        if path.name in names:
            raise InputError(f"{path}: has the same file name as another YAML; GPT-NeoX refuses that: rename one")
        names.add(path.name)
        try:
            data = yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(data, Mapping):
            raise InputError(f"{path}: expected keys and values, got {type(data).__name__}")
        for key, value in data.items():
            name = str(key).replace("-", "_")
            if name in values:
                raise InputError(f"{path}: {name} is also in {files[name]}; a key may be given once")
            values[name], files[name] = value, str(path)
    return Yamls(_clean_paths(values), files, ", ".join(map(str, paths)))


# What needs a key to have certain values, and how a message names it.
Purpose = Literal["injection", "local", "rows", "export"]
_NEEDED_BY: Mapping[Purpose, str] = {
    "injection": "a kisl section needs",  # any run of GPT-NeoX with a kisl section
    "local": "the local engine needs",
    "rows": "checking a run's rows needs",  # the audit, which lays the rows of either engine by itself
    "export": "an export as a Llama needs",
}


@dataclass(frozen=True)
class KeyRule:
    """The values under which a key of GPT-NeoX is no obstacle.

    Attributes:
        key: the key, dotted where it is one of a section; `attention_config` is judged by the types that it names.
        default: GPT-NeoX's default (megatron/neox_arguments at the tested commit), which holds where the key is absent.
        allowed: the values that are accepted. If one of them means "off", so does every other way of writing it.
        purposes: for what the rule holds.
        reason: why other values are refused.
    """

    key: str
    default: Any
    allowed: tuple[Any, ...]
    purposes: frozenset[Purpose]
    reason: str

    def allows(self, value: Any) -> bool:
        """Whether a value is accepted."""
        # An attention_config nests the names of types with counts of layers, or "all".
        is_nested = self.key == "attention_config"
        values = set(re.findall(r"[^\W\d]\w*", str(value))) - {"all", "None"} if is_nested else [value]
        return all(any(is_same_value(one, allowed) for allowed in self.allowed) for one in values)


def _is_off(value: Any) -> bool:
    return not value or (isinstance(value, Mapping) and value.get("enabled") is False)


def is_same_value(value: Any, other: Any) -> bool:
    """Whether two values of a key mean the same: equal ones of like type, or any two that switch the key off."""
    if _is_off(other):
        return _is_off(value)
    # To Python, True == 1; as rotary_pct or moe_num_experts it is a mistake.
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


_INJECTION: frozenset[Purpose] = frozenset({"injection"})
_LOCAL: frozenset[Purpose] = frozenset({"local"})
_EXPORT: frozenset[Purpose] = frozenset({"export"})
_LLAMA = _LOCAL | _EXPORT
_OWN_ROWS: frozenset[Purpose] = frozenset({"local", "rows"})
_ANY_ROWS = _INJECTION | _OWN_ROWS

# One row for the keys of its first column: GPT-NeoX's default, the accepted values, for what, and the reason.
_RULES: tuple[tuple[str, Any, tuple[Any, ...], frozenset[Purpose], str], ...] = (
    # Which rows a run has
    ("dataset_impl", "gpt2", ("gpt2",), _ANY_ROWS, "pairwise and online data are not rows of text"),
    ("train_impl", "normal", ("normal",), _ANY_ROWS, "other objectives do not train on rows of text"),
    ("train_label_data_paths train_reward_data_paths precompute_model_name", None, (None,), _ANY_ROWS,
     "statements are inserted into rows of `text`, and other data that belong to each token would no longer match"),
    ("pos_train_data_paths", None, (None,), _ANY_ROWS, "pairwise data are not rows of text"),
    ("curriculum_learning", None, (None,), _ANY_ROWS, "its shorter sequences would cut statements off"),
    ("autotuning_run", None, (None,), _ANY_ROWS, "it tries other batch sizes, each with another schedule"),
    ("fp16 amp", None, (None,), _INJECTION,
     "a step that its loss scale skips loses its exposures; use bfloat16 or fp32"),
    ("eval_tasks", None, (None,), _INJECTION,
     "GPT-NeoX asks them with functions that lm_eval dropped in 0.4.2; export the model, then run lm_eval"),
    ("pack_impl", "packed", ("packed", "pack_until_overflow"), _INJECTION,
     "unpacked rows hold one padded document each, and statements would push it out"),
    ("pack_impl", "packed", ("packed",), _OWN_ROWS, "only GPT-NeoX lays out such rows"),
    ("data_impl", "infer", ("mmap", "cached"), _INJECTION, "GPT-NeoX opens no corpus with any other value"),
    ("data_impl", "infer", ("infer", "mmap"), _OWN_ROWS, "only .bin and .idx files are read"),
    ("train_data_paths", None, (None,), _OWN_ROWS, "only GPT-NeoX draws rows from weighted corpora"),
    ("train_epochs", None, (None,), _OWN_ROWS,
     "only GPT-NeoX knows how many rows there are in an epoch; give train_iters"),
    ("tokenizer_type", "GPT2BPETokenizer", ("HFTokenizer",), _OWN_ROWS, "only a tokenizer.json is read"),
    ("eod_mask_loss", False, (False,), _INJECTION | _LOCAL,
     "the first token of a statement, after the end of a document, would not be learned"),
    # Which model is trained
    ("norm", "layernorm", ("rmsnorm",), _LLAMA, "Llama normalises by the root mean square"),
    ("activation", "gelu", ("swiglu",), _LLAMA, "Llama's inner layer is gated by silu"),
    ("pos_emb", "learned", ("rotary",), _LLAMA, "Llama has rotary positions"),
    ("rotary_pct", 1.0, (1,), _LLAMA, "Llama rotates all of each head"),
    ("use_bias_in_attn_linear use_bias_in_mlp", True, (False,), _LLAMA, "Llama has no biases"),
    ("gpt_j_residual", False, (False,), _LLAMA, "in Llama the two halves of a layer follow each other"),
    ("use_qk_layernorm", False, (False,), _LLAMA, "Llama does not normalise queries and keys"),
    ("sliding_window_width", None, (None,), _LLAMA, "in Llama each token attends to all before it"),
    ("attention_config", None, ("global", "flash"), _LLAMA, "in Llama each token attends to all before it"),
    ("zero_optimization.stage", 0, (0, 1, 2), _EXPORT, "stage 3 leaves a part of every weight with every process"),
    ("moe_num_experts", 1, (1,), _LLAMA, "Llama has no experts"),
    ("use_mup", False, (False,), _LLAMA, "Llama's output is not scaled by a width"),
    ("soft_prompt_tuning", None, (None,), _LLAMA, "Llama has no soft prompt"),
    ("train_impl", "normal", ("normal", "dpo", "kto", "reinforce"), _EXPORT, "a reward model predicts no tokens"),
    ("te_columnparallel te_rowparallel te_layernorm_mlp te_mha te_fp8_mha", False, (False,), _LLAMA,
     "Transformer Engine's layers store their weights in another way"),
    ("expansion_factor", None, (None,), _LOCAL, "give intermediate_size instead"),
    ("gpt_j_tied", False, (False,), _LOCAL, "each half of a Llama layer has a norm of its own"),
    ("num_unique_layers", None, (None,), _LOCAL, "each layer of a Llama has weights of its own"),
    ("sparsity_config", None, (None,), _LOCAL, "in Llama each token attends to all before it"),
    ("apply_query_key_layer_scaling", False, (False,), _LOCAL, "it does not scale attention by the layer"),
    ("fp16_lm_cross_entropy", False, (False,), _LOCAL, "it computes the loss in fp32"),
    # How the local engine trains
    ("hidden_dropout attention_dropout", 0.0, (0,), _LOCAL, "it has no dropout"),
    ("z_loss", 0.0, (0,), _LOCAL, "its loss is the cross-entropy alone"),
    ("fp16 amp", None, (None,), _LOCAL, "it trains in fp32 or bfloat16: set precision"),
    ("use_bnb_optimizer", False, (False,), _LOCAL, "its optimizer is torch's AdamW"),
    ("scheduler", None, (None,), _LOCAL, "lr_decay_style and its companions set the learning rate"),
    ("data_efficiency", None, (None,), _LOCAL, "it trains on every row as it is"),
    ("compression_training", None, (None,), _LOCAL, "it trains all weights as they are"),
    ("elasticity", None, (None,), _LOCAL, "the batch would change during the run"),
    ("checkpoint_scale", "linear", ("linear",), _LOCAL, "it saves every checkpoint_factor iterations"),
    ("exit_interval", None, (None,), _LOCAL, "it trains to the end; stop it at any time, and it resumes"),
    ("iteration", None, (None,), _LOCAL, "it resumes from the newest checkpoint"),
    ("no_load_optim", False, (False,), _LOCAL, "it resumes with the optimizer's state; see finetune"),
)  # fmt: skip
KEY_RULES = tuple(KeyRule(key, *rule) for keys, *rule in _RULES for key in keys.split())

# Changing one of these changes a result by rounding at most: where files are, how often something is logged or saved,
# and how the work is divided among processes.
ROUNDING_KEYS = frozenset(
    "save load log_interval steps_per_print checkpoint_factor extra_save_iters keep_last_n_checkpoints eval_interval "
    "eval_iters num_workers train_micro_batch_size_per_gpu gradient_accumulation_steps tensorboard_dir log_dir "
    "use_wandb wandb_group wandb_team wandb_project wandb_host wandb_init_all_ranks launcher deepspeed_slurm hostfile "
    "no_ssh_check master_addr master_port num_gpus checkpoint_activations checkpoint_num_layers".split()
)

# ---- the values of keys, in either engine


@dataclass(frozen=True)
class KeyValue:
    """A key's default in GPT-NeoX, the test of a value that is given, and the words for what passes the test."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str
    convert: Callable[[Any], Any] = lambda value: value


def _whole(default: int | None = None, least: int = 1) -> KeyValue:
    return KeyValue(default, lambda value: is_whole(value, least), f"a whole number, {least} or more")


def _real(default: float | None, expected: str, above: float = -inf, most: float = inf) -> KeyValue:
    return KeyValue(default, lambda v: is_number(v) and 0 <= v <= most and v > above, expected, float)


def _choice(default: str | None, *choices: str) -> KeyValue:
    return KeyValue(default, lambda value: value in choices, f"one of {', '.join(choices)}")


def _is_split(value: Any) -> bool:
    try:
        shares = [float(part) for part in value.split("," if "," in value else "/")]
    except (AttributeError, ValueError):
        return False
    return all(is_number(share) and share >= 0 for share in shares) and sum(shares[:3]) > 0


_NOT_NEGATIVE = "a finite number, 0 or more"
_INIT_METHODS = ("normal", "scaled_normal", "small_init", "wang_init")
_FLAG = KeyValue(False, lambda value: isinstance(value, bool), "true or false")
_PATH = KeyValue(
    None,
    lambda value: isinstance(value, str) and bool(value.strip() and Path(value).name),
    "the path of a file or folder",
)
_SECTION = KeyValue(None, lambda value: isinstance(value, Mapping), "a section (a mapping of keys to values)")

KEY_VALUES: Mapping[str, KeyValue] = {
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
    "seed": KeyValue(1234, lambda value: is_whole(value) and value < 2**32, "a whole number from 0 to 2**32 - 1"),
    # Data, checkpoints and log
    **dict.fromkeys(("data_path", "vocab_file", "save", "load", "tensorboard_dir"), _PATH),
    "split": KeyValue("969, 30, 1", _is_split, "shares such as '969, 30, 1', none negative and not all zero"),
    "finetune": _FLAG,
    **dict.fromkeys(("checkpoint_factor", "keep_last_n_checkpoints"), _whole()),
    "extra_save_iters": KeyValue(
        None, lambda value: isinstance(value, list) and all(map(is_whole, value)), "a list of whole numbers, 0 or more"
    ),
    "log_interval": _whole(100),
    "eval_interval": _whole(1000),
    "eval_iters": _whole(100, least=0),
    "kisl": _SECTION,  # read by kisl_plugin.plan
}  # fmt: skip
# Of those, the ones of which the local engine takes fewer values than GPT-NeoX does, which checks them by itself.
_FEWER_LOCALLY = (
    "init_method output_layer_init_method precision bf16 optimizer lr_decay_style eval_interval kisl rotary_emb_base"
).split()
OPTIMIZER_VALUES: Mapping[str, KeyValue] = {
    "lr": _real(None, _NOT_NEGATIVE),
    "betas": KeyValue(
        None,
        lambda value: isinstance(value, list) and len(value) == 2 and all(is_number(b) and 0 <= b < 1 for b in value),
        "a list of two numbers, each 0 or more and below 1",
        lambda value: [*map(float, value)],  # torch refuses whole numbers among betas
    ),
    "eps": _real(None, _NOT_NEGATIVE),
}


def check_values(yamls: Yamls) -> None:
    """Check the values that GPT-NeoX takes and then fails on, in its workers or only when the run ends.

    Raises:
        InputError: names the key, its file and value, and what was expected.
    """
    for key, value in yamls.values.items():
        setting = KEY_VALUES.get(key)
        if setting and key not in _FEWER_LOCALLY and value not in (None, "auto") and not setting.accepts(value):
            raise yamls.wrong_value(key, value, setting.expected)
    check_optimizer_values(yamls)
    weights = yamls.values.get("train_data_weights")
    if isinstance(weights, list) and not (all(map(is_number, weights)) and min(weights, default=1) >= 0 < sum(weights)):
        raise yamls.wrong_value("train_data_weights", weights, "numbers, none negative and not all zero")
    if yamls.values.get("activation") == "swiglu" and is_whole(yamls.values.get("hidden_size"), 1):
        check_swiglu_width(yamls)


def check_swiglu_width(yamls: Yamls) -> None:
    """Check that the two projections of GPT-NeoX's swiglu fit each other.

    Raises:
        InputError: they do not; names the file.
    """
    try:
        swiglu_width(yamls.values)
    except InputError as error:
        raise InputError(f"{yamls.file_of('intermediate_size')}: {error}") from None


def check_optimizer_values(yamls: Yamls) -> None:
    """Check optimizer.params: lr, betas and eps.

    Raises:
        InputError: names the key, its file and value, and what was expected.
    """
    section = yamls.values.get("optimizer")
    params = section.get("params") if isinstance(section, Mapping) else None
    for key, value in params.items() if isinstance(params, Mapping) else ():
        setting = OPTIMIZER_VALUES.get(key)
        if setting and not setting.accepts(value):
            raise yamls.wrong_value(f"optimizer.params.{key}", value, setting.expected)


# ---- names: misspelt ones, and those of other programs

# What other trainers, or older releases, call a key. A guess by spelling would lead to a key that means another thing.
_RENAMED: Mapping[str, str] = {
    **dict.fromkeys(("save_interval", "save_steps", "checkpoint_interval"), "checkpoint_factor"),
    **dict.fromkeys(("global_batch_size", "batch_size"), "train_batch_size (rows of a step, over all GPUs)"),
    **dict.fromkeys(("micro_batch_size", "train_micro_batch_size"), "train_micro_batch_size_per_gpu"),
    **dict.fromkeys(("warmup_iters", "lr_warmup_iters", "warmup_steps"), "warmup, as a share of the iterations"),
    **dict.fromkeys(("ffn_hidden_size", "inner_size"), "intermediate_size (of swiglu the true width is a third)"),
    **dict.fromkeys(("train_steps", "max_steps", "iterations"), "train_iters"),
    **dict.fromkeys(("learning_rate", "max_lr"), "optimizer.params.lr"),
    **dict.fromkeys(("num_key_value_heads", "num_query_groups", "n_kv_heads"), "num_kv_heads"),
    **dict.fromkeys(("tokenizer_file", "tokenizer_path", "tokenizer_model"), "vocab_file"),
    **dict.fromkeys(("save_dir", "output_dir", "checkpoint_dir"), "save"),
    **dict.fromkeys(("clip_grad", "max_grad_norm"), "gradient_clipping"),
    "tie_word_embeddings": "no_weight_tying, the opposite",
    "num_hidden_layers": "num_layers",
    "rope_theta": "rotary_emb_base",
    "eval_steps": "eval_interval",
    "log_every": "log_interval",
}


def hint_for_key(key: str, keys: Iterable[str], otherwise: str = "") -> str:
    """The hint after an unknown key: GPT-NeoX's name for it, else the closest of `keys`, else `otherwise`."""
    return f"GPT-NeoX has {_RENAMED[key]}" if key in _RENAMED else did_you_mean(key, keys, otherwise)


# Keys of GPT-NeoX that kisl need not know, and that look like a misspelling of one in the table or of the engine's.
_LOOK_ALIKE = ("autotuning", "pipe_parallel_size", "rmsnorm_fusion", "use_bias_in_norms")


def refuse_keys(yamls: Yamls, purpose: Purpose) -> None:
    """Check every key that `KEY_RULES` restricts for this purpose; a key that is absent has GPT-NeoX's default.

    Raises:
        InputError: names the first key that is in the way, its file and value, what is needed, and the reason.
    """
    for rule in KEY_RULES:
        section, _, key = rule.key.rpartition(".")
        place = yamls.values.get(section) if section else yamls.values
        present = place.get(key, rule.default) if isinstance(place, Mapping) else rule.default
        if purpose in rule.purposes and not rule.allows(present):
            value = f"is {present!r}"
            if not isinstance(place, Mapping) or key not in place:
                value = f"is not given, and GPT-NeoX's default is {rule.default!r}"
            texts = (str(one).lower() if isinstance(one, bool) else str(one) for one in rule.allowed)
            expected = " or ".join(texts).replace("None", "no value")
            raise InputError(
                f"{yamls.file_of(rule.key)}: {rule.key} {value}; {_NEEDED_BY[purpose]} {expected}: {rule.reason}"
            )


def unused_keys(yamls: Yamls, honoured: Iterable[str]) -> tuple[str, ...]:
    """The keys that are neither honoured nor in the table, sorted: they have no effect, and a run should list them.

    GPT-NeoX has some 320 keys. Those that change what is computed, and that a Llama run could have, are honoured or in
    `KEY_RULES`; the rest concern speed, memory, processes and logging. So an unknown key is harmless unless it is a
    misspelling: a key that resembles one with an effect is refused, and the others are listed for the user to see.

    Raises:
        InputError: a key resembles one that is honoured or in the table, or is another program's name of one.
    """
    with_effect = {*honoured, *(rule.key for rule in KEY_RULES if "." not in rule.key)}
    unused = sorted(yamls.values.keys() - with_effect)
    for key in unused:
        hint = hint_for_key(key, with_effect)
        if hint and key not in _LOOK_ALIKE:
            raise InputError(f"{yamls.file_of(key)}: {key} is unknown; {hint}")
    return tuple(unused)


def missing_files(values: Mapping[str, Any]) -> list[str]:
    """One line for each file that the run needs and that is missing: the key, the path, the command that makes it."""
    section = values.get("kisl")
    triples = str(section.get("triples", "none")) if isinstance(section, dict) else "none"
    vocabulary = values.get("vocab_file")
    missing: list[tuple[str, str, str]] = []  # path, what it is, the command that makes it
    # With the other tokenizers vocab_file is a name.
    kind = str(values.get("tokenizer_type", "GPT2BPETokenizer")).lower()
    reads_file = kind in ("hftokenizer", "gpt2bpetokenizer", "spmtokenizer")
    if reads_file and isinstance(vocabulary, str) and not Path(vocabulary).exists():
        command = f"kisl corpus tokenizer --input TEXT --output {vocabulary}"
        missing.append((vocabulary, f"the tokenizer (vocab_file: {vocabulary})", command))
    for key in ("data_path", "train_data_paths", "valid_data_paths", "test_data_paths"):
        value = values.get(key)
        for prefix in map(str, value if isinstance(value, list) else [value] if value else []):
            if not all(Path(f"{prefix}{ending}").is_file() for ending in (".bin", ".idx")):
                options = f"--input TEXT --triples {triples} --tokenizer {vocabulary} --output {prefix}"
                what = f"the corpus ({key}: {prefix}.bin and .idx)"
                missing.append((prefix, what, f"kisl corpus build {options}"))
    # `kisl demo` writes into a folder of its name.
    demo = "kisl demo --only-data"
    return [f"{what} · {demo if 'kisl-demo' in Path(path).parts else command}" for path, what, command in missing]


def missing_files_error(where: str, lines: Sequence[str]) -> InputError:
    """The error that lists files which are missing; `lines` as missing_files gives them."""
    return InputError("\n  ".join([f"{where}: files are missing; the command that makes each:", *lines]))


def padded_vocabulary(size: int, values: Mapping[str, Any]) -> int:
    """The rows of GPT-NeoX's embeddings for a tokenizer of `size` tokens; `values` are those of a YAML."""
    multiple = (values.get("make_vocab_size_divisible_by") or 128) * (values.get("model_parallel_size") or 1)
    return int(multiple * -(-size // multiple))


def swiglu_width(values: Mapping[str, Any]) -> int:
    """The inner width that GPT-NeoX gives a swiglu layer: two thirds of half `intermediate_size`, rounded up.

    `values` are those of a YAML: hidden_size, and intermediate_size or expansion_factor, and mlp_multiple_of, if given.

    Source: ParallelMLP in megatron/model/transformer.py. It rounds the input of the second projection on its own, so
    the two may not fit each other.

    Raises:
        InputError: they do not fit.
    """
    hidden, factor, multiple = values["hidden_size"], values.get("expansion_factor"), values.get("mlp_multiple_of") or 1
    intermediate_size = int(factor * hidden) if factor else values.get("intermediate_size")
    # `wide`: the outputs of the first projection, gate and values together; `narrow`: the inputs of the second.
    both = int((intermediate_size or 4 * hidden) * 2 / 3)
    wide = 2 * multiple * -(-both // (2 * multiple))
    narrow = multiple * -(-(both // 2) // multiple)
    if wide != 2 * narrow or not narrow:
        raise InputError(
            f"intermediate_size {intermediate_size} with mlp_multiple_of {multiple}: GPT-NeoX's swiglu would have "
            f"{wide} outputs for {narrow} inputs; use a multiple of {6 * multiple}"
        )
    return narrow
