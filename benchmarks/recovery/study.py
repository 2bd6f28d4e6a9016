"""Recovery: curves of the form, counts without run-to-run noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from kisl_plugin.fit.text import OK
from recovery.draws import counts, generator
from recovery.others import Other, compare
from recovery.plan import BLOCK, Plan, shared
from recovery.seen import HEADINGS, STATUSES, Seen, joined, look
from recovery.tables import Section, number, table
from recovery.targets import Target, can_reach, shares
from recovery.truths import DESIGNS, DESIGNS_WITH_FLOOR, FLOOR, FloatArray, Truth, all_truths, largest_fall
from recovery.verdicts import never_ok, wrong_verdicts

NAME = "recovery"
NEARLY_ALL, NEAR, FAR = 0.95, 0.94, 0.8  # P(ok): of truths with targets, of those drawn more often, of those less
DOUBTFUL = 0.95  # coverage of the first draws; below it no truth is drawn less
QUICKLY = (Truth(300, 0.3, 0.7, 3000, 8), Truth(200, 0.6, 0.7, 3000, 6, 0.25), Truth(15000, 0.3, 0.7, 500, 8))
LEAST_EFFICIENCY, MEDIAN_EFFICIENCY = 0.85, 0.95
COVERAGE, COVERAGE_ANYWHERE = (0.93, 0.97), (0.92, 1.0)
MEDIANS_ERROR = float(np.sqrt(np.pi / 2))  # that of a median over that of a mean


@dataclass(frozen=True)
class Recovered:
    """What `draws` draws of one truth gave: shares of statuses, counts of verdicts and intervals, the efficiency."""

    truth: Truth
    draws: int
    statuses: tuple[float, ...]
    ok: int
    covered: int
    ok_covered: float  # share of the ok draws
    wrong: int
    efficiency: float
    efficiency_error: float  # relative
    curve_fit: Other
    logs: Other

    @property
    def nearly_all_ok(self) -> bool:
        return self.ok >= NEARLY_ALL * self.draws

    def __str__(self) -> str:
        covered, ok, wrong = (count / self.draws for count in (self.covered, self.ok, self.wrong))
        told = f"ok {ok:.3f}, covers {covered:.3f}, efficiency {self.efficiency:.3f}, wrong {wrong:.3f}"
        return f"{self.truth}, {self.draws} draws: {told}"


def run(plan: Plan, processes: int) -> Section:
    truths = list(QUICKLY) if plan.quick else all_truths()
    found = shared(NAME, partial(recover, plan), truths, processes)
    return Section(f"Recovery of {len(found)} curves", _text(found, plan), _targets(found))


def recover(plan: Plan, truth: Truth) -> Recovered:
    """Draw, fit and judge; more draws where nearly all are ok, fewer where many are not and intervals cover."""
    seen, correct = _look(truth, 0, plan.fewest)
    doubtful = seen.covers(float(np.log(truth.f_star))).mean() < DOUBTFUL
    for enough, until in ((0.0 if doubtful else FAR, plan.usual), (NEAR, plan.most)):
        if seen.share(OK) >= enough and until > len(seen.status):
            seen = joined([seen, _look(truth, len(seen.status), until)[0]])
    return _summed(truth, seen, compare(truth, correct[: plan.compared], seen.status[: plan.compared] == OK))


def _look(truth: Truth, begin: int, end: int) -> tuple[Seen, FloatArray]:
    """Draws from number `begin` on, in blocks, each of a seed of its own."""
    drawn = [
        counts(generator(*truth.key, start), truth.rates, truth.items, min(BLOCK, end - start))
        for start in range(begin, end, BLOCK)
    ]
    return joined([look(truth.frequency, some, truth.items, truth.floor) for some in drawn]), np.concatenate(drawn)


def _summed(truth: Truth, seen: Seen, others: tuple[Other, Other]) -> Recovered:
    ok, aim = seen.status == OK, float(np.log(truth.f_star))
    squares = (seen.log_f_star[ok] - aim) ** 2
    some = len(squares) > 1
    return Recovered(
        truth=truth,
        draws=len(ok),
        statuses=tuple(seen.share(status) for status in STATUSES),
        ok=int(ok.sum()),
        covered=int(seen.covers(aim).sum()),
        ok_covered=float(seen.covers(aim)[ok].mean()) if some else np.nan,
        wrong=int(seen.wrong(truth.never_falls, largest_fall(truth.rates)).sum()),
        efficiency=truth.least_variance() / float(squares.mean()) if some else np.nan,
        efficiency_error=float(squares.std() / squares.mean() / np.sqrt(len(squares))) if some else np.nan,
        curve_fit=others[0],
        logs=others[1],
    )


def _targets(found: Sequence[Recovered]) -> tuple[Target, ...]:
    good, never = [one for one in found if one.nearly_all_ok], [one for one in found if one.truth.never_falls]

    def covering(where: str, asked: tuple[float, float], some: Sequence[Recovered]) -> Target:
        name = f"{NAME}: 95 % interval of F* covers, {where}"
        return shares(name, asked, [str(one.truth) for one in some], [one.covered for one in some], _draws(some))

    return (
        *_efficiency(good),
        covering("P(ok) ≥ 0.95", COVERAGE, good),
        covering("every truth", COVERAGE_ANYWHERE, found),
        *wrong_verdicts(NAME, [str(one.truth) for one in found], [one.wrong for one in found], _draws(found)),
        never_ok(NAME, [str(one.truth) for one in never], [one.ok for one in never], _draws(never)),
    )


def _draws(some: Sequence[Recovered]) -> list[int]:
    return [one.draws for one in some]


def _efficiency(good: Sequence[Recovered]) -> tuple[Target, ...]:
    if not good:
        return (Target(f"{NAME}: efficiency of log F*", "some truth with P(ok) ≥ 0.95", "none", ("none",)),)
    ratio = np.array([one.efficiency for one in good])
    error = MEDIANS_ERROR * float(np.median([one.efficiency_error for one in good])) / len(good) ** 0.5
    median, worst = float(np.median(ratio)), min(good, key=lambda one: one.efficiency)
    low = [one for one in good if not can_reach(one.efficiency, one.efficiency_error, LEAST_EFFICIENCY)]
    return (
        Target(
            f"{NAME}: efficiency of log F*, median",
            f"≥ {MEDIAN_EFFICIENCY}",
            f"{median:.3f} ({len(good)} truths with P(ok) ≥ 0.95)",
            () if can_reach(median, error, MEDIAN_EFFICIENCY) else (f"median: {median:.3f}",),
        ),
        Target(
            f"{NAME}: efficiency of log F*, worst",
            f"≥ {LEAST_EFFICIENCY}",
            f"{worst.efficiency:.3f} ({worst.truth})",
            tuple(f"{one.truth}: {one.efficiency:.3f}" for one in low),
        ),
    )


def _text(found: Sequence[Recovered], plan: Plan) -> str:
    asked = ", ".join(f"n = {items} at {points} F" for items, points in DESIGNS_WITH_FLOOR)
    lines = (
        f"A floor of {FLOOR:g} was tried with {len(DESIGNS_WITH_FLOOR)} of the {len(DESIGNS)} designs only ({asked}).",
        f"Draws: {plan.usual} of each truth, {plan.most} where P(ok) ≥ {NEAR}; {plan.fewest} where it is below {FAR} "
        "and",
        f"these cover F* in {DOUBTFUL} of them or more. `of ok draws` is the coverage among draws called `ok`: where "
        "`ok` is",
        "rare, it is said most of draws that chance has moved, and their intervals cover less; it has no target.",
        f"curve_fit and least squares on logs: on the first {plan.compared} draws; `answers` is how often they gave an",
        "F* > 0 with a finite interval, coverage is that of these answers, and their efficiency is, like ours, that of",
        "the draws that are `ok`. Efficiency can exceed 1: draws that are `ok` are a choice, the more so the fewer.",
    )
    return "\n".join(lines) + "\n\n" + _medians(found) + "\n\n" + _power(found) + "\n\n" + _rows(found)


def _medians(found: Sequence[Recovered]) -> str:
    """Ours beside the others, over truths with P(ok) ≥ 0.95."""
    good = [one for one in found if one.nearly_all_ok]
    ways = {
        "kisl": [(1.0, one.covered / one.draws, one.efficiency) for one in good],
        "curve_fit": [(one.curve_fit.answers, one.curve_fit.coverage, one.curve_fit.efficiency) for one in good],
        "least squares on logs": [(one.logs.answers, one.logs.coverage, one.logs.efficiency) for one in good],
    }
    headings = (
        "truths with P(ok) ≥ 0.95",
        "answers: median",
        "coverage: median",
        "worst",
        "efficiency: median",
        "worst",
    )
    rows = []
    for way, of_truths in ways.items():
        answers, coverage, efficiency = np.array(of_truths).reshape(-1, 3).T
        cells = (*_median_and_least(answers)[:1], *_median_and_least(coverage), *_median_and_least(efficiency))
        rows.append((way, *map(number, cells)))
    return table(headings, rows)


def _median_and_least(values: FloatArray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(np.median(known)), float(known.min())) if len(known) else (np.nan, np.nan)


def _power(found: Sequence[Recovered]) -> str:
    """How often `no collapse` is said of curves that fall, by how much they fall."""
    steps, rows = (0.0, 0.02, 0.05, 0.1, 0.2, 1.0), []
    for least, most in pairwise(steps):
        of_step = [one for one in found if least < largest_fall(one.truth.rates) <= most]
        by_items = [[one.statuses[1] for one in of_step if one.truth.items == items] for items in (500, 3000, 10000)]
        rows.append((f"{least:g} – {most:g}", *(number(float(np.mean(some))) if some else "–" for some in by_items)))
    return table(("`no collapse` where the truth falls by", "n = 500", "n = 3000", "n = 10000"), rows)


def _rows(found: Sequence[Recovered]) -> str:
    others = ("curve_fit answers", "coverage", "efficiency", "log answers", "coverage", "efficiency")
    headings = (
        "F*",
        "b",
        "peak",
        "n",
        "K",
        "floor",
        "draws",
        *HEADINGS,
        "coverage",
        "of ok draws",
        "efficiency",
        "wrong",
        *others,
    )
    return table(headings, map(_row, found))


def _row(one: Recovered) -> list[str]:
    truth = one.truth
    named = (truth.f_star, truth.b, truth.peak, truth.items, truth.points, truth.floor, one.draws)
    ours = (*one.statuses, one.covered / one.draws, one.ok_covered, one.efficiency, one.wrong / one.draws)
    theirs = [value for way in (one.curve_fit, one.logs) for value in (way.answers, way.coverage, way.efficiency)]
    return [f"{value:g}" for value in named] + [number(value) for value in (*ours, *theirs)]
