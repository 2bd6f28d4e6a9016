from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_world import settings, write_yaml

from kisl_plugin.errors import InputError
from kisl_plugin.local.config import KNOWN, Config, read_config
from kisl_plugin.resources import resource


def read(tmp_path: Path, **changes: Any) -> Config:
    return read_config([write_yaml(tmp_path / "run.yml", settings(tmp_path, tmp_path / "out", **changes))])


def test_the_demo_yaml_is_read() -> None:
    config = read_config([resource("neox_configs") / "demo.yml"])
    assert config.samples == 586 * 8
    assert config.without_effect == ("output_layer_parallelism", "use_bias_in_norms")


def test_left_out_keys_have_the_values_of_gpt_neox(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config["weight_decay"] == 0.1
    assert config["gradient_clipping"] == 1.0
    assert config["init_method"] == "normal"
    assert config.precision == "fp32"


def test_keys_of_the_system_are_listed_as_without_effect(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        attention_config=[[["flash"], 1]],
        zero_optimization={"stage": 1},
        pipe_parallel_size=2,
        num_workers=4,
        checkpoint_activations=True,
    )
    assert config.without_effect == (
        "attention_config",
        "checkpoint_activations",
        "num_workers",
        "pipe_parallel_size",
        "zero_optimization",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dropout": 0.1}, "hidden_dropout is 0.1; the local engine .* needs 0"),
        ({"norm": "layernorm"}, "norm is 'layernorm'; .* needs 'rmsnorm'"),
        ({"norm": None}, "norm is not given, which means 'layernorm' to GPT-NeoX; .* needs 'rmsnorm'"),
        ({"pos_emb": "alibi"}, "pos_emb is 'alibi'"),
        ({"train_data_paths": ["a"]}, "train_data_paths is"),
        ({"fp16": {"enabled": True}}, "fp16 is switched on"),
        ({"num_layer": 3}, "num_layer is unknown to the local engine; did you mean num_layers?"),
        ({"dim_att": 3}, "dim_att cannot be honoured by the local engine"),
        ({"hidden_size": "16"}, "hidden_size is '16'; expected int"),
        ({"hidden_size": 15}, "hidden_size is 15; expected a multiple of num_attention_heads, 2"),
        ({"optimizer": {"type": "Adam", "params": {"lr": "1e-4"}}}, "lr is '1e-4'; .* write 1.0e-4"),
        ({"optimizer": {"type": "sgd", "params": {"lr": 0.1}}}, "optimizer.type is 'sgd'"),
        ({"optimizer": {"type": "Adam", "params": {"lr": 0.1, "weight_decay": 1}}}, "params.weight_decay cannot"),
        ({"train_batch_size": 8, "train_micro_batch_size_per_gpu": 3}, "train_batch_size 8 is not"),
        ({"train_batch_size": None}, "train_micro_batch_size_per_gpu is missing"),
        ({"data_path": None}, "data_path is missing"),
        ({"lr_decay_style": "steps"}, "lr_decay_style is 'steps'; expected one of constant"),
        ({"max_position_embeddings": 32}, "max_position_embeddings is 32"),
        ({"use_mup": 0}, "use_mup is 0"),
        ({"sparsity_config": {"block": 16}}, "sparsity_config cannot be honoured"),
        ({"precision": "fp16"}, "precision is 'fp16'; expected fp32 or bfloat16: .* does not scale the loss"),
        ({"precision": "fp32", "bf16": {"enabled": True}}, "bf16.enabled is True but precision is 'fp32'"),
        ({"precision": "bfloat16", "bf16": {"enabled": False}}, "bf16.enabled is False but precision is 'bfloat16'"),
        ({"bf16": {"enabled": "no"}}, "bf16.enabled is 'no'; expected true or false"),
        ({"bf16": True}, "bf16 is True; expected dict"),
        ({"fp16": {"enabled": "yes"}}, "fp16.enabled is 'yes'; expected true or false"),
        ({"fp16": "on"}, "fp16 is 'on'; expected a dictionary"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, **changes)
    assert "run.yml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("split", "abc", "shares such as"),
        ("split", "0,0,0", "shares such as"),
        ("split", "90,-10,20", "shares such as"),
        ("split", "nan,1,1", "shares such as"),
        ("split", "80,10/10", "shares such as"),
        ("split", "0,0,0,1", "shares such as"),
        ("split", 90, "str"),
        ("seed", -1, "a number from 0 to"),
        ("seed", 2**33, "a number from 0 to"),
        ("seed", 1.5, "int"),
        ("num_layers", 0, "a number, 1 or more"),
        ("intermediate_size", 0, "a number, 1 or more"),
        ("eval_interval", 0, "a number, 1 or more"),
        ("log_interval", 0, "a number, 1 or more"),
        ("eval_iters", -1, "a number, 0 or more"),
        ("mlp_multiple_of", 0, "a number, 1 or more"),
        ("make_vocab_size_divisible_by", 0, "a number, 1 or more"),
        ("model_parallel_size", 0, "a number, 1 or more"),
        ("gradient_accumulation_steps", 0, "a number, 1 or more"),
        ("train_batch_size", -4, "a number, 1 or more"),
        ("hidden_size", 18, "a multiple of num_attention_heads, 4"),
        ("hidden_size", 12, "an even size for each of num_attention_heads, 4"),
        ("num_kv_heads", -1, "a number, 1 or more"),
        ("num_kv_heads", 0, "a number, 1 or more"),
        ("num_kv_heads", 3, "a divisor of num_attention_heads, 4"),
        ("rotary_emb_base", 0, "a number, 1 or more"),
        ("rms_norm_epsilon", 0, "a number above 0"),
        ("init_method_std", -0.02, "a number above 0"),
        ("init_method", "orthogonal", "one of normal"),
        ("warmup", 2.0, "a number from 0 to 1"),
        ("warmup", -0.1, "a number from 0 to 1"),
        ("warmup", float("nan"), "a finite number"),
        ("warmup", "1e-2", "a finite number; YAML reads 1e-4 as text"),
        ("weight_decay", float("inf"), "a finite number"),
        ("weight_decay", 10**400, "a finite number"),
        ("weight_decay", -0.1, "a number, 0 or more"),
        ("weight_decay", True, "a finite number"),
        ("gradient_clipping", -1.0, "a number, 0 or more"),
        ("min_lr", -1e-5, "a number, 0 or more"),
        ("min_lr", 0.01, "optimizer.params.lr, 0.005, at most"),
        ("lr_decay_iters", 0, "a number, 1 or more"),
        ("lr_decay_fraction", 0, "a number above 0, 1 at most"),
        ("lr_decay_fraction", 1.1, "a number above 0, 1 at most"),
        ("checkpoint_factor", 0, "a number, 1 or more"),
        ("keep_last_n_checkpoints", 0, "a number, 1 or more"),
        ("extra_save_iters", ["a"], "a list of whole numbers"),
        ("extra_save_iters", [-1], "a list of whole numbers"),
        ("optimizer.params.lr", -1, "a number, 0 or more"),
        ("optimizer.params.lr", float("inf"), "a number, 0 or more"),
        ("optimizer.params.lr", None, "a number, 0 or more"),
        ("optimizer.params.eps", -1e-8, "a number, 0 or more"),
        ("optimizer.params.betas", 0.9, "a list of two numbers"),
        ("optimizer.params.betas", [0.9, 1.5], "a list of two numbers"),
        ("optimizer.params.betas", [0.9, float("nan")], "a list of two numbers"),
        ("optimizer.params.betas", [0.9], "a list of two numbers"),
    ],
)
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
@given(key=st.sampled_from(sorted(KNOWN)), value=VALUES)
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
        ({"precision": "bfloat16", "deepspeed_extra_args": {"bf16": {"enabled": True}}}, "bfloat16"),
        ({"precision": "fp32", "bf16": {"enabled": False}}, "fp32"),
    ],
)
def test_precision_is_derived_as_in_gpt_neox(tmp_path: Path, changes: dict[str, Any], precision: str) -> None:
    assert read(tmp_path, **changes).precision == precision


