"""GPT-NeoX's cached index maps, and its rows against those of the embedded engine, which caches nothing."""

import json
import subprocess
import sys
from pathlib import Path


def rows_agree(way: str) -> list[list[bool]]:
    """For each case: whether the rows of a corpus, of a part of it, and of another corpus of the same name agree."""
    script = Path(__file__).parent / "map_cases.py"
    done = subprocess.run([sys.executable, str(script), way], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    cases: list[list[bool]] = json.loads(done.stdout.splitlines()[-1])
    return cases


def test_with_a_section_a_cached_index_map_is_never_used_for_another_split_or_corpus(neox_dir: Path) -> None:
    assert all(all(case) for case in rows_agree("by content"))


def test_upstreams_own_cache_uses_the_first_map_for_all_of_them(neox_dir: Path) -> None:
    first, *others = zip(*rows_agree("by name"), strict=True)
    assert all(first) and not any(map(any, others))
