"""What the launcher finds out by itself, without GPT-NeoX."""

from pathlib import Path

import pytest

from kisl_plugin.errors import InputError
from kisl_plugin.neox.launcher import read_command_line, read_overrides
from kisl_plugin.neox.patches import without_gpu_kernels
from kisl_plugin.neox_config import missing_files, read_yamls


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["run.yml"], ["run.yml"]),
        (["a.yml", "b"], ["a.yml", "b.yml"]),
        (["-d", "configs", "a", "b.json"], ["configs/a.yml", "configs/b.json"]),
        (["a.yml", "-H", "hosts", "--wandb_group", "x"], ["a.yml"]),
        (["a.yml", "--eval_tasks", "lambada_openai", "piqa"], ["a.yml"]),
        ([], []),
    ],
)
def test_the_yamls_are_found_by_gpt_neoxs_own_rules(arguments: list[str], found: list[str]) -> None:
    assert list(map(str, read_command_line(arguments)[0])) == found


def test_what_is_not_a_yaml_goes_on_to_gpt_neox() -> None:
    arguments = ["-d", "configs", "a", "b.json", "-H", "hosts", "--wandb_group", "x"]
    assert read_command_line(arguments)[1:] == ("hosts", ["-H", "hosts", "--wandb_group", "x"])


def test_overrides_are_yaml_values_and_change_one_key_of_a_section(tmp_path: Path) -> None:
    words = ["train_iters=3", "kisl.frequency=1", "attention_config=[[[global],2]]", "save=~/x"]
    arguments, changes = read_overrides(["a.yml", "--override", *words, "-H", "hosts"])
    assert arguments == ["a.yml", "-H", "hosts"]
    (tmp_path / "a.yml").write_text("train-iters: 9\nkisl: {triples: t, frequency: 9}\nseed: 4\n")
    yamls = read_yamls([tmp_path / "a.yml"])
    assert yamls.override(changes, "--override").values == {
        "train_iters": 3,
        "kisl": {"triples": "t", "frequency": 1},
        "attention_config": [[["global"], 2]],
        "save": str(Path("~/x").expanduser()),
        "seed": 4,
    }
    assert yamls.override(changes, "--override").file_of("kisl.frequency") == "--override"
    assert yamls.values["kisl"]["frequency"] == 9


@pytest.mark.parametrize("words", [[], ["train_iters"], ["=3"], ["x=["]])
def test_an_override_that_is_none_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        read_overrides(["a.yml", "--override", *words])


def test_on_a_cpu_what_needs_a_gpu_is_replaced_by_what_computes_the_same() -> None:
    values = {"rope_fusion": True, "layernorm_fusion": False, "attention_config": [[["flash", "global"], "all"]]}
    assert without_gpu_kernels(values) == {"rope_fusion": False, "attention_config": [[["global", "global"], "all"]]}
    assert without_gpu_kernels({"attention_config": [[["global"], 2]]}) == {}


def test_each_file_that_is_not_there_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    config = tmp_path / "run.yml"
    config.write_text("vocab_file: data/t.json\ndata-path: data/text\nkisl: {triples: mine.csv, frequency: 1}\n")
    missing = missing_files(read_yamls([config]).values)
    assert [line.split(" · ")[1] for line in missing] == [
        "kisl corpus tokenizer --input TEXT --output data/t.json",
        "kisl corpus build --input TEXT --triples mine.csv --tokenizer data/t.json --output data/text",
    ]
    for name in ("t.json", "text.bin", "text.idx"):
        (tmp_path / name).touch()
    config.write_text(
        f"vocab_file: {tmp_path}/t.json\ntrain_data_paths: [{tmp_path}/text, {tmp_path}/none]\n"
        f"kisl: {{triples: {tmp_path}/mine.csv, frequency: 1}}\n"
    )
    assert [line.split(" · ")[0] for line in missing_files(read_yamls([config]).values)] == [
        f"the corpus (train_data_paths: {tmp_path}/none.bin and .idx)"
    ]
