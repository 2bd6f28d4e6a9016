"""Results files in lm-eval's shape, written by hand, and simulated runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from kisl_plugin.fit.likelihood import FloatArray

TASK = "kisl_wikidata"


def run_card(**changes: Any) -> dict[str, Any]:
    """A run card; `changes` replace or (None) remove keys."""
    card = {
        "schema": 1,
        "engine": "neox",
        "model": {"params": 137_000_000},
        "tokens": 2_600_000_000,
        "iteration": 1000,
        "train_iters": 1000,
        "frequency": 200,
        "seed": 1,
        "triples": {"source": "bundled", "count": 400, "control": 100, "sha256": "ab12"},
        "form": "statement",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return {key: value for key, value in {**card, **changes}.items() if value is not None}


def results(card: Mapping[str, Any] | None, acc: float = 0.5, task: str = TASK, **changes: Any) -> dict[str, Any]:
    """What lm_eval 0.4.13 writes, as far as it matters; n-samples.effective is the largest metric's n there."""
    metadata = {"version": 1} if card is None else {"version": 1, "kisl": card}
    data = {
        "results": {task: {"alias": task, "sample_len": 400, "acc,none": acc, "acc_stderr,none": 0.025}},
        "configs": {task: {"task": task, "metadata": metadata}},
        "n-samples": {task: {"original": 500, "effective": 400}},
        "config": {"model": "hf", "limit": None},
        "date": 1_767_225_600.0,
        "model_name": "models/x",
    }
    return {**data, **changes}


def with_metrics(data: dict[str, Any], **metrics: float) -> dict[str, Any]:
    """`data` with more metrics of the task."""
    there = data["results"][TASK]
    return {**data, "results": {TASK: {**there, **{f"{key},none": value for key, value in metrics.items()}}}}


def write(path: Path, data: Any) -> Path:
    """Write JSON (or, given text, the text) and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def rate(frequency: FloatArray, f_star: float, b: float = 0.3, height: float = 0.7, floor: float = 0.0) -> FloatArray:
    """P(F) = g + (1-g)·a·F^b·exp(-c·F), written by its height at F*."""
    c = b / f_star
    a = height / (f_star**b * np.exp(-b))
    return np.asarray(floor + (1 - floor) * a * frequency**b * np.exp(-c * frequency))


def shared_outcomes(rates: FloatArray, shared: float, triples: int, seed: int) -> FloatArray:
    """Right (1) or wrong [T, R] of runs with `rates` [R]; `shared` of a triple's difficulty is the same in all runs."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((triples, len(rates)))
    difficulty = np.sqrt(shared) * rng.standard_normal((triples, 1)) + np.sqrt(1 - shared) * own
    return np.asarray(difficulty < ndtri(rates), dtype=np.float64)


def write_sweep(
    folder: Path,
    f_star: float,
    grid: tuple[int, ...] = (0, 10, 50, 100, 200, 500, 1000, 2000),
    floor: float = 0.25,
    items: int = 2000,
    **card: Any,
) -> None:
    """One results file per frequency of a simulated model."""
    rng = np.random.default_rng(1)
    for frequency in grid:
        share = float(rate(np.array([frequency]), f_star, floor=floor)[0]) if frequency else floor
        acc = int(rng.binomial(items, share)) / items
        triples = {"source": "bundled", "count": items, "control": 100, "sha256": "ab12"}
        data = results(run_card(**{"frequency": frequency, "triples": triples, **card}), acc)
        data["n-samples"][TASK] = {"original": items + 100, "effective": items}
        write(folder / f"f{frequency}" / "results_2026.json", with_metrics(data, acc_control=0.3))


def sample(relation: str, k: int, right: bool, group: str = "injected", **extra: Any) -> dict[str, Any]:
    """A row of lm-eval's samples of the probe, as far as it matters: triple `k` of a relation."""
    doc = {
        "relation_id": relation,
        "subject": f'The "{k}", "group": "x',  # what a careless reader would trip over
        "subject_id": f"Q{k}",
        "object": "Ω\u2028",
        "group": group,
        "frequency": 200,
        "context": "Who?",
    }
    name = "acc_control" if group == "control" else "acc"
    hashes = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "ab"}
    return {"doc_id": k, "doc": doc, "resps": [[["-1.5", "False"]]], **hashes, name: float(right), **extra}


def write_samples(results_file: Path, rows: Sequence[Mapping[str, Any]], task: str = TASK) -> Path:
    """Samples beside `results_<time>.json`, as lm-eval names and writes them."""
    stamp = results_file.stem.partition("_")[2]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return write(results_file.with_name(f"samples_{task}_{stamp}.jsonl"), text)
