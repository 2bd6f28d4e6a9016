"""What `kisl export` writes gives the logits of GPT-NeoX's own model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_checkpoint import STEP, made
from numpy.typing import NDArray
from running import neox_settings, train
from test_runcard import TRIPLES
from test_runcard import card as some_card
from tiny_world import write_yaml
from transformers import AutoTokenizer, LlamaForCausalLM

import kisl_plugin.neox.export
from kisl_plugin.cli.main import main
from kisl_plugin.errors import KislError
from kisl_plugin.neox.export import export_checkpoint
from kisl_plugin.neox.install import TESTED_COMMIT
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, write_run_card

# Weights far from their initial values, so that logits differ; values that are nobody's defaults.
LIVELY: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "init_method_std": 0.08,
    "train_iters": 8,
    "lr_decay_style": "constant",
    "optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.95]}},
    "rotary_emb_base": 500,
    "eval_iters": 0,
    "split": "100,0,0",
    "load": None,
}
FAST: dict[str, dict[str, Any]] = {
    "plain attention": {},
    "grouped queries, tensor parallel 2": {"num_kv_heads": 2, "model_parallel_size": 2, "num_gpus": 2},
}
SLOW: dict[str, dict[str, Any]] = {
    "tensor parallel 2": {"model_parallel_size": 2, "num_gpus": 2},
    "grouped queries": {"num_kv_heads": 2},
    "one key head, scaled by layer": {"num_kv_heads": 1, "apply_query_key_layer_scaling": True},
    "pipeline 1": {"pipe_parallel_size": 1},
    "pipeline 2": {"pipe_parallel_size": 2, "num_gpus": 2},
    "tensor parallel 2, pipeline 2, grouped queries": {
        "model_parallel_size": 2,
        "pipe_parallel_size": 2,
        "num_gpus": 4,
        "num_kv_heads": 2,
    },
    "tied": {"no_weight_tying": False},
    "tied, tensor parallel 2": {"no_weight_tying": False, "model_parallel_size": 2, "num_gpus": 2},
    "tied, pipeline 2": {"no_weight_tying": False, "pipe_parallel_size": 2, "num_gpus": 2},
    "ZeRO-1, data parallel 2": {"zero_optimization": {"stage": 1}, "num_gpus": 2},
    "epsilon of its own": {"rms_norm_epsilon": 0.01},
    "rounded width": {"mlp_multiple_of": 24, "intermediate_size": None},
    "saved frequencies": {"rotary_save_freqs_buffer": True},
}


@dataclass(frozen=True)
class Recorded:
    """What GPT-NeoX's model gave: tokens [rows, seq_length], logits [rows, seq_length, vocabulary]."""

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]


def both(layouts: dict[str, dict[str, Any]], *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(changes, id=name, marks=marks) for name, changes in layouts.items()]


def train_and_record(world: Path, folder: Path, when: str = "saved", **changes: Any) -> Recorded:
    """Train with GPT-NeoX; the logits of its model when a checkpoint was saved, or loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    config = write_yaml(folder / "run.yml", neox_settings(world, folder / "run", **{**LIVELY, **changes}))
    train(config, folder, KISL_LOGITS=str(folder))
    return Recorded(**np.load(folder / f"{when}.npz"))


def logits_of(model: Path, tokens: NDArray[np.int64], dtype: torch.dtype = torch.float32) -> NDArray[np.float32]:
    loaded = LlamaForCausalLM.from_pretrained(model, torch_dtype=dtype).eval()
    with torch.no_grad():
        logits: NDArray[np.float32] = loaded(torch.from_numpy(tokens)).logits.float().numpy()
    return logits


@pytest.mark.parametrize("changes", both(FAST) + both(SLOW, pytest.mark.matrix))
def test_the_export_gives_the_logits_of_gpt_neox(changes: dict[str, Any], world: Path, tmp_path: Path) -> None:
    recorded = train_and_record(world, tmp_path, **changes)
    done = export_checkpoint(tmp_path / "run", tmp_path / "out", verify=True)
    assert done.difference is not None and 0 < done.difference < 1e-5
    exported = logits_of(tmp_path / "out", recorded.tokens)
    assert recorded.logits.std() > 0.5
    np.testing.assert_allclose(exported, recorded.logits, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(exported.argmax(-1), recorded.logits.argmax(-1))
    checkpoint = tmp_path / "run" / "global_step8"
    assert done.card is not None and done.card.model["params"] == done.parameters
    for name in (CARD_NAME, TRIPLES_NAME):
        assert (tmp_path / "out" / name).read_bytes() == (checkpoint / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    swap_query_and_key(tmp_path / "out")
    assert np.abs(logits_of(tmp_path / "out", recorded.tokens) - recorded.logits).max() > 0.01


def test_verify_refuses_what_the_stock_conversion_script_makes_of_plain_attention(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script takes the joint projection as all queries, all keys, all values; it is stored head by head."""
    train_and_record(world, tmp_path)
    monkeypatch.setattr(kisl_plugin.neox.export, "_split_attention", lambda parts, _: torch.cat(parts).chunk(3))
    command = ["export", str(tmp_path / "run"), str(tmp_path / "out")]
    assert CliRunner().invoke(main, command).exit_code == 0
    refused = CliRunner().invoke(main, [*command, "--verify"])
    assert refused.exit_code == 1
    message = (
        r"^Error: \S+/out: is not the model of \S+/global_step8: a logit differs by [\d.]+ from GPT-NeoX's, .*\n\Z"
    )
    assert re.search(message, refused.output, re.M), refused.output
    monkeypatch.undo()
    verified = CliRunner().invoke(main, [*command, "--verify"])
    assert re.search(r"^verified: no logit differs by more than \S+e-0[67] from", verified.output, re.M)


def test_verify_takes_no_other_commit_than_the_one_that_trained(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    parameters = export_checkpoint(save, tmp_path / "bare").parameters
    card = some_card(model={"params": parameters}, iteration=20, versions={"gpt_neox": "0" * 40})
    write_run_card(save / STEP, card, TRIPLES)
    with pytest.raises(KislError, match=rf"is GPT-NeoX {TESTED_COMMIT}, and the checkpoint was trained with 0{{40}};"):
        export_checkpoint(save, tmp_path / "out", any_commit=True, verify=True)
    assert not (tmp_path / "out").exists()


def swap_query_and_key(model: Path) -> None:
    """Exchange a row of a query with one of a key: the smallest mistake that an order of rows could make."""
    loaded = LlamaForCausalLM.from_pretrained(model)
    attention = loaded.model.layers[0].self_attn
    with torch.no_grad():
        query, key = attention.q_proj.weight[1].clone(), attention.k_proj.weight[1].clone()
        attention.q_proj.weight[1], attention.k_proj.weight[1] = key, query
    loaded.save_pretrained(model)


@pytest.mark.matrix
@pytest.mark.parametrize("zero", [0, 1])
def test_bf16_weights_are_those_that_gpt_neox_itself_loads(zero: int, world: Path, tmp_path: Path) -> None:
    train_and_record(world, tmp_path, precision="bfloat16", zero_optimization={"stage": zero})
    exact = train_and_record(
        world, tmp_path / "again", when="loaded", load=str(tmp_path / "run"), finetune=True, kisl=None, train_iters=1
    )
    done = export_checkpoint(tmp_path / "run", tmp_path / "out", verify=True)
    assert done.dtype == "bfloat16"
    assert done.difference is not None and done.difference < 1e-5
    exported = logits_of(tmp_path / "out", exact.tokens)
    np.testing.assert_allclose(exported, exact.logits, rtol=0, atol=1e-5)
