"""How fast curves and laws are fitted again, beside a loop over scipy's curve_fit on the same draws.

    python benchmarks/fit_speed.py [--draws 2000] [--triples 10000]

Five models × eight frequencies; the paired bootstrap draws the same triples for all of them, and refits the law.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit

from kisl_plugin.fit.curve import Runs, bootstrap_collapse_points, fit_collapse_curve
from kisl_plugin.fit.curve_estimate import FloatArray, f_star_interval, fit_sweeps, pool, rate
from kisl_plugin.fit.law_estimate import refit_laws

GRID = np.array([10, 50, 100, 200, 500, 1000, 2000, 5000], dtype=np.float64)
F_STARS = np.array([900.0, 600.0, 450.0, 350.0, 280.0])
COMPUTE = 6 * np.array([137e6, 300e6, 562e6, 1.05e9, 3e9]) * 58e9
LARGER = 6 * 7e9 * 58e9
ITEMS, PEER_FITS = 2600, 400


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--triples", type=int, default=10_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    shares = [rate(GRID, np.array([[np.log(0.7), 0.3, np.log(at)]]), 0.0)[0] for at in F_STARS]
    models = [_runs(rng.binomial(ITEMS, share).astype(np.float64), ITEMS) for share in shares]
    fits = arguments.draws * len(models)
    ours, _ = _timed(lambda: bootstrap_collapse_points(models, draws=arguments.draws))
    peer = _peer(models, rng) * fits
    print(f"{fits:,} refits ({arguments.draws:,} draws of {len(models)} models × {len(GRID)} frequencies)")
    print(f"  kisl, draws included     {ours:8.3f} s   {ours / fits * 1e6:7.1f} µs a curve")
    print(f"  scipy curve_fit, a loop  {peer:8.3f} s   {peer / fits * 1e6:7.1f} µs a curve ({PEER_FITS} timed)")
    print(f"  curve_fit / kisl         {peer / ours:8.1f}")
    _paired(shares, arguments.triples, arguments.draws, rng)
    _intervals(models[2], rng, 2000)
    _help()


def _runs(correct: FloatArray, items: int) -> Runs:
    total = np.full(len(GRID), float(items))
    return Runs(fit_collapse_curve(GRID, correct, total), GRID, correct, total)


def _timed(work: Callable[[], FloatArray], repeats: int = 5) -> tuple[float, FloatArray]:
    """The median time of several runs, and what the last one gave."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        given = work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), given


def _peer(models: list[Runs], rng: np.random.Generator) -> float:
    """Seconds that one curve_fit takes, started at the true shape, with binomial weights."""

    def curve(F: FloatArray, a: float, b: float, c: float) -> FloatArray:
        return np.asarray(a * F**b * np.exp(-c * F))

    start = time.perf_counter()
    for at in range(PEER_FITS):
        model = models[at % len(models)]
        share = rng.binomial(ITEMS, model.correct / ITEMS) / ITEMS
        error = np.sqrt(np.clip(share * (1 - share), 1e-4, None) / ITEMS)
        first = (model.curve.a, model.curve.b, model.curve.c)
        try:
            curve_fit(curve, GRID, share, p0=first, sigma=error, maxfev=10_000)
        except RuntimeError:
            continue
    return (time.perf_counter() - start) / PEER_FITS


def _paired(shares: list[FloatArray], triples: int, draws: int, rng: np.random.Generator) -> None:
    known = rng.random(triples)[:, None]  # a triple that is easy at one frequency is easy at all of them
    right = [(0.5 * known + 0.5 * rng.random((triples, len(GRID))) < share).astype(np.float64) for share in shares]
    models = [_runs(outcomes.sum(axis=0), triples) for outcomes in right]
    outcomes = np.concatenate(right, axis=1)

    def work() -> FloatArray:
        f_star = bootstrap_collapse_points(models, outcomes, draws)
        errors = np.log(f_star).std(axis=0)
        return np.asarray(refit_laws(COMPUTE, f_star, errors, [LARGER]).predictions)

    took, predicted = _timed(work, repeats=3)
    low, high = np.percentile(predicted, [2.5, 97.5])
    print(f"{draws:,} paired draws of {triples:,} triples, curves and law refitted: {took:.2f} s")
    print(f"  F* of 7B: {low:.0f} to {high:.0f} in 95 % of the draws")


def _intervals(model: Runs, rng: np.random.Generator, many: int) -> None:
    correct = rng.binomial(ITEMS, model.correct / ITEMS, size=(many, len(GRID))).astype(np.float64)
    fits = fit_sweeps(pool(GRID, correct, np.full(correct.shape, float(ITEMS)), 0.0))
    took, _ = _timed(lambda: f_star_interval(fits.land, fits.uncertainty.drop(2))[0], repeats=3)
    print(f"{many:,} profile intervals of F*: {took:.2f} s, {took / many * 1e6:.0f} µs each")


def _help() -> None:
    script = Path(sys.executable).with_name("kisl-fit")
    command = [str(script), "--help"] if script.exists() else [sys.executable, "-m", "kisl_plugin.cli.fit", "--help"]
    took, _ = _timed(lambda: np.array(subprocess.run(command, check=True, capture_output=True).returncode), repeats=7)
    print(f"kisl-fit --help: {took:.3f} s")


if __name__ == "__main__":
    main()
