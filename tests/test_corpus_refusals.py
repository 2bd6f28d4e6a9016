"""Builds that are refused before any work, each in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from corpus_builds import make_world

from kisl_plugin.cli.main import main
from kisl_plugin.errors import InputError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--match", "telepathy"), "match 'telepathy': unknown"),
        (("--stop-list", "none.txt"), "none.txt: cannot be read"),
        (("--partition", "cpu"), "--partition goes with --executor slurm, not local"),
        (("--executor", "slurm", "--address", "x:1"), "--address goes with --executor ray, not slurm"),
        (("--executor", "slurm", "--sbatch", "account"), "--sbatch account: expected KEY=VALUE"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line_before_any_work(
    tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    world = make_world(tmp_path, [["x"]])
    result = world.kisl("c", *options)
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert expected in result.output
    assert not list(tmp_path.glob("c*"))


@pytest.mark.parametrize(
    "name", ["out_00007.bin", "out_00000.idx", "out.bin", "out.triples.csv", "out.excluded/00001.jsonl"]
)
def test_files_of_other_origin_are_kept_unless_force_is_given(tmp_path: Path, name: str) -> None:
    world = make_world(tmp_path, [["x"]])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("not of this build")
    result = world.kisl()
    assert (result.exit_code, f"{name}: is there already; choose another" in result.output) == (2, True), result.output
    assert (tmp_path / name).read_text() == "not of this build"
    assert world.kisl("out", "--force").exit_code == 0
    assert not (tmp_path / name).exists() or (tmp_path / name).read_bytes() != b"not of this build"


@pytest.mark.parametrize("output", [".", "..", "/", ""])
def test_an_output_that_names_no_file_is_refused(tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path / "world", [["x"]])
    monkeypatch.chdir(tmp_path / "world" / "text")
    result = CliRunner().invoke(main, [*world.command(), "--output", output])
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert "expected the beginning of files" in result.output


@pytest.mark.parametrize(
    ("output", "said"), [("s3://bucket/out", "is a URL"), ("new/out.bin", ".bin is appended"), ("out.idx", ": out\n")]
)
def test_an_output_that_would_become_another_file_is_refused(
    tmp_path: Path, output: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path / "world", [["x"]])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = CliRunner().invoke(main, [*world.command(), "--output", output])
    assert (result.exit_code, result.output.count("\n")) == (2, 1) and said in result.output, result.output
    assert not list(Path.cwd().iterdir())


def test_an_output_that_cannot_be_written_is_one_line_and_status_1(tmp_path: Path) -> None:
    world = make_world(tmp_path, [["x"]])
    (tmp_path / "file").touch()
    result = world.kisl("file/out")
    assert result.exit_code == 1, result.output
    assert result.output.startswith(f"Error: {tmp_path}/file/out: cannot be written (")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.unlink(), r"no such file; .* kisl corpus tokenizer --input FILE --output .*tokenizer.json"),
        (lambda path: path.write_text("{}"), "not a tokenizer.json of the tokenizers library"),
        (lambda path: path.write_text(path.read_text().replace("<|endoftext|>", "</s>")), r"has no <\|endoftext\|>"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path: Path, change: Callable[[Path], Any], expected: str) -> None:
    world = make_world(tmp_path, [["x"]])
    change(world.tokenizer)
    with pytest.raises(InputError, match=expected):
        world.build()
    assert not list(tmp_path.glob("out*"))


def test_a_missing_datatrove_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, [["x"]])
    monkeypatch.setitem(sys.modules, "datatrove", None)
    result = world.kisl()
    assert result.exit_code == 2
    assert "pip install 'kisl-plugin[corpus]'" in result.output
