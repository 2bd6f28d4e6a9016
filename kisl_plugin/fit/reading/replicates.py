"""Which results are of one training run, so that nothing is counted as an independent observation twice."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kisl_plugin.fit.reading.nested import object_at
from kisl_plugin.fit.reading.observations import Run, SetAside
from kisl_plugin.runcard import DECIDES_THE_SCHEDULE

# Beside N, the triples and the parent. `created` is not among them: the same run trained twice gives the same model
DECIDES_THE_MODEL = ("tokens", "engine", *DECIDES_THE_SCHEDULE)


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
    params = object_at(card, "model").get("params")
    return json.dumps([params, facts, *(card.get(key) for key in DECIDES_THE_MODEL)], sort_keys=True)


def latest(runs: Sequence[Run]) -> tuple[list[Run], list[SetAside]]:
    """Of the results of one training run those that lm-eval dates last; the others, and what superseded them."""
    keep: dict[tuple[str, ...], Run] = {}
    for run in runs:
        kept = keep.setdefault(run.identity, run)
        if (run.date, run.created) > (kept.date, kept.created):
            keep[run.identity] = run
    aside = [SetAside(run.path, _superseded(run, keep[run.identity])) for run in runs if keep[run.identity] is not run]
    return list(keep.values()), aside


def _superseded(run: Run, kept: Run) -> str:
    if not (run.created and kept.created) or run.created == kept.created:
        return f"superseded by {kept.path}, a probe of the same run"
    reason = (
        f"superseded by {kept.path}: the run was trained again with the same seeds "
        f"(created {run.created} and {kept.created}), so it is no new observation"
    )
    if run.observations[0].train_seed is None:
        reason += "; no train_seed in the run cards tells the two apart"
    return reason
