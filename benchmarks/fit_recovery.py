"""How well known collapse curves are recovered from simulated counts, as one table of targets and measurements.

    python benchmarks/fit_recovery.py [--quick] [--draws 100] [--processes 2]

Counts are drawn from known curves, fitted and judged as `kisl-fit` does. Four groups of truths: curves of the form;
the same with run-to-run noise and shared triples; curves that never fall or have two peaks; curves with one peak of
another shape. A verdict is wrong if it is `ok` or `ok if runs vary` although the truth never falls, `ok` although it
has two peaks, or `no collapse` although it falls by more than the verdict allows. Coverage is over all draws; an open
end covers on its side.
Efficiency is the Cramér–Rao bound of the variance of log F* over the mean squared error of the draws that are `ok`.
A target is missed where the exact 99.9 % binomial interval of what was measured excludes it (for an efficiency, 3.29
standard errors). Exit status 1 if one is missed.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, curve_fit, minimize
from scipy.special import expit, huber
from scipy.stats import binomtest

from kisl_plugin.fit.curve import curve_verdicts
from kisl_plugin.fit.likelihood import LOG_F_STAR, collapse_rate, log_share_slopes
from kisl_plugin.fit.noise import Counts, fit_curves, pool_runs, with_pairing
from kisl_plugin.fit.text import NO_COLLAPSE, OK, OK_IF_RUNS_VARY

FloatArray = NDArray[np.float64]
GRID = np.array([10.0, 50, 100, 200, 500, 1000, 2000, 5000])
SEED = 25091937
CONFIDENCE = 0.999
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
FORM, NOISE, NEVER, TWO, OTHER = "form", "noise", "never falls", "two peaks", "one peak, other shape"


@dataclass(frozen=True)
class Truth:
    """Shares `rates` at GRID, each measured by `seeds` runs of `items` items.

    The log-odds of a triple in a run are the curve's plus noise of the run (SD `tau`) and a difficulty of the triple
    (SD `difficulty`), which is the same in all runs. `theta` is log height, b and log F* of a curve of the form.
    """

    group: str
    name: str
    rates: FloatArray = field(repr=False)
    items: int
    floor: float = 0.0
    theta: tuple[float, float, float] | None = None
    seeds: int = 1
    tau: float = 0.0
    difficulty: float = 0.0

    @property
    def largest_fall(self) -> float:
        """The largest fall between any two frequencies."""
        return float((np.maximum.accumulate(self.rates) - self.rates).max())

    @property
    def never_falls(self) -> bool:
        """Whether the curve falls nowhere up to the largest frequency."""
        return self.group == NEVER or (self.theta is not None and self.theta[LOG_F_STAR] >= np.log(GRID[-1]))

    def variance_bound(self) -> float:
        """The Cramér–Rao bound of the variance of log F*, the floor known."""
        slope = log_share_slopes(GRID, np.array([self.theta]))[0] * (self.rates - self.floor)
        information = (slope * (self.items / (self.rates * (1 - self.rates)))) @ slope.T
        return float(np.linalg.inv(information)[LOG_F_STAR, LOG_F_STAR])


@dataclass(frozen=True)
class Measured:
    """What `draws` draws of one truth gave: how many were ok, ok or ok if runs vary, covered F*, were wrong.

    `squares` are the squared errors of the ok draws.
    """

    truth: Truth
    draws: int
    ok: int
    reported: int
    covered: int
    wrong: int
    squares: FloatArray
    others: tuple[tuple[float, float], ...] = ()  # coverage and efficiency of the other estimators

    @property
    def efficiency(self) -> float:
        return self.truth.variance_bound() / float(self.squares.mean())


def of_form(f_star: float, b: float, peak: float, items: int, floor: float = 0.0) -> Truth:
    """A curve of the form with this F*, b and peak."""
    theta = (float(np.log((peak - floor) / (1 - floor))), b, float(np.log(f_star)))
    name = f"F*={f_star:g} b={b:g} peak={peak:g} n={items} g={floor:g}"
    return Truth(FORM, name, collapse_rate(GRID, np.array([theta]), floor)[0], items, floor, theta)


def truths(quick: bool) -> list[Truth]:
    """All truths, or six."""
    if quick:
        noisy = of_form(200, 0.5, 0.5, 500)
        shapes = [Truth(NEVER, "saturates", 0.8 * GRID / (GRID + 80), 3000)]
        shapes.append(Truth(TWO, "second peak", np.array([0.3, 0.6, 0.7, 0.5, 0.5, 0.7, 0.5, 0.3]), 3000))
        of_the_form = [of_form(300, 0.3, 0.7, 3000), of_form(200, 0.6, 0.7, 3000, 0.25), of_form(15000, 0.3, 0.7, 500)]
        return [*of_the_form, *shapes, replace(noisy, group=NOISE, seeds=3, tau=0.1, difficulty=0.6)]
    designs = [(500, 0.0), (3000, 0.0), (3000, 0.25)]
    curves = product(designs, (30, 200, 1000, 3000, 15000), (0.15, 0.3, 0.6), (0.3, 0.7, 0.98))
    result = [of_form(f_star, b, peak, items, floor) for (items, floor), f_star, b, peak in curves]
    noisy_curves = (of_form(300, 0.3, 0.7, 1000), of_form(1000, 0.2, 0.9, 500), of_form(300, 0.4, 0.6, 1000, 0.25))
    for curve, tau, seeds, difficulty in product(noisy_curves, (0.0, 0.1, 0.3), (1, 3), (0.0, 0.6)):
        name = f"{curve.name} tau={tau:g} seeds={seeds} difficulty={difficulty:g}"
        result.append(replace(curve, group=NOISE, name=name, tau=tau, seeds=seeds, difficulty=difficulty))
    x = np.log(GRID / GRID[0])
    shapes_of = {
        (NEVER, "saturates early"): 0.97 * GRID / (GRID + 30),
        (NEVER, "saturates"): 0.8 * GRID / (GRID + 80),
        (NEVER, "flat"): np.full(8, 0.5),
        (NEVER, "rises, then flat"): np.minimum(0.7, 0.1 + 0.6 * x / np.log(30)),
        (NEVER, "rises as log F"): 0.1 + 0.12 * x,
        (NEVER, "one step"): np.where(GRID < 400, 0.3, 0.8),
        (NEVER, "stairs"): np.array([0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.7, 0.7]),
        (TWO, "second peak of 0.05"): np.array([0.3, 0.5, 0.6, 0.65, 0.60, 0.65, 0.5, 0.3]),
        (TWO, "second peak of 0.10"): np.array([0.3, 0.5, 0.6, 0.65, 0.55, 0.65, 0.5, 0.3]),
        (TWO, "second peak of 0.20"): np.array([0.3, 0.6, 0.7, 0.5, 0.5, 0.7, 0.5, 0.3]),
        (TWO, "rises at the end"): np.array([0.3, 0.6, 0.7, 0.6, 0.4, 0.3, 0.4, 0.5]),
        (OTHER, "tent"): 0.7 - 0.1 * np.abs(np.log(GRID / 300)),
        (OTHER, "log-normal"): 0.1 + 0.6 * np.exp(-0.5 * (np.log(GRID / 300) / 1.2) ** 2),
        (OTHER, "slow fall"): np.array([0.2, 0.5, 0.7, 0.72, 0.7, 0.66, 0.62, 0.58]),
        (OTHER, "cliff"): np.array([0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.4, 0.2]),
    }
    for (group, name), rates in shapes_of.items():
        result += [Truth(group, f"{name} n={items}", rates, items) for items in (500, 3000)]
    return result


def draw(truth: Truth, draws: int, rng: np.random.Generator) -> Counts:
    """Counts of `draws` sweeps, paired by triple where triples differ in difficulty."""
    spread = float(np.hypot(truth.tau, truth.difficulty))
    odds = [  # log-odds whose mean share over runs and triples is the rate
        brentq(lambda at, rate=rate: WEIGHTS @ expit(at + spread * NODES) / WEIGHTS.sum() - rate, -40, 40)
        for rate in np.clip(truth.rates, 1e-15, 1 - 1e-15)
    ]
    frequency = np.repeat(GRID, truth.seeds)
    of_runs = np.repeat(odds, truth.seeds) + truth.tau * rng.standard_normal((draws, len(frequency)))
    total = np.full(of_runs.shape, float(truth.items))
    if not truth.difficulty:
        correct = rng.binomial(truth.items, expit(of_runs)).astype(np.float64)
        return pool_runs(frequency, correct, total, truth.floor)
    correct, paired = np.empty(of_runs.shape), []
    for at, runs in enumerate(of_runs):
        triples = truth.difficulty * rng.standard_normal((truth.items, 1))
        right = (rng.random((truth.items, len(runs))) < expit(runs + triples)).astype(np.float64)
        correct[at] = right.sum(axis=0)
        one = pool_runs(frequency, correct[at][None], total[:1], truth.floor)
        paired.append(with_pairing(one, frequency, right))
    counts = pool_runs(frequency, correct, total, truth.floor)
    within = np.concatenate([one.within for one in paired if one.within is not None])
    return replace(counts, correlation=np.concatenate([one.correlation for one in paired]), within=within)


def measure(truth: Truth, draws: int) -> Measured:
    """Draw, fit and judge."""
    seed = [SEED, *truth.name.encode()]
    counts = draw(truth, draws, np.random.default_rng(seed))
    fits = fit_curves(counts)
    if truth.group == NOISE:  # its target is the interval alone
        low, high = fits.interval(LOG_F_STAR)
        return Measured(truth, draws, 0, 0, covers(low, high, truth), 0, np.empty(0))
    verdicts = curve_verdicts(fits)
    ok = verdicts.status == OK
    reported = ok | (verdicts.status == OK_IF_RUNS_VARY)
    denied = (verdicts.status == NO_COLLAPSE) & (verdicts.largest_fall < truth.largest_fall - 1e-9)
    wrong = denied | (reported & truth.never_falls) | (ok & (truth.group == TWO))
    counted = int(ok.sum()), int(reported.sum())
    if truth.theta is None:
        return Measured(truth, draws, *counted, 0, int(wrong.sum()), np.empty(0))
    squares = (fits.theta[ok, LOG_F_STAR] - truth.theta[LOG_F_STAR]) ** 2
    covered = covers(verdicts.low, verdicts.high, truth)
    result = Measured(truth, draws, *counted, covered, int(wrong.sum()), squares)
    if ok.mean() < 0.95:
        return result
    share = counts.likelihood.share[ok][: 3 * draws // 10]
    return replace(result, others=tuple(other_estimator(name, truth, share) for name in OTHERS))


def covers(low: FloatArray, high: FloatArray, truth: Truth) -> int:
    """How many intervals hold log F*; an open end (NaN) covers."""
    assert truth.theta is not None
    return int((~(low > truth.theta[LOG_F_STAR]) & ~(high < truth.theta[LOG_F_STAR])).sum())


OTHERS = ("scipy curve_fit", "Huber loss on logs", "least squares on shares")


def other_estimator(name: str, truth: Truth, shares: FloatArray) -> tuple[float, float]:
    """Coverage of the 95 % Wald interval of log F* (NaN where there is none) and efficiency on shares [B, K]."""
    assert truth.theta is not None
    theta, floor, aim = np.array(truth.theta), truth.floor, truth.theta[LOG_F_STAR]
    least = 0.5 / truth.items  # for logs of a share of 0

    def loss(at: FloatArray, share: FloatArray) -> float:
        fitted = collapse_rate(GRID, at[None], floor)[0]
        if name == "least squares on shares":
            return float(((share - fitted) ** 2).sum()) * 1e3
        return float(huber(1e-3, np.log(np.maximum(share, least)) - np.log(np.maximum(fitted, least))).sum()) * 1e3

    def curve(F: FloatArray, a: float, b: float, c: float) -> FloatArray:
        return np.asarray(floor + (1 - floor) * a * F**b * np.exp(-c * F))

    errors, covered = [], []
    for share in shares:
        if name == "scipy curve_fit":
            try:
                (_, b, c), covariance = curve_fit(curve, GRID, share, p0=(0.1, 0.5, 1e-3), maxfev=10_000)
            except RuntimeError:  # no convergence
                continue
        else:  # from the truth itself, the most favourable start
            bounds = [(-20, 0), (0, 12), (np.log(1 / 3), np.log(150_000))]
            b, c = 1.0, np.exp(-minimize(loss, theta, (share,), method="L-BFGS-B", bounds=bounds).x[LOG_F_STAR])
            covariance = np.full((3, 3), np.nan)
        if b > 0 and c > 0:
            errors.append(np.log(b / c) - aim)
            slope = np.array([1 / b, -1 / c])
            covered.append(abs(errors[-1]) <= 1.96 * np.sqrt(slope @ covariance[1:, 1:] @ slope))
    coverage = float(np.mean(covered)) if name == OTHERS[0] else np.nan
    return coverage, truth.variance_bound() / float(np.mean(np.square(errors)))


Row = tuple[str, str, str, list[str]]


def shares_row(what: str, target: tuple[float, float], results: Sequence[Measured], counts: Sequence[int]) -> Row:
    """That every truth's share lies in `target`, or that chance in the draws may be why it does not."""
    misses = []
    for result, count in zip(results, counts, strict=True):
        interval = binomtest(count, result.draws).proportion_ci(CONFIDENCE, "exact")
        if interval.high < target[0] or interval.low > target[1]:
            misses.append(f"{what}: {result.truth.name}: {count} of {result.draws}")
    share = np.array(counts) / [result.draws for result in results]
    words = f"{target[0]:g} … {target[1]:g}" if target[0] else f"≤ {target[1]:g}"
    measured = f"{share.min():.3f} … {share.max():.3f}, mean {share.mean():.3f}"
    return f"{what} ({len(results)} truths)", words, measured, misses


