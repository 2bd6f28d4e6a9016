"""A SIMULATED sweep of the grid in neox_configs: nothing was trained. It shows what kisl-fit does with five sizes.

    python benchmarks/simulate_sweep.py --figure docs/simulated.png   # and kisl-fit's figures of it
    kisl-fit examples/simulated --hold-out 1.05e9

Five sizes × nine F × three seeds at D = 58B, 2,581 facts each, one results file a run in lm-eval's shape. The truth:
F*(C) = A / C^alpha + E; P(F) rises as F^0.6 to 0.85 above a guessing floor of 0.25; the log-odds of a run scatter by
tau = 0.1. Standard library only for the draws, so that every machine writes the same bytes.
"""

import argparse
import itertools
import json
import math
import random
import tempfile
from pathlib import Path
from statistics import NormalDist
from typing import Any

import matplotlib.figure
import matplotlib.image

from kisl_plugin.fit import fit_results, write_report
from kisl_plugin.grid import GRID, Run
from kisl_plugin.llama import MODELS
from kisl_plugin.runcard import RunCard

FOLDER = Path(__file__).parents[1] / "examples" / "simulated"
# The truth. F* is 1,147 for 137M and 433 for 3B; for 7B on the same tokens it is 349.
A, ALPHA, E = 7.5e10, 0.4, 140.0
B, PEAK, FLOOR, TAU = 0.6, 0.85, 0.25, 0.1
TRIPLES, CONTROL, SEEDS = 2581, 420, (1, 2, 3)
TASK = "kisl_wikidata"


def f_star(compute: float) -> float:
    """F*(C) = A / C^alpha + E."""
    return A / compute**ALPHA + E


def rate(frequency: float, collapse_point: float) -> float:
    """P(F) = g + (1 - g) · a · F^b · exp(-c·F), with b / c = F* and P(F*) = PEAK."""
    height = (PEAK - FLOOR) / (1 - FLOOR)
    share = frequency / collapse_point
    return FLOOR + (1 - FLOOR) * height * share**B * math.exp(B * (1 - share))


def correct(p: float, triples: int, draw: random.Random) -> int:
    """How many of the triples a run has right: its log-odds are off by a normal draw, then each triple is drawn."""
    log_odds = math.log(p / (1 - p)) + TAU * NormalDist().inv_cdf(draw.random())
    return sum(draw.random() < 1 / (1 + math.exp(-log_odds)) for _ in range(triples))


def results_of(run: Run, seed: int) -> dict[str, Any]:
    """One results file, as far as kisl-fit reads it."""
    draw = random.Random(f"{run.name} {seed}")
    metrics = {
        "alias": TASK,
        "acc,none": correct(rate(run.frequency, f_star(run.compute)), TRIPLES, draw) / TRIPLES,
        "acc_control,none": correct(FLOOR, CONTROL, draw) / CONTROL,
        "items,none": TRIPLES,
        "items_control,none": CONTROL,
    }
    facts = run.training.facts
    card = RunCard(
        engine="simulated",
        model={"params": run.model.shape.parameters},
        tokens=run.tokens,
        samples=run.train_iters * run.training.batch,
        seq_length=run.training.seq_length,
        iteration=run.train_iters,
        train_iters=run.train_iters,
        frequency=run.frequency,
        seed=seed,
        train_seed=seed,
        triples={"source": facts.section.triples, "count": TRIPLES, "control": CONTROL},
        form=facts.section.form,
        template=0,
        spacing=facts.section.spacing,
        injected_tokens=round(facts.tokens * TRIPLES * run.frequency),
        injected_fraction=round(run.injected_fraction, 6),
        created="2026-01-01T00:00:00+00:00",
    )
    return {
        "results": {TASK: metrics},
        "configs": {TASK: {"task": TASK, "metadata": {"version": 1.0, "kisl": card.to_dict()}}},
        "config": {"model": "simulated", "limit": None},
        "model_name": f"simulated/{run.name}_seed{seed}",
    }


def draw_figure(results: Path, file: Path) -> None:
    """The curves and the law as kisl-fit draws them, side by side under a title that says what they are."""
    with tempfile.TemporaryDirectory() as folder:
        write_report(fit_results([results]), Path(folder))
        images = [matplotlib.image.imread(Path(folder) / f"{name}.png") for name in ("curves", "law")]
    height, width = max(len(image) for image in images), sum(image.shape[1] for image in images)
    figure = matplotlib.figure.Figure((width / 100, height / 100 + 0.4), dpi=100)
    figure.text(0.5, 0.99, "SIMULATED: nothing was trained", ha="center", va="top", fontsize=14, color="firebrick")
    left = 0
    for image in images:
        figure.figimage(image, left, height - len(image))
        left += image.shape[1]
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        runs = [Run(model, GRID, GRID.budget, frequency) for frequency in GRID.frequencies]
        for run, seed in itertools.product(runs, SEEDS):
            file = out / f"results_{run.name}_seed{seed}.json"
            file.write_text(json.dumps(results_of(run, seed)) + "\n", encoding="utf-8")
        print(f"{model.name}: F* = {f_star(runs[0].compute):.0f}")
    print(f"7B on the same tokens: F* = {f_star(6 * 7e9 * GRID.budget):.0f}")
    if arguments.figure:
        draw_figure(out, arguments.figure)


if __name__ == "__main__":
    main()
