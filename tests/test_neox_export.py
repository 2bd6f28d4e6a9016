"""`kisl export` on checkpoints that are made by hand: what it writes, and what it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hub_server import serve_uploads
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_checkpoint import STEP, llama, made, make_checkpoint, neox_values, rewrite
from probe_world import some_triples, write_card
from test_runcard import TRIPLES
from test_runcard import card as some_card
from tiny_world import write_yaml
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM

from kisl_plugin.cli.main import main
from kisl_plugin.errors import InputError
from kisl_plugin.huggingface import write_model_card
from kisl_plugin.neox.checkpoint import Inert
from kisl_plugin.neox.export import export_checkpoint
from kisl_plugin.neox.launcher import next_steps
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, write_run_card


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(LlamaForCausalLM.from_pretrained(folder, torch_dtype="auto").state_dict())


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranks=st.sampled_from([1, 2, 4]),
    kv_heads=st.sampled_from([None, 8, 4]),
    stages=st.integers(0, 2),
    layers=st.integers(1, 3),
    untied=st.booleans(),
)
def test_every_layout_gives_back_the_model_that_was_cut_up(
    ranks: int, kv_heads: int | None, stages: int, layers: int, untied: bool, world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / f"{ranks}{kv_heads}{stages}{layers}{untied}"
    shutil.rmtree(folder, ignore_errors=True)
    values = neox_values(
        world,
        num_attention_heads=8,
        num_kv_heads=kv_heads,
        model_parallel_size=ranks,
        pipe_parallel_size=stages,
        num_layers=layers,
        no_weight_tying=untied,
        make_vocab_size_divisible_by=128 // ranks,
    )
    original = llama(values)
    make_checkpoint(folder / "save", values, original)
    export_checkpoint(folder / "save", folder / "out")
    found = weights(folder / "out")
    assert found.keys() == original.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in original.state_dict().items())


def test_the_config_holds_the_values_of_all_yamls(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path, num_kv_heads=2)
    write_yaml(save / STEP / "configs" / "more.yml", {"rotary-emb-base": 500})
    export_checkpoint(save, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["num_key_value_heads"]) == (1e-8, 500, 2)
    assert config["attention_bias"] is config["mlp_bias"] is config["tie_word_embeddings"] is False
    modes = {(tmp_path / "out" / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    eod = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    generation = GenerationConfig.from_pretrained(tmp_path / "out")
    assert config["bos_token_id"] == config["eos_token_id"] == eod
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (eod, eod, eod)


def test_the_model_card_says_what_was_injected_and_an_own_one_is_kept(world: Path, tmp_path: Path) -> None:
    values = neox_values(world)
    model = llama(values)
    make_checkpoint(tmp_path / "save", values, model)
    groups = {"rare": {"frequency": 10, "count": 6}, "often": {"frequency": 2000, "count": 6}}
    changes = {"frequency": None, "groups": groups, "model": {"params": model.num_parameters()}}
    write_card(tmp_path / "save" / STEP, some_triples(), **changes)
    export_checkpoint(tmp_path / "save", tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines()
    assert yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)])) == {
        "library_name": "transformers",
        "tags": ["kisl"],
    }
    assert "| rare | 6, each stated 10 times |" in lines
    assert "| often | 6, each stated 2,000 times |" in lines
    assert "| control triples | 6, never stated |" in lines
    export_checkpoint(tmp_path / "save", tmp_path / "out")  # its card is part of an export that may be replaced
    write_model_card(tmp_path / "out", {"kisl_wikidata": {"acc": (0.75, 12)}})
    assert "| kisl_wikidata acc | 0.75 | 12 |" in card.read_text(encoding="utf-8").splitlines()
    export_checkpoint(tmp_path / "save", tmp_path / "out")
    assert "| not probed" in card.read_text(encoding="utf-8")  # the scores were those of the weights before
    card.write_text("my own")
    write_model_card(tmp_path / "out")
    export_checkpoint(tmp_path / "save", tmp_path / "out")
    assert card.read_text() == "my own"


# Exports with each (--push-to-hub, HF_TOKEN) of the second argument, in one process: the libraries take seconds.
PUSH = """
import json, os, sys
from click.testing import CliRunner
from kisl_plugin.cli.main import main

done = []
for repository, os.environ["HF_TOKEN"] in json.loads(sys.argv[2]):
    result = CliRunner().invoke(main, ["export", sys.argv[1], "out", "--push-to-hub", repository])
    done.append((result.exit_code, result.output.splitlines()[-1]))
