"""What the launcher finds out by itself, without GPT-NeoX."""

from pathlib import Path

import pytest

from kisl_plugin.neox.launcher import read_command_line
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
