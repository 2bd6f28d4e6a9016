"""What is wrong with a run is said before anything starts: the file, the key, the value and what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import changed, neox_settings, run, train
from tiny_world import sentences, train_tokenizer, write_yaml

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
            **{f"{name}_data_paths": ["text"] for name in ("train", "valid", "test")},
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
    "nothing to continue": ({"finetune": True, "load": "nowhere"}, ("finetune is true", "no checkpoint to start")),
}


@pytest.fixture(scope="module")
def said(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("refused")
    cases = {name: changed(neox_settings(world, folder / "run"), changes) for name, (changes, _) in REFUSED.items()}
    tokenizer = train_tokenizer(sentences(20)).to_str().replace("<|endoftext|>", "<|end|>")
    (folder / "no_eod.json").write_text(tokenizer)
    cases["no end of document"] = neox_settings(world, folder / "run", vocab_file=str(folder / "no_eod.json"))
    cases["as it should be"] = neox_settings(world, folder / "run")
    script = Path(__file__).parent / "refusing.py"
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(cases), capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_injected_exactly_is_refused_with_the_reason(name: str, said: dict[str, str]) -> None:
    assert all(part in said[name] for part in REFUSED[name][1]), said[name]
    assert "\n" not in said[name]


def test_a_tokenizer_without_an_end_of_document_is_refused_and_a_right_run_is_not(said: dict[str, str]) -> None:
    assert "no_eod.json has no <|endoftext|>" in said["no end of document"]
    assert said["as it should be"] == "accepted"


def test_an_unknown_key_is_named_with_its_file_and_the_closest_known_one(world: Path, tmp_path: Path) -> None:
    base = write_yaml(tmp_path / "base.yml", neox_settings(world, tmp_path / "run"))
    more = write_yaml(tmp_path / "more.yml", {"train_itres": 3})
    done = run(["train", str(base), str(more)], tmp_path)
    assert done.status == 2
    assert f"Error: {more}: train_itres is unknown to GPT-NeoX; did you mean train_iters?" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_fusion": True}, "rope_fusion is true; its kernel needs a GPU"),
        ({"attention_config": [[["flash"], 1]]}, "attention_config asks for flash attention, which needs a GPU"),
        ({"num_gpus": "2"}, "num_gpus is '2'; GPT-NeoX expects int"),
        ({"tokenizer_type": "Best"}, "tokenizer_type is 'Best'; GPT-NeoX expects one of GPT2BPETokenizer"),
        ({"kisl": [1, 2]}, "kisl is [1, 2]; expected a section"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_was_expected(
    change: dict[str, Any], said: str, world: Path, tmp_path: Path
) -> None:
    config = write_yaml(tmp_path / "run.yml", {**neox_settings(world, tmp_path / "run"), **change})
    done = run(["train", str(config)], tmp_path)
    assert done.status == 2
    assert f"Error: {config}: {said}" in done.output


def test_gpt_neoxs_own_refusal_is_told_in_one_line(world: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "run.yml", neox_settings(world, tmp_path / "run", num_attention_heads=3))
    done = run(["train", str(config)], tmp_path)
    assert done.status == 2
    assert f"Error: {config}: GPT-NeoX refuses this configuration" in done.output
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


def test_a_resume_with_another_frequency_is_refused_with_both_values(world: Path, tmp_path: Path) -> None:
    values = neox_settings(world, tmp_path / "run", train_iters=4)
    train(write_yaml(tmp_path / "run.yml", values), tmp_path)
    other = {**values, "kisl": {**values["kisl"], "frequency": 2}}
    done = run(["train", str(write_yaml(tmp_path / "other.yml", other))], tmp_path)
    assert done.status == 2
    assert "trained with frequency = 3, the configuration now gives 2" in done.output
    assert "spawning" not in done.output.lower() and "launch.py" not in done.output
    bare = {key: value for key, value in values.items() if key != "kisl"}
    done = run(["train", str(write_yaml(tmp_path / "bare.yml", bare))], tmp_path)
    assert done.status == 2
    assert "the exposures that are left would be lost" in done.output


def test_each_engine_names_the_others_checkpoints_for_what_they_are(world: Path, tmp_path: Path) -> None:
    values = neox_settings(world, tmp_path / "local", train_iters=4, checkpoint_factor=2)
    config = write_yaml(tmp_path / "run.yml", values)
    LocalEngine().train([config])
    done = run(["train", str(config)], tmp_path)
    assert done.status == 2
    assert f"{tmp_path / 'local'}/global_step4: holds no weights of GPT-NeoX" in done.output
    theirs = tmp_path / "theirs"
    train(write_yaml(tmp_path / "theirs.yml", {**values, "save": str(theirs), "load": str(theirs)}), tmp_path)
    with pytest.raises(InputError, match="global_step4: is a checkpoint of GPT-NeoX, not of this engine"):
        LocalEngine().train([tmp_path / "theirs.yml"])


@pytest.mark.matrix
def test_an_index_map_of_another_split_or_corpus_is_named(world: Path, tmp_path: Path) -> None:
    place = tmp_path / "world"
    shutil.copytree(world, place, ignore=shutil.ignore_patterns("*.npy"))
    train(write_yaml(tmp_path / "one.yml", neox_settings(place, tmp_path / "one", train_iters=4)), tmp_path)
    other = neox_settings(place, tmp_path / "two", train_iters=4, split="80,20,0")
    done = run(["train", str(write_yaml(tmp_path / "two.yml", other))], tmp_path)
    assert done.status == 2, done.output[-2000:]
    assert "a cached index map of another corpus or split" in done.output
    assert f"{place / 'text'}_train_indexmap_16ns_64sl_7s_packedpi" in done.output
