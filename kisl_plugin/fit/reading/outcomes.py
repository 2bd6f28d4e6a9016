"""Which triple was right in which run, from lm-eval's samples."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.observations import Key, Observation
from kisl_plugin.fit.reading.samples import Sample, read_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
else:
    FloatArray = Any


@dataclass(frozen=True)
class Outcomes:
    """`right`: float [T, R], 1 right, 0 wrong, NaN not asked; T triples (`keys`), R observations in their order."""

    right: FloatArray
    keys: tuple[Key, ...]


def read_outcomes(observations: Sequence[Observation]) -> Outcomes | None:
    """What each observation got right, triple by triple; None where one of them has no samples to go by."""
    import numpy as np

    columns = []
    for seen in observations:
        outcomes = seen.outcomes if seen.outcomes is not None else check_samples([seen])[0][0].outcomes
        if outcomes is None:
            return None
        columns.append(outcomes)
    if not columns:
        return None
    keys = tuple(dict.fromkeys(key for column in columns for key in column))
    rows = {key: row for row, key in enumerate(keys)}
    right = np.full((len(keys), len(columns)), np.nan)
    for k, column in enumerate(columns):
        right[[rows[key] for key in column], k] = list(column.values())
    return Outcomes(right, keys)


def check_samples(observations: Sequence[Observation]) -> tuple[list[Observation], list[str]]:
    """The observations of one results file with what its samples say; samples that contradict it are not kept.

    Also the reasons why samples were not kept, each in one line.
    """
    paths = {seen.samples for seen in observations if seen.samples is not None}
    if len(paths) != 1:
        return list(observations), []
    (path,) = paths
    try:
        rows = read_samples(path)
        return [with_samples(seen, rows) for seen in observations], []
    except InputError as reason:
        without = [replace(seen, samples=None) for seen in observations]
        where = "" if str(reason).startswith(str(path)) else f"{path}: "
        return without, [f"samples not used: {where}{reason}"]


def with_samples(seen: Observation, rows: Sequence[Sample]) -> Observation:
    """The observation with its outcome per triple, per relation and by sum.

    Raises:
        InputError: the rows contradict its counts, or ask a triple twice.
    """
    mine = [row for row in rows if row.right is not None and seen.group in (None, row.group)]
    outcomes = {row.key: bool(row.right) for row in mine}
    if len(outcomes) != len(mine):
        twice = next(key for key, times in Counter(row.key for row in mine).items() if times > 1)
        raise InputError(f"the triple {' – '.join(twice)} is asked twice")
    right = sum(outcomes.values())
    if (right, len(mine)) != (seen.correct, seen.total):
        raise InputError(
            f"{right} of {len(mine)} rows are right where the results say {seen.correct} of {seen.total}"
            + (f" (group {seen.group})" if seen.group is not None else "")
        )
    sums = [row.by_sum for row in mine]
    by_sum = seen.by_sum if None in sums else sum(map(bool, sums))
    return replace(seen, outcomes=outcomes, relations=_relations(outcomes), by_sum=by_sum)


def _relations(outcomes: dict[Key, bool]) -> dict[str, tuple[int, int]]:
    asked = Counter(relation for _, relation, _ in outcomes)
    right = Counter(relation for (_, relation, _), is_right in outcomes.items() if is_right)
    return {relation: (right[relation], asked[relation]) for relation in sorted(asked)}
