"""A mistake in a run is reported before anything starts: the file, the key, the value and what to do."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import changed, neox_settings, run, train
from tiny_world import sentences, train_tokenizer, write_yaml
from tokenizers import Tokenizer

from kisl_plugin.checkpoints import hold_save
from kisl_plugin.errors import InputError
from kisl_plugin.local.engine import LocalEngine

REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unpacked": ({"pack_impl": "unpacked"}, ("pack_impl is 'unpacked'", "one padded document each")),
    "pairwise": ({"dataset_impl": "pairwise"}, ("dataset_impl is 'pairwise'", "needs gpt2")),
    "online": ({"dataset_impl": "online"}, ("dataset_impl is 'online'", "needs gpt2")),
    "another objective": ({"train_impl": "dpo"}, ("train_impl is 'dpo'", "needs normal")),
    "masked separators": ({"eod_mask_loss": True}, ("eod_mask_loss is True", "first token")),
    "inferred data": ({"data_impl": "infer"}, ("data_impl is 'infer'", "needs mmap")),
    "curriculum": (
        {"curriculum_learning": {"enabled": True, "curriculum_type": "seqlen"}},
        ("curriculum_learning is", "cut statements off"),
    ),
    "label paths": (
        {
            "data_path": None,
            **{f"{name}_data_paths": ["copy"] for name in ("train", "valid", "test")},
            "train_label_data_paths": ["labels"],
        },
        ("train_label_data_paths is ['labels']", "rows of `text`"),
    ),
    "unknown section key": ({"kisl.frequncy": 3}, ("kisl.frequncy is unknown", "did you mean frequency?")),
    "section of a wrong type": ({"kisl.frequency": "often"}, ("kisl.frequency is 'often'", "a whole number")),
    "too many exposures": ({"kisl.frequency": 60}, ("kisl.max_fraction allows", "lower the frequency")),
    "no such checkpoint": ({"iteration": 8, "load": "nowhere"}, ("no such checkpoint", "there are: none")),
    "no tokenizer": ({"vocab_file": "run.yml"}, ("vocab_file run.yml", "cannot be read as HFTokenizer")),
    "no length": ({"train_iters": None}, ("train_iters is None and train_epochs None", "expected one of them")),
    "a seed of 0": ({"seed": 0}, ("seed is 0", "from 1")),
    "a save that cannot be written": ({"save": "/proc/kisl", "load": None}, ("save (/proc/kisl) cannot be written",)),
    "a value of a wrong type": ({"num_gpus": "2"}, ("num_gpus is '2'; GPT-NeoX expects int",)),
    "a choice that is none": ({"tokenizer_type": "Best"}, ("tokenizer_type is 'Best'", "one of GPT2BPETokenizer")),
    "section that is a list": ({"kisl": [1, 2]}, ("kisl is [1, 2]; expected a section",)),
    "GPT-NeoX's own refusal": ({"num_attention_heads": 3}, ("GPT-NeoX refuses this configuration",)),
    "the probe as its task": ({"eval_tasks": ["kisl_wiki*"]}, ("eval_tasks is ['kisl_wiki*']", "then run lm_eval")),
    "no end of document": ({"vocab_file": "no_eod.json"}, ("no_eod.json has no <|endoftext|>",)),
    "a resume with another frequency": (
        {"save": "trained", "load": "trained", "train_iters": 4, "kisl.frequency": 2},
        ("trained with frequency = 3, the configuration now gives 2",),
    ),
    "a resume without a section": (
        {"save": "trained", "load": "trained", "train_iters": 4, "kisl": None},
        ("the exposures that are left would be lost",),
    ),
    "a resume from the embedded engine": (
        {"save": "local", "load": "local", "train_iters": 4},
        ("local/global_step4: holds no weights of GPT-NeoX",),
    ),
    "a resume with another tokenizer": (
        {"save": "trained", "load": "trained", "train_iters": 4, "vocab_file": "other.json"},
        ("trained with data.tokenizer = ", "the configuration now gives"),
    ),
    "a resume with another learning rate": (
        {"save": "trained", "load": "trained", "train_iters": 4, "min_lr": 1.0e-4},
        ("trained with optimizer.min_lr = 0.0, the configuration now gives 0.0001",),
    ),
    "no checkpoint kept": (
        {"keep_last_n_checkpoints": 0},
        ("keep_last_n_checkpoints is 0", "1 or more"),
    ),
    "all checkpoints deleted": ({"keep_last_n_checkpoints": -1}, ("keep_last_n_checkpoints is -1", "1 or more")),
    "a learning rate that YAML reads as text": (
        {"optimizer": {"type": "Adam", "params": {"lr": "8e-3"}}},
        ("optimizer.params.lr is '8e-3'", "write 1.0e-4"),
    ),
    "an epsilon that YAML reads as text": (
        {"optimizer": {"type": "Adam", "params": {"lr": 8.0e-3, "eps": "1e-8"}}},
        ("optimizer.params.eps is '1e-8'", "write 1.0e-4"),
    ),
    "another number that YAML reads as text": (
        {"rms_norm_epsilon": "1e-5"},
        ("rms_norm_epsilon is '1e-5'", "write 1.0"),
    ),
    "a seed beyond NumPy's": ({"seed": 2**32}, ("seed is 4294967296", "from 0 to 2**32 - 1")),
    "a width that does not fit": ({"intermediate_size": 101}, ("intermediate_size 101", "swiglu would have")),
    "weights of nothing": (
        {"data_path": None, "train_data_paths": ["copy"], "train_data_weights": [0.0]},
        ("train_data_weights is [0.0]", "not all zero"),
    ),
    "Pythia's shape": ({"norm": "layernorm"}, ("norm is 'layernorm'", "an export as a Llama needs rmsnorm")),
    "ZeRO 3": ({"zero_optimization": {"stage": 3}}, ("zero_optimization.stage is 3", "with every process")),
    "a loss scale": (
        {"precision": "fp16", "fp16": {"enabled": True}},
        ("fp16 is {'enabled': True", "loses its exposures"),
    ),
    "half precision": ({"precision": "fp16"}, ("fp16 is {", "loses its exposures")),
    "Megatron's name": ({"save_interval": 3}, ("save_interval is unknown", "GPT-NeoX has checkpoint_factor")),
    "another of Megatron's": ({"global_batch_size": 4}, ("GPT-NeoX has train_batch_size (rows of a step",)),
    "warmup in steps": ({"warmup_iters": 4}, ("GPT-NeoX has warmup, as a share of the iterations",)),
    "another name of a width": ({"ffn_hidden_size": 64}, ("GPT-NeoX has intermediate_size",)),
    "checkpoints of another run": ({"save": "trained", "load": "nowhere"}, ("save (trained) already contains",)),
    "a misspelt load": ({"load": "nowhere"}, ("load (nowhere) contains no checkpoint", "set load to")),
    "nothing to continue": ({"finetune": True, "load": "nowhere"}, ("finetune is true", "no checkpoint to start")),
}


@pytest.fixture(scope="module")
def folder(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of GPT-NeoX (trained) and one of the embedded engine (local)."""
    folder = tmp_path_factory.mktemp("refused")
    for ending in (".bin", ".idx"):
        shutil.copy(world / f"text{ending}", folder / f"copy{ending}")
    tokenizer = train_tokenizer(sentences(20)).to_str().replace("<|endoftext|>", "<|end|>")
    (folder / "no_eod.json").write_text(tokenizer)
    other = Tokenizer.from_file(str(world / "tokenizer.json"))
    other.add_special_tokens(["<|padding|>"])
    other.save(str(folder / "other.json"))
    (folder / "run.yml").touch()
    train(write_yaml(folder / "trained.yml", neox_settings(world, folder / "trained", train_iters=4)), folder)
    LocalEngine().train([write_yaml(folder / "local.yml", neox_settings(world, folder / "local", train_iters=4))])
    return folder


