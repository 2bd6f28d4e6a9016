"""Simulated studies with all that a sweep can hold: seeds, samples, a background."""

from pathlib import Path
from typing import Any

import numpy as np
from fit_files import TASK, rate, results, run_card, sample, with_metrics, write, write_samples

GRID = (0, 10, 50, 100, 200, 500, 1000, 2000)
RELATIONS = ("P19", "P50", "P1")
SIZES = {137_000_000: 400.0, 300_000_000: 300.0, 562_000_000: 220.0, 1_050_000_000: 150.0}


def write_full_sweep(folder: Path, f_star: float, seeds: int = 3, items: int = 600, **card: Any) -> None:
    """Results with samples and bits per byte for every frequency and seed; run-to-run noise of 0.1 in the logit."""
    rng = np.random.default_rng(int(f_star))
    difficulty = rng.normal(0, 0.6, items)
    for frequency in GRID:
        for seed in range(1, 2 if frequency == 0 else seeds + 1):
            share = float(rate(np.array([float(frequency)]), f_star, floor=0.25)[0]) if frequency else 0.25
            logit = np.log(share / (1 - share)) + rng.normal(0, 0.1) + difficulty
            right = rng.random(items) < 1 / (1 + np.exp(-logit))
            _write_run(folder / f"f{frequency}_s{seed}", right, frequency, seed, card, rng)


def _write_run(
    folder: Path,
    right: "np.ndarray[Any, Any]",
    frequency: int,
    seed: int,
    card: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    items = len(right)
    triples = {"source": "bundled", "count": items, "control": 100, "sha256": "ab12"}
    made = run_card(
        **{"frequency": frequency, "seed": seed, "triples": triples, "injected_tokens": 10 * frequency * items, **card}
    )
    data = results(made, float(right.mean()))
    data["n-samples"][TASK] = {"original": items + 100, "effective": items}
    data = with_metrics(data, acc_control=int(rng.binomial(100, 0.26)) / 100)
    data["results"]["kisl_background"] = {"bits_per_byte,none": 1.02 + 2e-4 * frequency + rng.normal(0, 0.004)}
    data["configs"]["kisl_background"] = {"metadata": {"version": 1, "kisl": made}}
    file = write(folder / "results_2026-01-01T00-00-00.000000.json", data)
    rows = [sample(RELATIONS[k % 3], k, bool(right[k])) for k in range(items)]
    write_samples(file, rows)
