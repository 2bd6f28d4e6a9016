from pathlib import Path
from typing import Any

import pytest
from tiny_world import settings, write_yaml

from kisl_plugin.errors import InputError
from kisl_plugin.local.config import Config, read_config
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
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, **changes)
    assert "run.yml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_in_two_files_is_refused(tmp_path: Path) -> None:
    first = write_yaml(tmp_path / "a.yml", {"seed": 1})
    second = write_yaml(tmp_path / "b.yml", {"seed": 1})
    with pytest.raises(InputError, match=r"b.yml: seed stands in .*a.yml too"):
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
