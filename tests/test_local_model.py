import math
from pathlib import Path

import pytest
import torch
from tiny_world import settings, write_yaml

from kisl_plugin.errors import InputError
from kisl_plugin.local.config import LocalConfig, read_config
from kisl_plugin.local.training import build_model, build_optimizer, count_parameters, learning_rate
from kisl_plugin.neox_config import swiglu_width


def config_of(tmp_path: Path, **changes: object) -> LocalConfig:
    return read_config([write_yaml(tmp_path / "run.yml", settings(tmp_path, tmp_path / "out", **changes))])


@pytest.mark.parametrize(
    ("intermediate", "hidden", "multiple", "width"),
    [(32768, 4096, 256, 11008), (576, 64, 1, 192), (None, 768, 256, 1024), (None, 64, 2, 86)],
)
def test_the_inner_width_is_that_of_gpt_neox(intermediate: int | None, hidden: int, multiple: int, width: int) -> None:
    values = {"intermediate_size": intermediate, "hidden_size": hidden, "mlp_multiple_of": multiple}
    assert swiglu_width(values) == width


def test_an_expansion_factor_gives_the_width_that_its_size_does() -> None:
    assert swiglu_width({"hidden_size": 64, "expansion_factor": 9}) == swiglu_width(
        {"hidden_size": 64, "intermediate_size": 576}
    )


def test_widths_that_gpt_neox_could_not_multiply_are_refused() -> None:
    with pytest.raises(InputError, match=r"intermediate_size 101 .* 68 outputs for 33 inputs; use a multiple of 6"):
        for size in range(100, 110):
            swiglu_width({"intermediate_size": size, "hidden_size": 64})


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="intermediate_size 1 "):
        swiglu_width({"intermediate_size": 1, "hidden_size": 64})


def test_parameters_are_counted_by_hand(tmp_path: Path) -> None:
    model = build_model(config_of(tmp_path), vocabulary=400, eod=0)
    hidden, inner, vocabulary = 16, 32, 512
    layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    assert count_parameters(model) == (layer + hidden + 2 * vocabulary * hidden, layer + hidden)


def test_tied_embeddings_count_once(tmp_path: Path) -> None:
    model = build_model(config_of(tmp_path, no_weight_tying=False), vocabulary=400, eod=0)
    total, inner = count_parameters(model)
    assert total - inner == 512 * 16


def test_weights_are_drawn_as_gpt_neox_draws_them(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        hidden_size=128,
        num_layers=4,
        intermediate_size=1536,
        init_method="small_init",
        output_layer_init_method="wang_init",
    )
    layer = build_model(config, vocabulary=400, eod=0).model.layers[0]
    assert float(layer.self_attn.q_proj.weight.detach().std()) == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.03)
    assert float(layer.mlp.down_proj.weight.detach().std()) == pytest.approx(2 / 4 / math.sqrt(128), rel=0.03)
    assert torch.equal(layer.input_layernorm.weight, torch.ones(128))


def test_norms_have_no_weight_decay(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    model = build_model(config, vocabulary=400, eod=0)
    decayed, plain = build_optimizer(model, config, torch.device("cpu")).param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_whole_numbers_among_betas_are_taken(tmp_path: Path) -> None:
    config = config_of(tmp_path, optimizer={"type": "Adam", "params": {"lr": 1, "betas": [0, 0.5]}})
    optimizer = build_optimizer(build_model(config, vocabulary=400, eod=0), config, torch.device("cpu"))
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.5)


def test_the_learning_rate_warms_up_and_decays_as_in_gpt_neox(tmp_path: Path) -> None:
    config = config_of(tmp_path, train_iters=100, warmup=0.1, min_lr=1e-3)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(5e-4)
    assert rates[1] == pytest.approx(5e-4)
    assert rates[10] == pytest.approx(5e-3)
    assert rates[55] == pytest.approx(1e-3 + 4e-3 / 2 * (math.cos(math.pi / 2) + 1))
    assert rates[-1] == pytest.approx(1e-3, rel=1e-2)
    assert learning_rate(500, config_of(tmp_path, lr_decay_style="constant")) == 5e-3
    assert learning_rate(15, config_of(tmp_path, lr_decay_style="linear", warmup=0.0)) == pytest.approx(5e-3 / 4)