@pytest.fixture(scope="module")
def outcomes(world: Path, folder: Path) -> dict[str, str]:
    cases = {name: changed(neox_settings(world, folder / "run"), changes) for name, (changes, _) in REFUSED.items()}
    cases["a right run"] = neox_settings(world, folder / "run")
    kernels = {"rope_fusion": True, "attention_config": [[["flash"], 1]]}
    cases["kernels for GPUs"] = neox_settings(world, folder / "run", **kernels)
    cases["an early end"] = neox_settings(world, folder / "run", exit_interval=3)
    cases["a finished run"] = neox_settings(world, folder / "trained", train_iters=4)
    cases["a busy save"] = neox_settings(world, folder / "busy")
    with hold_save(folder / "busy", "another.yml"):
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "refusing.py")],
            input=json.dumps(cases),
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return {**said, "output": done.stdout}


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_that_would_fail_or_not_be_exact_is_refused_with_the_reason(name: str, outcomes: dict[str, str]) -> None:
    assert all(part in outcomes[name] for part in ("exit 2", *REFUSED[name][1])), outcomes[name]
    assert "\n" not in outcomes[name]


def test_a_right_run_is_accepted_and_a_second_one_on_the_same_save_is_not(outcomes: dict[str, str]) -> None:
    assert outcomes["a right run"] == outcomes["kernels for GPUs"] == "accepted"
    assert outcomes["a busy save"].startswith("exit 1") and "another run saves to" in outcomes["a busy save"]


