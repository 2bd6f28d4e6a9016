"""A sweep of tiny models with the embedded engine: its file, and the command in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tiny_world import settings, write_yaml

ROWS = 96  # tokens: a question of the tiny world with its options needs more than the 64 of other tests


def write_models(folder: Path, world: Path, **changes: Any) -> list[str]:
    """YAMLs of two sizes, small.yml and large.yml."""
    paths = []
    for name, hidden in (("small", 16), ("large", 32)):
        shape = {"hidden_size": hidden, "intermediate_size": 6 * hidden}
        rows = {"seq_length": ROWS, "max_position_embeddings": ROWS}
        values = settings(world, folder, **{**shape, **rows, "load": None, **changes})
        del values["save"]
        paths.append(str(write_yaml(folder / f"{name}.yml", values)))
    return paths


# What GPT-NeoX needs beside the settings of the tiny world, on a CPU.
NEOX: dict[str, Any] = {"pipe_parallel_size": 0, "precision": "fp32", "num_workers": 0, "data_impl": "mmap"}


def write_sweep(folder: Path, world: Path, **changes: Any) -> Path:
    """sweep.yml: 2 sizes × 4 F × 2 seeds."""
    values: dict[str, Any] = {
        "models": None if "models" in changes else write_models(folder, world),
        "frequency": [0, 2, 4, 8],
        "seed": [1, 2],
        "triples": str(world / "facts.jsonl"),
        "engine": "local",
        "tasks": "kisl_wikidata",
    }
    values = {key: value for key, value in {**values, **changes}.items() if value is not None}
    path = folder / "sweep.yml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def start(*words: object, **variables: str) -> "subprocess.Popen[str]":
    """Start `kisl sweep …`."""
    return subprocess.Popen(
        [sys.executable, "-m", "kisl_plugin", "sweep", *map(str, words)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background job ignores Ctrl-C, and what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


def run(*words: object, **variables: str) -> tuple[int, str]:
    """Run `kisl sweep …` to its end: exit status and everything it printed."""
    with start(*words, **variables) as process:
        output, _ = process.communicate()
    return process.returncode, output


def scores(out: Path) -> dict[str, tuple[dict[str, float], dict[str, Any]]]:
    """By run name: the metrics of its results, and the run card in them without when it was written."""
    scores = {}
    for file in (out / "results").rglob("results_*.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        (config,) = results["configs"].values()
        card = {key: value for key, value in config["metadata"]["kisl"].items() if key not in ("created", "run_id")}
        (metrics,) = results["results"].values()
        name = file.relative_to(out / "results").parts[0]
        assert name not in scores, f"{name} was probed twice"
        scores[name] = ({key: value for key, value in metrics.items() if isinstance(value, float)}, card)
    return scores
