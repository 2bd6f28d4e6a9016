"""Reads GPT-NeoX YAMLs for the embedded engine: what it can honour is kept, what it cannot is refused by name."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import read_yamls
from kisl_plugin.schedule import MOST_SAMPLES

# Which keys of a GPT-NeoX YAML the embedded engine honours, needs at one value, or passes over.
#
# Defaults are GPT-NeoX's own (megatron/neox_arguments at ea7aefd8): a key that is left out
# means there what it means here.

NEEDED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "max_position_embeddings", "optimizer",
          "train_iters", "data_path", "vocab_file")  # fmt: skip

# Honoured, with GPT-NeoX's defaults and the types that are taken.
HONOURED: dict[str, tuple[Any, tuple[type, ...]]] = {
    "num_layers": (None, (int,)),
    "hidden_size": (None, (int,)),
    "intermediate_size": (None, (int,)),
    "mlp_multiple_of": (1, (int,)),
    "num_attention_heads": (None, (int,)),
    "num_kv_heads": (None, (int,)),
    "seq_length": (None, (int,)),
    "max_position_embeddings": (None, (int,)),
    "rms_norm_epsilon": (1e-8, (float,)),
    "rotary_emb_base": (10_000, (int,)),
    "no_weight_tying": (False, (bool,)),
    "make_vocab_size_divisible_by": (128, (int,)),
    "model_parallel_size": (1, (int,)),
    "init_method": ("normal", (str,)),
    "output_layer_init_method": ("scaled_normal", (str,)),
    "init_method_std": (0.02, (float,)),
    "precision": (None, (str,)),
    "bf16": (None, (dict,)),
    "optimizer": (None, (dict,)),
    "lr_decay_style": ("linear", (str,)),
    "lr_decay_iters": (None, (int,)),
    "lr_decay_fraction": (None, (float,)),
    "min_lr": (0.0, (float,)),
    "warmup": (0.01, (float,)),
    "weight_decay": (0.1, (float,)),
    "gradient_clipping": (1.0, (float,)),
    "train_iters": (None, (int,)),
    "train_batch_size": (None, (int,)),
    "train_micro_batch_size_per_gpu": (None, (int,)),
    "gradient_accumulation_steps": (1, (int,)),
    "seed": (1234, (int,)),
    "data_path": (None, (str,)),
    "split": ("969, 30, 1", (str,)),
    "vocab_file": (None, (str,)),
    "save": (None, (str,)),
    "load": (None, (str,)),
    "finetune": (False, (bool,)),
    "checkpoint_factor": (None, (int,)),
    "extra_save_iters": (None, (list,)),
    "keep_last_n_checkpoints": (None, (int,)),
    "log_interval": (100, (int,)),
    "eval_interval": (1000, (int,)),
    "eval_iters": (100, (int,)),
    "kisl": (None, (dict,)),
}

# They change the mathematics: GPT-NeoX's default, and the values under which the run is a Llama run of this engine.
FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "norm": ("layernorm", ("rmsnorm",)),
    "pos_emb": ("learned", ("rotary",)),
    "rotary_pct": (1.0, (1, 1.0)),
    "activation": ("gelu", ("swiglu",)),
    "use_bias_in_attn_linear": (True, (False,)),
    "use_bias_in_mlp": (True, (False,)),
    "gpt_j_residual": (False, (False,)),
    "gpt_j_tied": (False, (False,)),
    "hidden_dropout": (0.0, (0, 0.0)),
    "attention_dropout": (0.0, (0, 0.0)),
    "use_qk_layernorm": (False, (False,)),
    "apply_query_key_layer_scaling": (False, (False,)),
    "sliding_window_width": (None, (None,)),
    "expansion_factor": (None, (None,)),
    "num_unique_layers": (None, (None,)),
    "soft_prompt_tuning": (None, (None,)),
    "moe_num_experts": (1, (1,)),
    "use_mup": (False, (False,)),
    "eod_mask_loss": (False, (False,)),
    "z_loss": (0.0, (0, 0.0)),
    "tokenizer_type": ("GPT2BPETokenizer", ("HFTokenizer",)),
    "data_impl": ("infer", ("infer", "mmap")),
    "pack_impl": ("packed", ("packed",)),
    "dataset_impl": ("gpt2", ("gpt2",)),
    "train_impl": ("normal", ("normal",)),
    "train_epochs": (None, (None,)),
    "train_data_paths": (None, (None,)),
    "curriculum_learning": (None, (None,)),
    "checkpoint_scale": ("linear", ("linear",)),
    "fp16_lm_cross_entropy": (False, (False,)),
    "use_bnb_optimizer": (False, (False,)),
    "te_columnparallel": (False, (False,)),
    "te_rowparallel": (False, (False,)),
    "te_layernorm_mlp": (False, (False,)),
    "te_mha": (False, (False,)),
}

# They are looked into (local/sections.py).
SECTIONS = ("fp16", "amp", "attention_config", "sparsity_config", "deepspeed_extra_args")

# Keys of deepspeed_extra_args that concern the system.
DEEPSPEED_WITHOUT_EFFECT = frozenset(
    """
    zero_optimization comms_logger steps_per_print wall_clock_breakdown communication_data_type
    activation_checkpointing flops_profiler data_types tensorboard wandb csv_monitor
    """.split()
)

# They concern the system (speed, memory, layout, logging) and not what is computed.
WITHOUT_EFFECT = frozenset(
    """
    pipe_parallel_size sequence_parallel pipe_partition_method world_size zero_optimization zero_stage
    zero_reduce_scatter zero_contiguous_gradients zero_reduce_bucket_size zero_allgather_bucket_size
    scaled_upper_triang_masked_softmax_fusion scaled_masked_softmax_fusion
    bias_gelu_fusion bias_dropout_fusion rope_fusion layernorm_fusion rmsnorm_fusion use_flashattn_swiglu
    fused_kernels_build_path attention_softmax_in_fp32 use_cpu_initialization rotary_save_freqs_buffer
    use_bias_in_norms layernorm_epsilon output_layer_parallelism checkpoint_activations checkpoint_num_layers
    deepspeed_activation_checkpointing contiguous_checkpointing checkpoint_in_cpu synchronize_each_layer
    profile_backward partition_activations activation_checkpointing num_workers distributed_backend local_rank rank
    lazy_mpu_init mmap_warmup use_shared_fs deepspeed deepspeed_mpi deepspeed_slurm
    steps_per_print wall_clock_breakdown dump_state flops_profiler communication_data_type data_types autotuning
    comms_logger tensorboard wandb csv_monitor prescale_gradients gradient_predivide_factor sparse_gradients
    fp32_allreduce hostfile include exclude num_nodes num_gpus master_port master_addr launcher force_multi
    no_ssh_check detect_nvlink_pairs comment account use_wandb wandb_group wandb_run_name wandb_team wandb_project
    wandb_host wandb_init_all_ranks use_comet comet_workspace comet_project comet_experiment_name comet_tags
    comet_others log_dir tensorboard_dir peak_theoretical_tflops log_grad_pct_zeros log_param_norm log_grad_norm
    log_optimizer_states log_gradient_noise_scale memory_profiling memory_profiling_path profile profile_step_start
    profile_step_stop loss_scale loss_scale_window hysteresis min_scale dynamic_loss_scale
    checkpoint_validation_with_forward_pass no_save_optim no_save_rng no_load_rng override_lr_scheduler
    use_checkpoint_lr_scheduler text_gen_type temperature top_p top_k maximum_tokens prompt_end sample_input_file
    sample_output_file num_samples recompute eval_results_prefix eval_tasks char_level_ppl merge_file s3_path
    s3_chunk_size onnx_safe gmlp_attn_dim rpe_num_buckets rpe_max_distance opt_pos_emb_offset scalenorm_epsilon
    """.split()
)

KNOWN = frozenset([*HONOURED, *FIXED, *SECTIONS, *WITHOUT_EFFECT])


# What the values of a GPT-NeoX YAML must be, one by one and beside each other, for the embedded engine.

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


# The dictionaries and lists inside a GPT-NeoX YAML that the embedded engine looks into.

ATTENTION_TYPES = ("global", "flash")
NOT_HONOURED = "cannot be honoured by the local engine; leave it out, or train with GPT-NeoX"


def read_precision(given: Given) -> str:
    """Either fp32 or bfloat16, from precision and bf16 as GPT-NeoX derives it (calculate_derived).

    Raises:
        InputError: fp16 or amp is asked for, or precision and bf16 contradict each other.
    """
    for key in ("fp16", "amp"):
        if _enabled(given, key, given.values.get(key)):
            raise InputError(
                f"{given.file_of(key)}: {key} is switched on; "
                "the local engine trains in fp32 or bfloat16: set precision"
            )
    bf16 = given.values.get("bf16")
    precision = given.values.get("precision") or ("bfloat16" if _enabled(given, "bf16", bf16) else "fp32")
    if precision == "fp16":
        raise given.wrong("precision", precision, "fp32 or bfloat16: the local engine does not scale the loss")
    if precision not in ("fp32", "bfloat16"):
        raise given.wrong("precision", precision, "fp32 or bfloat16")
    _check_bf16(given, "bf16", bf16, precision)
    return str(precision)


def read_optimizer(given: Given) -> dict[str, Any]:
    """Adam with lr, and betas and eps where they are given, as floats (torch refuses whole numbers among betas).

    Raises:
        InputError: another optimizer, another parameter or a wrong value.
    """
    optimizer = given.values["optimizer"]
    if str(optimizer.get("type", "")).lower() != "adam":
        raise InputError(
            f"{given.file_of('optimizer')}: optimizer.type is {optimizer.get('type')!r}; the local engine has Adam"
        )
    params = optimizer.get("params")
    if not isinstance(params, Mapping) or "lr" not in params:
        raise InputError(f"{given.file_of('optimizer')}: optimizer.params.lr is missing")
    for key, value in params.items():
        if key not in OPTIMIZER_PARAMS:
            raise InputError(
                f"{given.file_of('optimizer')}: optimizer.params.{key} cannot be honoured; expected lr, betas and eps"
            )
        right, expected = OPTIMIZER_PARAMS[key]
        if not right(value):
            raise given.wrong(f"optimizer.params.{key}", value, expected)
    floats = {key: [*map(float, value)] if key == "betas" else float(value) for key, value in params.items()}
    return {**optimizer, "params": floats}


def check_attention(given: Given, num_layers: int) -> None:
    """Every layer must attend to all that came before: other types are other models.

    Raises:
        InputError: names the type, or what GPT-NeoX could not read.
    """
    if given.values.get("sparsity_config"):
        raise InputError(f"{given.file_of('sparsity_config')}: sparsity_config {NOT_HONOURED}")
    config = given.values.get("attention_config")
    if config is None:
        return
    found = _attention_types(config, num_layers)
    if found is None:
        raise given.wrong("attention_config", config, "a list of [list of types, count], such as [[['global'], 12]]")
    types, layers = found
    for name in types:
        if name not in ATTENTION_TYPES:
            raise given.wrong("attention_config", config, f"no other types than global and flash, not {name!r}")
    if layers != num_layers:
        raise given.wrong("attention_config", config, f"as many as num_layers, {num_layers}, not {layers}")


def check_extra_args(given: Given, values: Mapping[str, Any]) -> list[str]:
    """Look through deepspeed_extra_args, which DeepSpeed prefers to the keys of the YAML itself.

    Returns: the keys without effect, dotted.

    Raises:
        InputError: a key that contradicts the YAML or cannot be honoured.
    """
    extra = given.values.get("deepspeed_extra_args")
    if extra is None:
        return []
    if not isinstance(extra, Mapping):
        raise given.wrong("deepspeed_extra_args", extra, "a dictionary")
    without_effect = []
    for key, value in extra.items():
        name = f"deepspeed_extra_args.{key}"
        if key in DEEPSPEED_WITHOUT_EFFECT:
            without_effect.append(name)
        elif key == "bf16":
            _check_bf16(given, name, value, values["precision"])
        elif key != "gradient_clipping":
            raise InputError(f"{given.file_of(name)}: {name} {NOT_HONOURED}")
        elif isinstance(value, bool) or value != values[key]:
            raise given.wrong(name, value, f"the value of gradient_clipping itself, {values[key]!r}")
    return without_effect


def _enabled(given: Given, key: str, section: Any) -> bool:
    if section is not None and not isinstance(section, Mapping):
        raise given.wrong(key, section, "a dictionary")
    enabled = (section or {}).get("enabled", False)
    if not isinstance(enabled, bool):
        raise given.wrong(f"{key}.enabled", enabled, "true or false")
    return enabled


def _check_bf16(given: Given, key: str, section: Any, precision: str) -> None:
    enabled = _enabled(given, key, section)
    if section and enabled != (precision == "bfloat16"):
        raise InputError(
            f"{given.file_of(key)}: {key}.enabled is {enabled!r} but precision is {precision!r}; "
            "expected true with bfloat16 and false with fp32"
        )


def _attention_types(config: Any, num_layers: int) -> tuple[list[Any], int] | None:
    """The types and the number of layers they make (expand_attention_types); None where GPT-NeoX would fail."""
    if not isinstance(config, list):
        return None
    if all(isinstance(item, str) for item in config):
        return config, len(config)
    types: list[Any] = []
    layers = 0
    for item in config:
        match item:
            case [[_, *_] as pattern, "all"]:
                return pattern, num_layers // len(pattern) * len(pattern)
            case [[_, *_] as pattern, int(count)] if count >= 0:
                types, layers = types + pattern, layers + count * len(pattern)
            case _:
                return None
    return types, layers


# Reads GPT-NeoX YAMLs for the embedded engine: what it can honour is kept, what it cannot is refused by name.


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
