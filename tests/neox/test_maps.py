"""The check of cached index maps, and the local engine's rows, against GPT-NeoX's own functions and helpers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    script = Path(__file__).parent / "map_cases.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_map_that_gpt_neox_made_for_these_documents_is_never_refused(cases: list[dict[str, Any]]) -> None:
    assert [case["right"] for case in cases] == [None] * len(cases)


def test_a_map_of_another_split_or_corpus_is_refused_unless_it_is_the_same_map(cases: list[dict[str, Any]]) -> None:
    assert all((case["other"] is None) == case["other_is_the_same"] for case in cases)
    assert sum(case["other"] is not None for case in cases) > len(cases) / 2


def test_the_local_engine_reads_the_rows_that_gpt_neoxs_dataset_reads(cases: list[dict[str, Any]]) -> None:
    assert all(case["rows"] for case in cases)
