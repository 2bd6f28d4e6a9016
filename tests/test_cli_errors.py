"""Standard output that cannot be written to, seen from outside: the commands run as processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from fit_files import write_sweep

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def run(module: str, *words: object) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", f"from {module} import main; main()", *map(str, words)]
    with FULL.open("w") as full:
        return subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)


def check(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 1
    *progress, error = done.stderr.splitlines()
    assert error == "Error: standard output: cannot be written to (No space left on device)"
    assert all("·" in line for line in progress)


def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    check(run("kisl_plugin.cli.main", "configs", "list"))


def test_a_short_line_that_cannot_be_shown_is_no_second_error_at_exit(tmp_path: Path) -> None:
    check(run("kisl_plugin.cli.main", "configs", "write", "--out", tmp_path / "configs"))


def test_a_fit_whose_table_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    write_sweep(tmp_path / "results", 200)
    check(run("kisl_plugin.cli.fit", tmp_path / "results", "--out", tmp_path / "report"))


def test_other_errors_of_the_system_are_not_blamed_on_standard_output(tmp_path: Path) -> None:
    code = """
import click
from kisl_plugin.cli.errors import Command

@click.command(cls=Command)
def main():
    open("missing")

main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No such file or directory: 'missing'" in done.stderr
    assert "standard output" not in done.stderr
