from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_world import settings, write_yaml

from kisl_plugin.errors import InputError
from kisl_plugin.files import resource
from kisl_plugin.local.config import LocalConfig, read_config
from kisl_plugin.neox_config import KEY_RULES

DEMO = read_config([resource("neox_configs") / "demo.yml"])


def read(tmp_path: Path, **changes: Any) -> LocalConfig:
    return read_config([write_yaml(tmp_path / "run.yml", settings(tmp_path, tmp_path / "out", **changes))])


def test_the_demo_yaml_is_read() -> None:
    assert DEMO.samples == 600 * 8
    assert DEMO.unused == ("output_layer_parallelism", "use_bias_in_norms")


def test_left_out_keys_have_the_values_of_gpt_neox(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config["weight_decay"] == 0.1
    assert config["gradient_clipping"] == 1.0
    assert config["init_method"] == "normal"
    assert config["precision"] == "fp32"


def test_keys_without_effect_are_listed(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        attention_config=[[["flash"], 1]],
        zero_optimization={"stage": 1},
        pipe_parallel_size=2,
        num_workers=4,
        deepspeed_extra_args={"comms_logger": {"enabled": True}},
    )
    assert config.unused == (
        "num_workers",
        "pipe_parallel_size",
        "zero_optimization",
        "deepspeed_extra_args.comms_logger",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dropout": 0.1}, "hidden_dropout is 0.1; the local engine needs 0: it has no dropout"),
        ({"norm": "layernorm"}, "norm is 'layernorm'; .* needs rmsnorm"),
        ({"norm": None}, "norm is not given, and GPT-NeoX's default is 'layernorm'; .* needs rmsnorm"),
        ({"num_layer": 3}, "num_layer is unknown; did you mean num_layers?"),
        ({"optimizer": {"type": "Adam", "params": {"lr": "1e-4"}}}, "lr is '1e-4'; .* write 1.0e-4"),
        ({"optimizer": {"type": "sgd", "params": {"lr": 0.1}}}, "optimizer.type is 'sgd'; expected Adam"),
        ({"optimizer": {"type": "Adam", "params": {"lr": 0.1, "weight_decay": 1}}}, "params.weight_decay is not supp"),
        ({"train_batch_size": 8, "train_micro_batch_size_per_gpu": 3}, "train_batch_size is 8; expected"),
        ({"train_batch_size": None}, "train_micro_batch_size_per_gpu is missing"),
        ({"data_path": None}, "data_path is missing"),
        ({"precision": "fp16"}, "precision is 'fp16'; expected one of fp32, bfloat16"),
        ({"precision": "fp32", "bf16": {"enabled": True}}, "bf16.enabled is True; .* precision is 'fp32'"),
        ({"precision": "bfloat16", "bf16": {"enabled": False}}, "bf16.enabled is False; .* precision is 'bfloat16'"),
        ({"bf16": {"enabled": "no"}}, "bf16.enabled is 'no'; expected true or false"),
        ({"fp16": {"enabled": "yes"}}, "fp16 is .*'yes'.* set precision"),
        ({"intermediate_size": 101}, "intermediate_size 101 .* 68 outputs for 33 inputs; use a multiple of 6"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, **changes)
    assert "run.yml" in str(caught.value)
    assert "\n" not in str(caught.value)


NUMBER, WHOLE = "a finite number", "a whole number, 1 or more"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *[("split", value, "shares such as") for value in ("abc", "0,0,0", "90,-10,20", "nan,1,1", "80,10/10", 90)],
        *[("seed", value, "a whole number from 0 to") for value in (-1, 2**33, 1.5)],
        *[(key, 0, WHOLE) for key in ("num_layers", "intermediate_size", "eval_interval", "log_interval",
          "mlp_multiple_of", "make_vocab_size_divisible_by", "model_parallel_size", "gradient_accumulation_steps",
          "num_kv_heads", "rotary_emb_base", "lr_decay_iters", "checkpoint_factor", "keep_last_n_checkpoints")],
        ("hidden_size", "16", WHOLE),
        ("train_batch_size", -4, WHOLE),
        ("eval_iters", -1, "a whole number, 0 or more"),
        ("hidden_size", 18, "a multiple of num_attention_heads, 4"),
        ("hidden_size", 12, "an even size for each of num_attention_heads, 4"),
        ("num_kv_heads", 3, "a divisor of num_attention_heads, 4"),
        ("max_position_embeddings", 32, "seq_length, 64, or more"),
        ("train_iters", 2**40, "at most 2147483648 samples"),
        *[(key, -1.0, NUMBER) for key in ("rms_norm_epsilon", "init_method_std", "gradient_clipping", "min_lr")],
        *[("warmup", value, f"{NUMBER} from 0 to 1") for value in (2.0, -0.1, float("nan"), "1e-2")],
        *[("weight_decay", value, NUMBER) for value in (float("inf"), 10**400, -0.1, True)],
        ("min_lr", 0.01, "at most optimizer.params.lr, 0.005"),
        *[("lr_decay_fraction", value, f"{NUMBER} above 0, at most 1") for value in (0, 1.1)],
        ("init_method", "xavier_normal", "one of normal"),
        ("lr_decay_style", "exponential", "one of constant"),
        *[("extra_save_iters", value, "a list of whole numbers") for value in (["a"], [-1])],
        *[("optimizer.params.lr", value, NUMBER) for value in (-1, float("inf"), None)],
        ("optimizer.params.eps", -1e-8, NUMBER),
        *[("optimizer.params.betas", value, "a list of two numbers") for value in (0.9, [0.9, 1.5], [0.9])],
        ("data_path", ".", "the path"),
        ("load", "", "the path"),
        ("bf16", True, "a section"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named_with_its_file_and_what_was_expected(
    tmp_path: Path, key: str, value: Any, expected: str
) -> None:
    values = settings(tmp_path, tmp_path / "out", num_attention_heads=4, hidden_size=16)
    section = values["optimizer"]["params"] if "." in key else values
    section[key.split(".")[-1]] = value
    own = {name: values.pop(name) for name in [key.split(".")[0]]}
    paths = [write_yaml(tmp_path / "own.yml", own), write_yaml(tmp_path / "rest.yml", values)]
    with pytest.raises(InputError) as caught:
        read_config(paths)
    assert str(caught.value).startswith(f"{paths[0]}: {key} is {value!r}; expected {expected}")
    assert "\n" not in str(caught.value)


KEYS = sorted({rule.key for rule in KEY_RULES} | DEMO.values.keys() | {"deepspeed_extra_args"})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "1e-4", "all", "global"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["enabled", "type", "params", "lr", "bf16"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(tmp_path: Path, key: str, value: Any) -> None:
    path = write_yaml(tmp_path / "run.yml", {**settings(tmp_path, tmp_path / "out"), key: value})
    try:
        config = read_config([path])
    except InputError as error:
        assert key in str(error) or "train_batch_size" in str(error)
        assert "\n" not in str(error)
    else:
        assert config.batch >= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "1"},
        {"split": "90/10"},
        {"seed": 2**32 - 1},
        {"eval_iters": 0},
        {"warmup": 1},
        {"gradient_clipping": 0},
        {"extra_save_iters": [0, 1, 2]},
        {"min_lr": 5.0e-3},
        {"num_kv_heads": 1},
        {"optimizer": {"type": "Adam", "params": {"lr": 1, "betas": [0, 0.5], "eps": 0}}},
        {"fp16": {"enabled": False}, "amp": {}},
    ],
)
def test_values_at_the_edge_are_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = read(tmp_path, **changes)
    assert all(config[key] == value for key, value in changes.items() if key in config.values)


@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({"precision": "bfloat16"}, "bfloat16"),
        ({"bf16": {"enabled": True}}, "bfloat16"),
        ({"bf16": {"enabled": False}}, "fp32"),
        ({"precision": "bfloat16", "bf16": {}}, "bfloat16"),
        ({"precision": "fp32", "bf16": {"enabled": False}}, "fp32"),
    ],
)
def test_precision_is_derived_as_in_gpt_neox(tmp_path: Path, changes: dict[str, Any], precision: str) -> None:
    assert read(tmp_path, **changes)["precision"] == precision


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"gradient_clipping": 0.5},
            r"\.gradient_clipping is 0.5; expected the value of gradient_clipping itself, 1.0",
        ),
        ({"gradient_clipping": True}, r"\.gradient_clipping is True; expected the value"),
        ({"bf16": {"enabled": True}}, r"\.bf16 is .*; expected the value of bf16 itself, None"),
        ({"fp16": {"enabled": True}}, r"\.fp16 is "),
        ({"optimizer": {"type": "SGD"}}, r"\.optimizer is "),
        ({"scheduler": {"type": "OneCycle"}}, r"\.scheduler is "),
        ([1], r" is \[1\]; expected a section"),
    ],
)
def test_deepspeed_extra_args_must_not_contradict_the_yaml(tmp_path: Path, extra: Any, message: str) -> None:
    same = {"gradient_clipping": 1, "bf16": {"enabled": False}, "curriculum_learning": {}}
    read(tmp_path, deepspeed_extra_args=same)
    with pytest.raises(InputError, match=rf"run.yml: deepspeed_extra_args{message}"):
        read(tmp_path, deepspeed_extra_args=extra)


def test_gradient_accumulation_makes_the_batch(tmp_path: Path) -> None:
    config = read(tmp_path, train_batch_size=None, train_micro_batch_size_per_gpu=3, gradient_accumulation_steps=4)
    assert config.batch == 12
    assert config.samples == 240


def test_an_accumulation_of_null_follows_from_the_batch(tmp_path: Path) -> None:
    batch = {"train_batch_size": 12, "train_micro_batch_size_per_gpu": 3}
    values = {**settings(tmp_path, tmp_path / "out", **batch), "gradient_accumulation_steps": None}
    config = read_config([write_yaml(tmp_path / "run.yml", values)])
    assert config["gradient_accumulation_steps"] == 4
    assert config.batch == 12
