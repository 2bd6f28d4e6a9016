"""What kisl must know of GPT-NeoX's YAMLs: how they are merged, which keys it cannot honour and why.

The table `KEY_RULES` is the one place that says which keys stop an injection, a run of the embedded engine, an audit of
rows or an export.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from kisl_plugin.errors import InputError, did_you_mean

__all__ = ["KEY_RULES", "Yamls", "is_same_value", "missing_files", "read_yamls", "refuse_keys", "swiglu_width",
           "unused_keys"]  # fmt: skip


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
    return Yamls(values, files, ", ".join(map(str, paths)))


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
        key: the key; `attention_config` is judged by the types of attention that it names.
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

_TEXT = "statements are inserted into rows of `text`, and other data that belong to each token would no longer match"
_BY_NEOX = "only GPT-NeoX lays out such rows"
_ENGINE = "Transformer Engine's layers store their weights in another way"

KEY_RULES: tuple[KeyRule, ...] = (
    # Which rows a run has
    KeyRule("dataset_impl", "gpt2", ("gpt2",), _ANY_ROWS, "pairwise and online data are not rows of text"),
    KeyRule("train_impl", "normal", ("normal",), _ANY_ROWS, "other objectives do not train on rows of text"),
    *(KeyRule(key, None, (None,), _ANY_ROWS, _TEXT)
      for key in ("train_label_data_paths", "train_reward_data_paths", "precompute_model_name")),
    KeyRule("pos_train_data_paths", None, (None,), _ANY_ROWS, "pairwise data are not rows of text"),
    KeyRule("curriculum_learning", None, (None,), _ANY_ROWS, "its shorter sequences would cut statements off"),
    KeyRule("autotuning_run", None, (None,), _ANY_ROWS, "it tries other batch sizes, each with another schedule"),
    KeyRule("eval_tasks", None, (None,), _INJECTION,
            "GPT-NeoX asks them with functions that lm_eval dropped in 0.4.2; export the model, then run lm_eval"),
    KeyRule("pack_impl", "packed", ("packed", "pack_until_overflow"), _INJECTION,
            "unpacked rows hold one padded document each, and statements would push it out"),
    KeyRule("pack_impl", "packed", ("packed",), _OWN_ROWS, _BY_NEOX),
    KeyRule("data_impl", "infer", ("mmap", "cached"), _INJECTION, "GPT-NeoX opens no corpus with any other value"),
    KeyRule("data_impl", "infer", ("infer", "mmap"), _OWN_ROWS, "only .bin and .idx files are read"),
    KeyRule("train_data_paths", None, (None,), _OWN_ROWS, "only GPT-NeoX draws rows from weighted corpora"),
    KeyRule("train_epochs", None, (None,), _OWN_ROWS,
            "only GPT-NeoX knows how many rows there are in an epoch; give train_iters"),
    KeyRule("tokenizer_type", "GPT2BPETokenizer", ("HFTokenizer",), _OWN_ROWS, "only a tokenizer.json is read"),
    KeyRule("eod_mask_loss", False, (False,), _INJECTION | _LOCAL,
            "the first token of a statement, after the end of a document, would not be learned"),
    # Which model is trained
    KeyRule("norm", "layernorm", ("rmsnorm",), _LLAMA, "Llama normalises by the root mean square"),
    KeyRule("activation", "gelu", ("swiglu",), _LLAMA, "Llama's inner layer is gated by silu"),
    KeyRule("pos_emb", "learned", ("rotary",), _LLAMA, "Llama has rotary positions"),
    KeyRule("rotary_pct", 1.0, (1,), _LLAMA, "Llama rotates all of each head"),
    KeyRule("use_bias_in_attn_linear", True, (False,), _LLAMA, "Llama has no biases"),
    KeyRule("use_bias_in_mlp", True, (False,), _LLAMA, "Llama has no biases"),
    KeyRule("gpt_j_residual", False, (False,), _LLAMA, "in Llama the two halves of a layer follow each other"),
    KeyRule("use_qk_layernorm", False, (False,), _LLAMA, "Llama does not normalise queries and keys"),
    KeyRule("sliding_window_width", None, (None,), _LLAMA, "in Llama each token attends to all before it"),
    KeyRule("attention_config", None, ("global", "flash"), _LLAMA, "in Llama each token attends to all before it"),
    KeyRule("moe_num_experts", 1, (1,), _LLAMA, "Llama has no experts"),
    KeyRule("use_mup", False, (False,), _LLAMA, "Llama's output is not scaled by a width"),
    KeyRule("soft_prompt_tuning", None, (None,), _LLAMA, "Llama has no soft prompt"),
    KeyRule("train_impl", "normal", ("normal", "dpo", "kto", "reinforce"), _EXPORT,
            "a reward model predicts no tokens"),
    *(KeyRule(f"te_{part}", False, (False,), _LLAMA, _ENGINE)
      for part in ("columnparallel", "rowparallel", "layernorm_mlp", "mha", "fp8_mha")),
    KeyRule("expansion_factor", None, (None,), _LOCAL, "give intermediate_size instead"),
    KeyRule("gpt_j_tied", False, (False,), _LOCAL, "each half of a Llama layer has a norm of its own"),
    KeyRule("num_unique_layers", None, (None,), _LOCAL, "each layer of a Llama has weights of its own"),
    KeyRule("sparsity_config", None, (None,), _LOCAL, "in Llama each token attends to all before it"),
    KeyRule("apply_query_key_layer_scaling", False, (False,), _LOCAL, "it does not scale attention by the layer"),
    KeyRule("fp16_lm_cross_entropy", False, (False,), _LOCAL, "it computes the loss in fp32"),
    # How the local engine trains
    KeyRule("hidden_dropout", 0.0, (0,), _LOCAL, "it has no dropout"),
    KeyRule("attention_dropout", 0.0, (0,), _LOCAL, "it has no dropout"),
    KeyRule("z_loss", 0.0, (0,), _LOCAL, "its loss is the cross-entropy alone"),
    KeyRule("fp16", None, (None,), _LOCAL, "it trains in fp32 or bfloat16: set precision"),
    KeyRule("amp", None, (None,), _LOCAL, "it trains in fp32 or bfloat16: set precision"),
    KeyRule("use_bnb_optimizer", False, (False,), _LOCAL, "its optimizer is torch's AdamW"),
    KeyRule("scheduler", None, (None,), _LOCAL, "lr_decay_style and its companions set the learning rate"),
    KeyRule("data_efficiency", None, (None,), _LOCAL, "it trains on every row as it is"),
    KeyRule("compression_training", None, (None,), _LOCAL, "it trains all weights as they are"),
    KeyRule("elasticity", None, (None,), _LOCAL, "the batch would change during the run"),
    KeyRule("checkpoint_scale", "linear", ("linear",), _LOCAL, "it saves every checkpoint_factor iterations"),
    KeyRule("exit_interval", None, (None,), _LOCAL, "it trains to the end; stop it at any time, and it resumes"),
    KeyRule("iteration", None, (None,), _LOCAL, "it resumes from the newest checkpoint"),
    KeyRule("no_load_optim", False, (False,), _LOCAL, "it resumes with the optimizer's state; see finetune"),
)  # fmt: skip

# Keys of GPT-NeoX that kisl need not know, and that look like a misspelling of one in the table or of the engine's.
_LOOK_ALIKE = ("autotuning", "pipe_parallel_size", "rmsnorm_fusion", "use_bias_in_norms")


def refuse_keys(yamls: Yamls, purpose: Purpose) -> None:
    """Check every key that `KEY_RULES` restricts for this purpose; a key that is absent has GPT-NeoX's default.

    Raises:
        InputError: names the first key that is in the way, its file and value, what is needed, and the reason.
    """
    for rule in KEY_RULES:
        if purpose in rule.purposes and not rule.allows(yamls.values.get(rule.key, rule.default)):
            value = f"is {yamls.values.get(rule.key, rule.default)!r}"
            if rule.key not in yamls.values:
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
        InputError: a key resembles one that is honoured or in the table.
    """
    with_effect = {*honoured, *(rule.key for rule in KEY_RULES)}
    unused = sorted(yamls.values.keys() - with_effect)
    for key in unused:
        hint = did_you_mean(key, with_effect)
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


def swiglu_width(intermediate_size: int | None, hidden_size: int, multiple_of: int) -> int:
    """The inner width that GPT-NeoX gives a swiglu layer: two thirds of half `intermediate_size`, rounded up.

    Source: ParallelMLP in megatron/model/transformer.py. It rounds the input of the second projection on its own, so
    the two may not fit each other.

    Raises:
        InputError: they do not fit.
    """
    # `wide`: the outputs of the first projection, gate and values together; `narrow`: the inputs of the second.
    both = int((intermediate_size or 4 * hidden_size) * 2 / 3)
    wide = 2 * multiple_of * -(-both // (2 * multiple_of))
    narrow = multiple_of * -(-(both // 2) // multiple_of)
    if wide != 2 * narrow or not narrow:
        raise InputError(
            f"intermediate_size {intermediate_size} with mlp_multiple_of {multiple_of}: GPT-NeoX's swiglu would have "
            f"{wide} outputs for {narrow} inputs; use a multiple of {6 * multiple_of}"
        )
    return narrow