def rows(results: Sequence[Measured]) -> list[Row]:
    """The table."""
    curves = [one for one in results if one.truth.group == FORM]
    good = [one for one in curves if one.ok >= 0.95 * one.draws]
    noisy = [one for one in results if one.truth.group == NOISE]
    judged = [one for one in results if one.truth.group != NOISE]
    never = [one for one in judged if one.truth.never_falls]
    efficiency = np.array([one.efficiency for one in good])
    error = np.array([one.squares.std() / one.squares.mean() / np.sqrt(len(one.squares)) for one in good])
    low = [f"efficiency: {good[at].truth.name}" for at in np.flatnonzero(efficiency * (1 + 3.29 * error) < 0.85)]
    what = f"efficiency of log F*, P(ok) ≥ 0.95 ({len(good)} truths): median, worst"
    return [
        (what, "≥ 0.95, ≥ 0.85", f"{np.median(efficiency):.3f}, {efficiency.min():.3f}", low),
        shares_row("95 % interval of F* covers, P(ok) ≥ 0.95", (0.93, 0.97), good, [one.covered for one in good]),
        shares_row("95 % interval of F* covers, all curves", (0.92, 1), curves, [one.covered for one in curves]),
        shares_row("the same with noise and shared triples", (0.92, 0.98), noisy, [one.covered for one in noisy]),
        shares_row("verdicts against the truth", (0, 0.05), judged, [one.wrong for one in judged]),
        shares_row("never falls, yet `ok` or `ok if runs vary`", (0, 0.08), never, [one.reported for one in never]),
    ]


