import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_checkpoint import STEP, llama, made, make_checkpoint, neox_values, rewrite
from tiny_world import write_yaml

from kisl_plugin.errors import InputError
from kisl_plugin.neox.checkpoint import Inert
from kisl_plugin.neox.export import export_checkpoint


class Bomb:
    """An object whose unpickling would make a folder."""

    def __init__(self, call: Any, *arguments: str) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def test_code_in_a_checkpoint_does_not_run(world: Path, tmp_path: Path) -> None:
    target = tmp_path / "made by the file"
    bomb = Bomb(np.save, str(target), "x")
    made(world, tmp_path / "a", extra={"optimizer": {"state": bomb, "more": [Bomb(shutil.copytree, "/etc", "x")]}})
    export_checkpoint(tmp_path / "a" / "save", tmp_path / "out")
    for number, call in enumerate((eval, os.mkdir)):
        save = made(world, tmp_path / f"b{number}", extra={"random_rng_state": Bomb(call, str(target))})
        with pytest.raises(InputError, match=r"mp_rank_00_model_states.pt: cannot be read"):
            export_checkpoint(save, tmp_path / "out")
    assert not list(tmp_path.glob("made by*"))


def test_torch_may_load_no_more_than_before(world: Path, tmp_path: Path) -> None:
    export_checkpoint(made(world, tmp_path), tmp_path / "out")
    assert not any(
        isinstance(held, type) and issubclass(held, Inert) for held in torch.serialization.get_safe_globals()
    )


@pytest.mark.parametrize(
    ("missing", "stages", "said"),
    [
        ("mp_rank_00_model_states.pt", 0, r"mp_rank_00_model_states.pt: is missing; the checkpoint is incomplete"),
        ("mp_rank_01_model_states.pt", 0, r"mp_rank_01_model_states.pt: is missing"),
        ("layer_03-model_01-model_states.pt", 2, r"layer_03-model_01-model_states.pt: is missing"),
        ("configs/run.yml", 0, r"configs: holds no YAML; the checkpoint was not written to its end"),
    ],
)
def test_a_file_that_is_missing_is_named(missing: str, stages: int, said: str, world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path, model_parallel_size=2, make_vocab_size_divisible_by=64, pipe_parallel_size=stages)
    (save / STEP / missing).unlink()
    with pytest.raises(InputError, match=said):
        export_checkpoint(save, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_named(share: float, world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    path = save / STEP / "mp_rank_00_model_states.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"mp_rank_00_model_states.pt: cannot be read .*take an earlier checkpoint"):
        export_checkpoint(save, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("sequential.3.mlp.linear2.weight"), r"lacks the tensor 3.mlp.linear2.weight"),
        (lambda m: m.update({"sequential.2.mlp.linear1.bias": torch.ones(48)}), r"holds 2.mlp.linear1.bias \[48\]"),
        (lambda m: m.update({"sequential.5.norm.scale": torch.ones(8)}), r"5.norm.scale of rank 0 is \[8\].* \[32\]"),
        (lambda m: m["sequential.5.norm.scale"].fill_(float("nan")), r"model.norm.weight holds .* training diverged"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: Any, said: str, world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    rewrite(save / STEP / "mp_rank_00_model_states.pt", lambda saved: change(saved["module"]))
    with pytest.raises(InputError, match=said):
        export_checkpoint(save, tmp_path / "out")


def test_weights_too_large_for_float16_are_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    rewrite(save / STEP / "mp_rank_00_model_states.pt", lambda s: s["module"]["sequential.5.norm.scale"].fill_(1e5))
    with pytest.raises(InputError, match=r"reaches 1e\+05, too large for torch.float16; .*bfloat16 or float32"):
        export_checkpoint(save, tmp_path / "out", "float16")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("norm", "layernorm"),
        ("activation", "gelu"),
        ("pos-emb", "learned"),
        ("pos-emb", None),
        ("rotary_pct", 0.25),
        ("use_bias_in_mlp", None),
        ("use_bias_in_attn_linear", True),
        ("gpt-j-residual", True),
        ("use_qk_layernorm", True),
        ("sliding_window_width", 128),
        ("moe_num_experts", 8),
        ("use_mup", True),
        ("train_impl", "rm"),
        ("te_columnparallel", True),
        ("attention_config", [[["global", "local"], 1]]),
    ],
)
def test_what_is_no_llama_is_refused_by_its_key(key: str, value: Any, world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    write_yaml(save / STEP / "configs" / "run.yml", neox_values(world, **{key: value}))
    with pytest.raises(InputError, match=rf"{key.replace('-', '_')} .*Llama"):
        export_checkpoint(save, tmp_path / "out")


def test_a_yaml_of_another_run_is_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    write_yaml(save / STEP / "configs" / "run.yml", neox_values(world, num_layers=4))
    with pytest.raises(InputError, match=r"run.yml: num_layers is 4, the weights beside it were saved with 2"):
        export_checkpoint(save, tmp_path / "out")


def test_the_tokenizer_must_be_found_and_fit(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path, vocab_file="data/tokenizer.json")
    with pytest.raises(InputError, match=r"vocab_file is 'data/tokenizer.json', which is not there.*--tokenizer PATH"):
        export_checkpoint(save, tmp_path / "out")
    export_checkpoint(save, tmp_path / "out", tokenizer=world / "tokenizer.json")
    values = neox_values(world, vocab_file="data/tokenizer.json", make_vocab_size_divisible_by=1)
    make_checkpoint(tmp_path / "other", values, llama(values))
    with pytest.raises(InputError, match=r"has 400 tokens, which do not pad to the model's 512"):
        export_checkpoint(tmp_path / "other", tmp_path / "out2", tokenizer=world / "tokenizer.json")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["config.json", "model.safetensors"], "is a Hugging Face folder already"),
        (["state.pt", "settings.json"], "is a checkpoint of the local engine, which writes .* SAVE/hf"),
        (["zero_pp_rank_0_mp_rank_00_model_states.pt"], "ZeRO stage 3"),
        (["layer_00-model_00-model_states.pt"], "mp_rank_00_model_states.pt: is missing"),
        (["other.txt"], "is no checkpoint of GPT-NeoX; expected SAVE/global_stepN"),
    ],
)
def test_what_is_no_checkpoint_of_gpt_neox_is_told_what_it_is(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=said):
        export_checkpoint(tmp_path, tmp_path / "out")


def test_a_latest_that_leads_nowhere_is_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    (save / "latest").write_text("global_step99")
    with pytest.raises(InputError, match=r"latest: names 'global_step99', which is not there; give one of .*step20"):
        export_checkpoint(save, tmp_path / "out")
