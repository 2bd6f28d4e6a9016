"""Which results are of one training run, so that nothing is counted as an independent observation twice."""

import filecmp
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from kisl_plugin.fit.reading.nested import object_at
from kisl_plugin.fit.reading.observations import Run, SetAside
from kisl_plugin.runcard import DECIDES_THE_SCHEDULE

# Beside N, the triples and the parent. `created` is not among them: the same run trained twice gives the same model
DECIDES_THE_MODEL = ("tokens", *DECIDES_THE_SCHEDULE)


def identity(card: Any) -> tuple[str, ...]:
    """What decides the model that training gave, from a raw run card: of the run, then of its parents."""
    runs = []
    while isinstance(card, Mapping):
        runs.append(_of_one_run(card))
        card = card.get("parent")
    return tuple(runs)


def _of_one_run(card: Mapping[str, Any]) -> str:
    triples = object_at(card, "triples")
    facts = triples.get("sha256") or [triples.get("source"), triples.get("count")]
    engine = card.get("engine") or "unknown"
    params = object_at(card, "model").get("params")
    return json.dumps([params, facts, engine, *(card.get(key) for key in DECIDES_THE_MODEL)], sort_keys=True)


def latest(runs: Sequence[Run]) -> tuple[list[Run], list[SetAside]]:
    """Of the results of one training run those that lm-eval dates last; the others, and what superseded them.

    Where equally old ones, or ones with the very same samples, contradict the last, none of them can be believed.
    """
    same: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        same[run.identity].append(run)
    keep, aside = [], []
    for found in same.values():
        newest = max(found, key=lambda run: (run.date, run.created))
        last = [run for run in found if _equally_old(run, newest) or _same_samples(run, newest)]
        if len({_counts(run) for run in last}) == 1:
            kept = next((run for run in last if run.observations[0].samples is not None), last[0])
            keep.append(kept)
            aside += [SetAside(run.path, _superseded(run, kept)) for run in found if run is not kept]
        else:
            names = ", ".join(run.path for run in last)
            aside += [SetAside(run.path, _contradicted(run, last, names)) for run in found]
    return keep, aside


def _equally_old(run: Run, other: Run) -> bool:
    return (run.date, run.created) == (other.date, other.created)


def _same_samples(run: Run, newest: Run) -> bool:
    """Whether one of two files was changed after its samples were written."""
    one, other = run.observations[0].samples, newest.observations[0].samples
    if one is None or other is None or _counts(run) == _counts(newest):
        return False
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _counts(run: Run) -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (seen.group, seen.frequency, seen.correct, seen.total, seen.control_correct, seen.control_total)
        for seen in sorted(run.observations, key=lambda seen: str(seen.group))
    )


def _contradicted(run: Run, last: Sequence[Run], names: str) -> str:
    if all(run is not one for one in last):
        return f"superseded by {names}, which contradict each other"
    return f"contradictory: {names} are of one run and one date (or the same samples) with other counts; remove one"


def _superseded(run: Run, kept: Run) -> str:
    if _equally_old(run, kept):
        return f"a copy: the same results as {kept.path}"
    if not (run.created and kept.created) or run.created == kept.created:
        return f"superseded by {kept.path}, a probe of the same run"
    reason = (
        f"superseded by {kept.path}: the run was trained again with the same seeds "
        f"(created {run.created} and {kept.created}), so it is no new observation"
    )
    if run.observations[0].train_seed is None:
        reason += "; no train_seed in the run cards tells the two apart"
    return reason
