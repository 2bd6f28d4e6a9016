"""How fast curves are fitted and refitted, compared with a loop over scipy's curve_fit.

    python benchmarks/fit_speed.py [--draws 2000]

Five models × eight frequencies; triples are drawn with replacement, the same ones for every model and frequency.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from kisl_plugin.fit.curve import CollapseCurve, fit_collapse_curve
from kisl_plugin.fit.likelihood import LOG_F_STAR, FloatArray, collapse_rate, multistart
from kisl_plugin.fit.noise import fit_curves, pool_runs

GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000], dtype=np.float64)
F_STARS = np.array([900.0, 600.0, 450.0, 350.0, 280.0])
ITEMS, PEER_FITS = 2600, 400


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    shares = np.array([collapse_rate(GRID, np.array([[np.log(0.7), 0.3, np.log(at)]]), 0.0)[0] for at in F_STARS])
    outcomes = rng.random((len(F_STARS), ITEMS, len(GRID))) < shares[:, None]
    total = np.full(len(GRID), ITEMS)
    models = [fit_collapse_curve(GRID, right.sum(axis=0), total) for right in outcomes]
    fits = arguments.draws * len(models)
    ours = _timed(lambda: _refit(outcomes, arguments.draws, rng))
    peer = _peer(models, rng) * fits
    print(f"{fits:,} refits ({arguments.draws:,} draws of {len(models)} models × {len(GRID)} frequencies)")
    print(f"  kisl, draws included     {ours:8.3f} s   {ours / fits * 1e6:7.1f} µs a curve")
    print(f"  scipy curve_fit, a loop  {peer:8.3f} s   {peer / fits * 1e6:7.1f} µs a curve ({PEER_FITS} timed)")
    print(f"  curve_fit / kisl         {peer / ours:8.1f}")
    one = _timed(lambda: fit_collapse_curve(GRID, outcomes[2].sum(axis=0), total), repeats=3)
    print(f"one curve with its intervals and tests: {one:.2f} s")
    _intervals(models[2], rng, 2000)
    _help()


def _timed(work: Callable[[], object], repeats: int = 5) -> float:
    """The median time of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _refit(outcomes: NDArray[np.bool_], draws: int, rng: np.random.Generator) -> None:
    """Refit the models [M, items, K] to items drawn with replacement, the same for every model and frequency."""
    right = outcomes.astype(np.float32)
    times_drawn = [np.bincount(rng.integers(0, ITEMS, ITEMS), minlength=ITEMS) for _ in range(draws)]
    weight = np.array(times_drawn, dtype=np.float32)
    total = np.full((draws, len(GRID)), float(ITEMS))
    for model in right:
        best = multistart(pool_runs(GRID, model.sum(axis=0)[None], total[:1], 0.0).likelihood).best
        counts = pool_runs(GRID, (weight @ model).astype(np.float64), total, 0.0)
        counts.likelihood.maximise(np.repeat(best, draws, axis=0), tolerance=1e-4)


def _peer(models: list[CollapseCurve], rng: np.random.Generator) -> float:
    """Seconds that one curve_fit takes, started at the true shape, with binomial weights."""

    def curve(F: FloatArray, a: float, b: float, c: float) -> FloatArray:
        return np.asarray(a * F**b * np.exp(-c * F))

    start = time.perf_counter()
    for at in range(PEER_FITS):
        model = models[at % len(models)]
        share = rng.binomial(ITEMS, model.rate(GRID)) / ITEMS
        error = np.sqrt(np.clip(share * (1 - share), 1e-4, None) / ITEMS)
        first = (model.a, model.b, model.c)
        try:
            curve_fit(curve, GRID, share, p0=first, sigma=error, maxfev=10_000)
        except RuntimeError:
            continue
    return (time.perf_counter() - start) / PEER_FITS


def _intervals(model: CollapseCurve, rng: np.random.Generator, many: int) -> None:
    correct = rng.binomial(ITEMS, model.rate(GRID), size=(many, len(GRID))).astype(np.float64)
    fits = fit_curves(pool_runs(GRID, correct, np.full(correct.shape, float(ITEMS)), 0.0))
    took = _timed(lambda: fits.interval(LOG_F_STAR), repeats=3)
    print(f"{many:,} profile intervals of F*: {took:.2f} s, {took / many * 1e6:.0f} µs each")


def _help() -> None:
    script = Path(sys.executable).with_name("kisl-fit")
    command = [str(script), "--help"] if script.exists() else [sys.executable, "-m", "kisl_plugin.cli.fit", "--help"]
    took = _timed(lambda: subprocess.run(command, check=True, capture_output=True), repeats=7)
    print(f"kisl-fit --help: {took:.3f} s")


if __name__ == "__main__":
    main()