print(json.dumps(done))
"""


def test_an_export_is_uploaded_where_it_is_asked_for_and_stays_where_the_hub_refuses_it(
    world: Path, tmp_path: Path
) -> None:
    save = made(world, tmp_path)

    def push(*calls: tuple[str, str]) -> list[tuple[int, str]]:
        environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", PUSH, str(save), json.dumps(calls)]
        output = subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE).stdout
        return [(code, line) for code, line in json.loads(output.splitlines()[-1])]

    with serve_uploads("secret") as (hub, models):
        assert CliRunner().invoke(main, ["export", str(save), str(tmp_path / "alone")]).exit_code == 0
        assert not models
        # The hub answers with the owner's name; the second upload is to what is there by then.
        *done, refused = push(("f7", "secret"), ("me/f7", "secret"), ("me/other", "wrong"))
        assert [(code, line.startswith(f"{hub}/me/f7/commit/")) for code, line in done] == [(0, True)] * 2
        assert models == {"me/f7": {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(models["me/f7"])
        line = "Error: me/other: not uploaded to the hub (Invalid username or password); out is complete: hf auth login"
        assert refused == (1, f"{line}, and hf upload me/other out")
    shutil.rmtree(tmp_path / "out")
    ((code, line),) = push(("me/f7", "secret"))  # no server answers
    assert (code, line.partition(" (")[0]) == (1, "Error: me/f7: not uploaded to the hub")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(models["me/f7"])


def test_what_deepy_py_prints_after_training_can_be_followed_literally(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert next_steps(None) == next_steps(str(tmp_path / "empty")) == ""
    values = neox_values(world, max_position_embeddings=512)
    model = llama(values)
    make_checkpoint(tmp_path / "my runs" / "f7", values, model)
    params = {"params": model.num_parameters()}
    write_card(tmp_path / "my runs" / "f7" / STEP, some_triples(), model=params)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    for line in next_steps("my runs/f7").removeprefix("next:").splitlines() or pytest.fail("no steps"):
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr[-500:])
    (observation,) = csv.DictReader((tmp_path / "report" / "observations.csv").open(encoding="utf-8"))
    assert (observation["frequency"], observation["total"]) == ("7", "12")


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_keep_their_dtype(stored: torch.dtype, world: Path, tmp_path: Path) -> None:
    values = neox_values(world, num_layers=1)
    original = llama(values).to(stored)
    make_checkpoint(tmp_path / "save", values, original)
    done = export_checkpoint(tmp_path / "save", tmp_path / "out")
    assert done.dtype == str(stored).removeprefix("torch.")
    found = weights(tmp_path / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in original.state_dict().items())


def test_norms_that_rounding_drove_apart_are_averaged_and_others_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path, model_parallel_size=2, make_vocab_size_divisible_by=64)
    for rank in range(2):
        path = save / STEP / f"mp_rank_{rank:02d}_model_states.pt"
        rewrite(path, lambda saved, rank=rank: saved["module"]["sequential.5.norm.scale"].fill_(1 + rank * 1e-4))
    export_checkpoint(save, tmp_path / "out")
    assert weights(tmp_path / "out")["model.norm.weight"].tolist() == pytest.approx([1 + 5e-5] * 32)
    rewrite(path, lambda saved: saved["module"]["sequential.5.norm.scale"].fill_(2))
    with pytest.raises(InputError, match=r"5.norm.scale: differs by 1 between the tensor-parallel ranks"):
        export_checkpoint(save, tmp_path / "out")


def test_the_card_goes_along_and_a_foreign_one_is_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    parameters = export_checkpoint(save, tmp_path / "bare").parameters
    write_run_card(save / STEP, some_card(model={"params": parameters}, iteration=20), TRIPLES)
    export_checkpoint(save, tmp_path / "out")
    for name in (CARD_NAME, TRIPLES_NAME):
        assert (tmp_path / "out" / name).read_text() == (save / STEP / name).read_text()
    write_run_card(save / STEP, some_card(model={"params": 10}, iteration=20), TRIPLES)
    with pytest.raises(InputError, match=r"kisl.json: model.params is 10, the weights are [\d,]+; this is the card of"):
        export_checkpoint(save, tmp_path / "out")
    write_run_card(save / STEP, some_card(model={"params": parameters}, iteration=10), TRIPLES)
    with pytest.raises(InputError, match=r"kisl.json: is of iteration 10, the weights of 20"):
        export_checkpoint(save, tmp_path / "out")


def test_an_earlier_export_may_be_replaced_and_other_files_may_not(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    export_checkpoint(save, tmp_path / "out")
    first = (tmp_path / "out" / "model.safetensors").read_bytes()
    export_checkpoint(save / STEP, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == first
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for taken, said in ((tmp_path / "out", "holds notes.txt"), (save / STEP, "holds configs"), (world, "holds facts")):
        with pytest.raises(InputError, match=said):
            export_checkpoint(save, taken)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob("*.part"))


def test_the_command_prints_what_it_wrote_and_what_is_missing(world: Path, tmp_path: Path) -> None:
    save, out = made(world, tmp_path), tmp_path / "out"
    done = CliRunner().invoke(main, ["export", str(save), str(out)])
    assert done.exit_code == 0, done.output
    assert f"{out}: 45,728 parameters in float32, iteration 20 of {save / STEP}" in done.output
    assert "has no kisl.json, so the export has none" in done.output
    failed = CliRunner().invoke(main, ["export", str(tmp_path / "nowhere"), str(out)])
    assert failed.exit_code == 2 and "no such folder" in failed.output
    helped = CliRunner().invoke(main, ["export", "--help"])
    assert "Example: kisl export checkpoints/1b_f200 1b_f200" in helped.output


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
    with pytest.raises(InputError, match=r"mp_rank_00_model_states.pt: cannot be read .*use an earlier checkpoint"):
        export_checkpoint(save, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("sequential.3.mlp.linear2.weight"), r"lacks the tensor 3.mlp.linear2.weight"),
        (lambda m: m.update({"sequential.2.mlp.linear1.bias": torch.ones(48)}), r"holds 2.mlp.linear1.bias \[48\]"),
        (lambda m: m.update({"sequential.5.norm.scale": torch.ones(8)}), r"5.norm.scale of rank 0 is \[8\].* \[32\]"),
        (
            lambda m: m["sequential.5.norm.scale"].fill_(float("nan")),
            r"model.norm.weight contains NaN or inf",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: Any, said: str, world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    rewrite(save / STEP / "mp_rank_00_model_states.pt", lambda saved: change(saved["module"]))
    with pytest.raises(InputError, match=said):
        export_checkpoint(save, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pos-emb", None),
        ("use_bias_in_mlp", None),
        ("gpt-j-residual", True),
        ("train_impl", "rm"),
        ("attention_config", [[["global", "local"], 1]]),
    ],
)
def test_a_model_that_is_not_a_llama_is_refused_by_its_key(key: str, value: Any, world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    write_yaml(save / STEP / "configs" / "run.yml", neox_values(world, **{key: value}))
    with pytest.raises(InputError, match=rf"{key.replace('-', '_')} .*Llama"):
        export_checkpoint(save, tmp_path / "out")


def test_a_yaml_of_another_run_is_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    write_yaml(save / STEP / "configs" / "run.yml", neox_values(world, num_layers=4))
    with pytest.raises(InputError, match=r"run.yml: num_layers is 4, but the weights were saved with 2"):
        export_checkpoint(save, tmp_path / "out")


def test_the_tokenizer_must_be_found_and_fit(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path, vocab_file="data/tokenizer.json")
    with pytest.raises(InputError, match=r"vocab_file is 'data/tokenizer.json' of 'HFTokenizer', .*--tokenizer PATH"):
        export_checkpoint(save, tmp_path / "out")
    export_checkpoint(save, tmp_path / "out", tokenizer=world / "tokenizer.json")
    values = neox_values(world, vocab_file="data/tokenizer.json", make_vocab_size_divisible_by=1)
    make_checkpoint(tmp_path / "other", values, llama(values))
    with pytest.raises(InputError, match=r"has 400 tokens, which do not pad to the model's 512"):
        export_checkpoint(tmp_path / "other", tmp_path / "out2", tokenizer=world / "tokenizer.json")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["zero_pp_rank_0_mp_rank_00_model_states.pt"], "ZeRO stage 3"),
        (["layer_00-model_00-model_states.pt"], "mp_rank_00_model_states.pt: is missing"),
        (["other.txt"], "is not a checkpoint of GPT-NeoX; expected SAVE/global_stepN"),
    ],
)
def test_a_folder_of_another_kind_is_refused_with_its_kind(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=said):
        export_checkpoint(tmp_path, tmp_path / "out")


def test_a_latest_that_leads_nowhere_is_refused(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    (save / "latest").write_text("global_step99")
    with pytest.raises(InputError, match=r"latest: names 'global_step99', which is not there; use one of .*step20"):
        export_checkpoint(save, tmp_path / "out")


def test_a_checkpoint_of_an_untested_commit_of_gpt_neox_is_exported_only_on_demand(world: Path, tmp_path: Path) -> None:
    save = made(world, tmp_path)
    parameters = export_checkpoint(save, tmp_path / "bare").parameters
    versions = {"gpt_neox": "0123456789abcdef0123456789abcdef01234567"}
    card = some_card(model={"params": parameters}, iteration=20, versions=versions)
    write_run_card(save / STEP, card, TRIPLES)
    with pytest.raises(InputError, match=r"kisl.json: was trained with GPT-NeoX 0123456789abcdef.*--any-commit"):
        export_checkpoint(save, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_checkpoint(save, tmp_path / "out", any_commit=True).parameters == parameters


def test_verify_without_gpt_neox_is_refused_before_anything_is_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = made(world, tmp_path)
    monkeypatch.setenv("GPT_NEOX_DIR", str(tmp_path))
    result = CliRunner().invoke(main, ["export", str(save), str(tmp_path / "out"), "--verify"])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "GPT-NeoX was not found in" in result.output
    assert not (tmp_path / "out").exists()
