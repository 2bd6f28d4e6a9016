"""The real GPT-NeoX: its helpers compiled for this Python, and what its imports need."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner

from kisl_plugin.cli.main import main
from kisl_plugin.neox.install import NEEDED, PREPARE, helpers_file, why_unusable


@pytest.fixture
def fresh(neox_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in which nothing is compiled, on a PATH whose python3-config belongs to another Python."""
    other = tmp_path / "bin" / "python3-config"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho .another-python.so\n", encoding="utf-8")
    other.chmod(0o755)
    folder = tmp_path / "gpt-neox"
    shutil.copytree(neox_dir, folder, ignore=shutil.ignore_patterns(".git", "*.so", "images", "__pycache__"))
    monkeypatch.setenv("PATH", f"{other.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GPT_NEOX_DIR", str(folder))
    return folder


def test_the_helpers_are_compiled_once_for_the_python_that_runs(fresh: Path) -> None:
    assert why_unusable(fresh) == "not compiled for this Python"
    made = CliRunner().invoke(main, ["neox", "install"])
    assert made.exit_code == 0 and "data helpers compiled" in made.output
    assert [path.name for path in (fresh / "megatron" / "data").glob("helpers.*so*")] == [
        f"helpers{sysconfig.get_config_var('EXT_SUFFIX')}"
    ]
    used = f"{PREPARE}; from megatron.data import helpers; print(helpers.__file__)"
    found = subprocess.run([sys.executable, "-c", used], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == str(helpers_file(fresh))
    written = helpers_file(fresh).stat().st_mtime_ns
    again = CliRunner().invoke(main, ["neox", "install"])
    assert "already compiled" in again.output and helpers_file(fresh).stat().st_mtime_ns == written
    after = CliRunner().invoke(main, ["neox", "check"])
    assert after.exit_code == 0, after.output


def test_a_source_that_does_not_compile_is_named_with_the_compilers_reason(fresh: Path) -> None:
    (fresh / "megatron" / "data" / "helpers.cpp").write_text("#include <no_such_header.h>\n", encoding="utf-8")
    failed = CliRunner().invoke(main, ["neox", "install"])
    assert failed.exit_code == 1 and "no_such_header.h" in failed.output.splitlines()[-1]
    assert list((fresh / "megatron" / "data").glob("helpers.*so*")) == []


def imports_without(*modules: str) -> "subprocess.CompletedProcess[str]":
    """What the worker does first, where `modules` are not installed."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules}))"
    return subprocess.run([sys.executable, "-c", f"{hidden}; {PREPARE}"], capture_output=True, text=True)


def test_gpt_neox_is_imported_without_the_packages_that_the_extra_leaves_out(neox_dir: Path) -> None:
    absent = "flash_attn apex transformer_engine tensorboard wandb mpi4py tiktoken lm_eval lm_dataformat ftfy pybind11"
    tried = imports_without(*absent.split())
    assert tried.returncode == 0, tried.stderr[-2000:]


@pytest.mark.matrix
@pytest.mark.parametrize("module", sorted(set(NEEDED) - {"pybind11"}))
def test_gpt_neox_is_not_imported_without_what_is_called_needed(module: str, neox_dir: Path) -> None:
    tried = imports_without(module)
    assert tried.returncode != 0 and module in tried.stderr