@pytest.mark.parametrize(
    "attention",
    [
        [[["global"], 4]],
        [[["flash", "global"], 2]],
        [[["flash"], "all"]],
        [[["flash", "global"], "all"]],
        [[["flash"], 1], [["global"], 3]],
        ["flash", "global", "global", "flash"],
    ],
)
def test_full_attention_is_taken_in_every_nesting_of_gpt_neox(tmp_path: Path, attention: list[Any]) -> None:
    assert read(tmp_path, num_layers=4, attention_config=attention).without_effect == ("attention_config",)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ([[["mamba"], 4]], "not 'mamba'"),
        ([[["gmlp"], "all"]], "not 'gmlp'"),
        ([[["flash"], 3], [["amlp"], 1]], "not 'amlp'"),
        (["global", "global", "global", "rwkv"], "not 'rwkv'"),
        ([[["global", "sparse_fixed"], 2]], "not 'sparse_fixed'"),
        ([[["global", 3], 2]], "not 3"),
        ([[["global"], 3]], "as many as num_layers, 4, not 3"),
        ([[["global", "flash", "flash"], "all"]], "as many as num_layers, 4, not 3"),
        ([[[], "all"]], "a list of"),
        ([["global", 4]], "a list of"),
        ("global", "a list of"),
    ],
)
def test_other_attention_is_refused(tmp_path: Path, attention: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"run.yml: attention_config is .*; expected .*{message}"):
        read(tmp_path, num_layers=4, attention_config=attention)


