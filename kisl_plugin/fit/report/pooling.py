"""Observations of one model → its runs, its points, and what was measured beside them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kisl_plugin.fit.reading.observations import Observation
from kisl_plugin.fit.reading.outcomes import FloatArray
from kisl_plugin.fit.report.gathered import Background, Point, RunPoint

RunKey = tuple[str, float, str]


def runs_of(observations: Sequence[Observation]) -> list[list[int]]:
    """The places of the observations that are of one run and frequency (groups that share it), run by run."""
    places: dict[tuple[int, RunKey], list[int]] = defaultdict(list)
    for at, seen in enumerate(observations):
        places[seen.frequency, _key(seen)].append(at)
    return [places[key] for key in sorted(places)]


def _key(seen: Observation) -> RunKey:
    # Results that were never a file may share their path.
    return (seen.path, seen.date, seen.card.created)


def run_points(observations: Sequence[Observation]) -> tuple[RunPoint, ...]:
    """One RunPoint per run and frequency, in the order of `runs_of`."""
    frequencies: dict[RunKey, set[int]] = defaultdict(set)
    for seen in observations:
        frequencies[_key(seen)].add(seen.frequency)
    return tuple(
        _run_point(parts, alone=len(frequencies[_key(parts[0])]) == 1)
        for parts in ([observations[at] for at in places] for places in runs_of(observations))
    )


def by_run(right: FloatArray, observations: Sequence[Observation]) -> FloatArray:
    """Outcomes [T, observations] → [T, runs] in the order of `runs_of`: groups of one run hold different triples."""
    columns = [right[:, places] for places in runs_of(observations)]
    return np.column_stack(
        [np.where(np.isnan(column).all(axis=1), np.nan, np.nansum(column, axis=1)) for column in columns]
    )


def _run_point(parts: Sequence[Observation], alone: bool) -> RunPoint:
    """`alone`: the run has this frequency only, so that what the whole model does belongs to it."""
    first = parts[0]
    sums = [seen.by_sum for seen in parts if seen.by_sum is not None]
    control = Point(first.frequency, first.control_correct or 0, first.control_total) if first.control_total else None
    return RunPoint(
        path=first.path,
        model=first.model,
        seed=first.seed,
        train_seed=first.train_seed,
        frequency=first.frequency,
        correct=sum(seen.correct for seen in parts),
        total=sum(seen.total for seen in parts),
        control=control if alone else None,
        by_sum=sum(sums) if len(sums) == len(parts) else None,
        bits_per_byte=first.bits_per_byte if alone else None,
        relations=_relations(parts),
    )


def _relations(parts: Sequence[Observation]) -> Mapping[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for seen in parts:
        for relation, (correct, total) in seen.relations.items():
            before = sums.get(relation, (0, 0))
            sums[relation] = (before[0] + correct, before[1] + total)
    return sums


def pool(cells: Iterable[tuple[int, int, int]]) -> tuple[Point, ...]:
    """(F, correct, total) summed by F, in order."""
    sums: dict[int, list[int]] = {}
    for frequency, correct, total in cells:
        both = sums.setdefault(frequency, [0, 0])
        both[0] += correct
        both[1] += total
    return tuple(Point(frequency, *sums[frequency]) for frequency in sorted(sums) if sums[frequency][1])


def points_of(runs: Sequence[RunPoint]) -> tuple[Point, ...]:
    """The memorisation rate at each frequency."""
    return pool((run.frequency, run.correct, run.total) for run in runs)


def controls_of(runs: Sequence[RunPoint]) -> tuple[Point, ...]:
    """The share of control triples that are right at each frequency."""
    return pool((run.frequency, run.control.correct, run.control.total) for run in runs if run.control)


def by_sum_of(runs: Sequence[RunPoint]) -> tuple[Point, ...]:
    """The share that is right by summed likelihood; none where any run does not say it."""
    if any(run.by_sum is None for run in runs):
        return ()
    return pool((run.frequency, run.by_sum or 0, run.total) for run in runs)


def background_of(runs: Sequence[RunPoint]) -> tuple[Background, ...]:
    """Mean bits per byte at each frequency."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        if run.bits_per_byte is not None:
            values[run.frequency].append(run.bits_per_byte)
    return tuple(Background(F, sum(seen) / len(seen), len(seen)) for F, seen in sorted(values.items()))


def relations_of(runs: Sequence[RunPoint]) -> Mapping[str, tuple[Point, ...]]:
    """The points of each relation, relations in order of their ids."""
    names = sorted({relation for run in runs for relation in run.relations})
    return {
        name: pool((run.frequency, *run.relations[name]) for run in runs if name in run.relations) for name in names
    }


def seeds_of(runs: Sequence[RunPoint]) -> tuple[tuple[int, int | None], ...]:
    """The distinct pairs of injection and training seed."""
    pairs = {(run.seed, run.train_seed) for run in runs}
    return tuple(sorted(pairs, key=lambda pair: (pair[0], pair[1] is not None, pair[1] or 0)))
