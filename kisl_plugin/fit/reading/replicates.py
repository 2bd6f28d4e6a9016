"""Which results are of one training run, so that nothing is counted as an independent observation twice."""

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

    Where the last ones are equally old and contradict each other, none of them can be believed.
    """
    same: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        same[run.identity].append(run)
    keep, aside = [], []
    for found in same.values():
        newest = max((run.date, run.created) for run in found)
        last = [run for run in found if (run.date, run.created) == newest]
        if len({_counts(run) for run in last}) == 1:
            kept = next((run for run in last if run.observations[0].samples is not None), last[0])
            keep.append(kept)
            aside += [SetAside(run.path, _superseded(run, kept)) for run in found if run is not kept]
        else:
            names = ", ".join(run.path for run in last)
            aside += [SetAside(run.path, _contradicted(run, last, names)) for run in found]
    return keep, aside


def _counts(run: Run) -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (seen.group, seen.frequency, seen.correct, seen.total, seen.control_correct, seen.control_total)
        for seen in sorted(run.observations, key=lambda seen: str(seen.group))
    )


def _contradicted(run: Run, last: Sequence[Run], names: str) -> str:
    if all(run is not one for one in last):
        return f"superseded by {names}, which contradict each other"
    return f"contradictory: {names} are of one run and equally old but give different counts; remove the wrong one"


def _superseded(run: Run, kept: Run) -> str:
    if (run.date, run.created) == (kept.date, kept.created):
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