def test_deepspeed_extra_args_are_looked_through(tmp_path: Path) -> None:
    extra = {"gradient_clipping": 1, "zero_optimization": {"stage": 1}, "comms_logger": {"enabled": True}}
    config = read(tmp_path, deepspeed_extra_args={**extra, "bf16": {"enabled": False}})
    assert config.without_effect == ("deepspeed_extra_args.comms_logger", "deepspeed_extra_args.zero_optimization")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"gradient_clipping": 0.5}, r"gradient_clipping is 0.5; expected the value of gradient_clipping itself, 1.0"),
        ({"gradient_clipping": True}, r"gradient_clipping is True; expected the value"),
        ({"bf16": {"enabled": True}}, r"bf16.enabled is True but precision is 'fp32'"),
        ({"bf16": {"enabled": 1}}, r"bf16.enabled is 1; expected true or false"),
        ({"fp16": {"enabled": True}}, r"fp16 cannot be honoured"),
        ({"optimizer": {"type": "SGD"}}, r"optimizer cannot be honoured"),
        ({"scheduler": {"type": "OneCycle"}}, r"scheduler cannot be honoured"),
        ({"curriculum_learning": {}}, r"curriculum_learning cannot be honoured"),
    ],
)
def test_mathematics_in_deepspeed_extra_args_are_refused(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"run.yml: deepspeed_extra_args\.{message}"):
        read(tmp_path, deepspeed_extra_args=extra)
    with pytest.raises(InputError, match=r"run.yml: deepspeed_extra_args is \[1\]; expected a dictionary"):
        read(tmp_path, deepspeed_extra_args=[1])


def test_two_files_of_the_same_name_are_refused(tmp_path: Path) -> None:
    first = write_yaml(tmp_path / "a" / "run.yml", {"seed": 1})
    second = write_yaml(tmp_path / "b" / "run.yml", {"num_layers": 1})
    with pytest.raises(InputError) as caught:
        read_config([first, second])
    assert str(caught.value).startswith(f"{second}: has the same file name as {first}")


def test_a_key_that_stands_in_two_files_is_refused(tmp_path: Path) -> None:
    first = write_yaml(tmp_path / "a.yml", {"seed": 1})
    second = write_yaml(tmp_path / "b.yml", {"seed": 1})
    with pytest.raises(InputError, match=r"b.yml: seed is also in .*a.yml"):
        read_config([first, second])


def test_files_that_are_not_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yml: cannot be read"):
        read_config([tmp_path / "none.yml"])
    (tmp_path / "bad.yml").write_text("{a: [}")
    with pytest.raises(InputError, match=r"bad.yml: not YAML"):
        read_config([tmp_path / "bad.yml"])
    (tmp_path / "text.yml").write_text("hello")
    with pytest.raises(InputError, match=r"text.yml: expected keys and values, got str"):
        read_config([tmp_path / "text.yml"])


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


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text("seed: 1\noptimizer: {type: Adam, type: Adam}\nseed: 2\n")
    with pytest.raises(InputError, match=r"run.yml: not YAML \(it contains the key 'seed' 2 times"):
        read_config([tmp_path / "run.yml"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_path": "."}, "data_path is '.'; expected the path"),
        ({"load": ""}, "load is ''; expected the path"),
        ({"train_iters": 2**40}, "train_iters is 1099511627776; expected at most 2147483648 samples"),
    ],
)
def test_paths_and_sizes_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, **changes)
