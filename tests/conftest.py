import os
from pathlib import Path

import pytest

# Before anything imports torch: tests run tiny models, where a second thread only waits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json, text.bin/.idx and facts.jsonl."""
    from tiny_world import make_world

    return make_world(tmp_path_factory.mktemp("world"))
