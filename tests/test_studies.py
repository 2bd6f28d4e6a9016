"""The results of the study are those of the runs that its files describe, on any machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kisl_plugin.sweep import read_sweep

pytest.importorskip("tokenizers")
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with its data, in a folder of its own."""
    root = tmp_path_factory.mktemp("study")
    skip = shutil.ignore_patterns("results", "runs", "configs", "data", "report")
    shutil.copytree(REPOSITORY / "studies", root / "studies", ignore=skip)
    subprocess.run([sys.executable, "studies/prepare.py"], cwd=root, check=True)
    return root


@pytest.mark.parametrize(("files", "out"), [("*.yml", "results/miniature"), ("arms/*.yml", "studies/arms")])
def test_every_result_of_the_study_is_of_a_run_that_its_files_describe(
    studies: Path, monkeypatch: pytest.MonkeyPatch, files: str, out: str
) -> None:
    monkeypatch.chdir(studies)
    described = {run.name for file in Path("studies").glob(files) for run in read_sweep(file, Path(out)).runs}
    measured = {folder.name for folder in (REPOSITORY / out / "results").iterdir()}
    assert measured
    assert measured <= described