def comparison(results: Sequence[Measured]) -> str:
    """What other estimators give on the same draws of truths with P(ok) ≥ 0.95: medians and worst."""
    others = np.array([one.others for one in results if one.others])
    lines = []
    for name, values in zip(OTHERS, others.swapaxes(0, 1), strict=True):
        coverage, efficiency = values.T
        line = f"- {name}: efficiency {np.median(efficiency):.3f} ({efficiency.min():.3f}), "
        interval = f"95 % interval covers {np.median(coverage):.3f} ({coverage.min():.3f})"
        lines.append(line + ("no interval" if np.isnan(coverage).all() else interval))
    return "Other estimators on the same draws, median (worst):\n\n" + "\n".join(lines)


def main() -> int:
    """Run the study, print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="six truths and 60 draws, in seconds")
    parser.add_argument("--draws", type=int, default=100, help="draws of each truth (default: 100)")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    began, every = time.perf_counter(), truths(args.quick)
    work = partial(measure, draws=60 if args.quick else args.draws)
    with ProcessPoolExecutor(args.processes) as pool:
        results = list((pool.map if args.processes > 1 else map)(work, every))
    table = rows(results)
    print("| | target | measured |\n| --- | --- | --- |")
    for what, target, measured, _ in table:
        print(f"| {what} | {target} | {measured} |")
    print(f"\n{comparison(results)}\n")
    misses = [miss for *_, of_row in table for miss in of_row]
    print("\n".join(f"missed: {miss}" for miss in misses))
    print(f"{len(every)} truths, {sum(one.draws for one in results):,} draws, {time.perf_counter() - began:.0f} s")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
