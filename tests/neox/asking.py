"""Asks the real GPT-NeoX what it makes of YAMLs, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("grid_facts.py")


def facts_of(folder: Path, yamls: Mapping[str, Sequence[int]], models: Sequence[str], neox_dir: Path) -> dict[str, Any]:
    """What it reads from `yamls`, for each number of GPUs, and of the `models` that it builds; names without .yml."""
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps({"yamls": yamls, "models": list(models)})]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "GPT_NEOX_DIR": str(neox_dir), "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "KISL_CPU": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