def test_a_run_that_ends_without_a_checkpoint_says_so_at_its_start(outcomes: dict[str, str]) -> None:
    assert outcomes["an early end"] == "accepted"
    lines = [
        line for line in outcomes["output"].splitlines() if "exit_interval 3 ends the run after iteration 3" in line
    ]
    assert len(lines) == 1 and "will be lost" in lines[0]


def test_a_finished_run_is_not_started_again(outcomes: dict[str, str], folder: Path) -> None:
    assert outcomes["a finished run"] == "ended with 0"


def test_a_run_of_wandb_has_the_id_of_the_run(outcomes: dict[str, str]) -> None:
    assert re.fullmatch(r"[0-9a-f]{12} allow", outcomes["WANDB_RUN_ID WANDB_RESUME"])


def test_the_embedded_engine_refuses_a_checkpoint_of_gpt_neox(folder: Path) -> None:
    with pytest.raises(InputError, match="global_step4: is a checkpoint of GPT-NeoX"):
        LocalEngine().train([folder / "trained.yml"])


def test_the_command_names_an_unknown_key_its_file_and_the_closest_known_one(world: Path, tmp_path: Path) -> None:
    base = write_yaml(tmp_path / "base.yml", neox_settings(world, tmp_path / "run"))
    more = write_yaml(tmp_path / "more.yml", {"train_itres": 3})
    done = run(["train", str(base), str(more)], tmp_path)
    assert done.status == 2
    assert f"Error: {more}: train_itres is unknown to GPT-NeoX; did you mean train_iters?" in done.output
    assert "Traceback" not in done.output


def test_in_a_fresh_clone_one_message_names_all_that_is_missing_and_how_to_make_it(tmp_path: Path) -> None:
    clone = Path(__file__).parents[2]
    done = run(
        ["train", str(clone / "neox_configs" / "1b_f200.yml")],
        tmp_path,
        GPT_NEOX_DIR="",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.status == 2
    for part in (
        "kisl neox install",
        "kisl corpus tokenizer --input",
        "kisl corpus build --input",
        "data/tokenizer.json",
    ):
        assert part in done.output
    tiny = run(["train", str(clone / "neox_configs" / "tiny_f20.yml")], tmp_path)
    assert tiny.status == 2
    assert "kisl demo --only-data" in tiny.output
