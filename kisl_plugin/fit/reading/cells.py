"""One results file → its observations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.fit.reading.checks import check_card, check_items, check_task, control_of
from kisl_plugin.fit.reading.metrics import Metrics, count_relations, count_right, items_by_error
from kisl_plugin.fit.reading.nested import number_in, object_at
from kisl_plugin.fit.reading.observations import Observation, Run
from kisl_plugin.fit.reading.replicates import identity
from kisl_plugin.runcard import RunCard

Cell = tuple[str | None, int, int]


@dataclass(frozen=True)
class Results:
    """What lm-eval gave for one model; `path` says where, `file` is None for results that are in no file."""

    data: Mapping[str, Any]
    path: str
    file: Path | None = None

    @property
    def model(self) -> str:
        """The model's name or folder, as lm-eval was told."""
        return str(self.data.get("model_name") or object_at(self.data, "config").get("model") or "")

    @property
    def date(self) -> float:
        """When lm-eval was started, seconds since 1970; 0 if unknown."""
        when = number_in(self.data.get("date"))
        return when if math.isfinite(when) else 0.0

    def card(self, task: str) -> Any:
        """The run card that the probe found beside the model; None without one."""
        return object_at(self.data, "configs", task, "metadata").get("kisl")


def make_run(results: Results, task: str, raw: Any, where: str = "run card", samples: Path | None = None) -> Run:
    """The observations of `task`, of a run with the raw card `raw`; `where` names the card in errors.

    Raises:
        InputError: they are no observation of the card's frequency: another task, part of the items, broken metrics.
    """
    check_task(results.data, task)
    card = RunCard.from_dict(raw, where)
    card = RunCard.from_dict({**card.to_dict(), "created": str(raw.get("created") or "")}, where)
    check_card(card, where)
    check_items(results.data, card, task, where)
    seen = tuple(_observation(results, task, card, cell, where, samples) for cell in _cells(card))
    return Run(results.path, results.date, card.created, identity(card.to_dict()), seen)


def items_of(results: Results, task: str, group: str | None, control: bool = False) -> int | None:
    """How many items an accuracy of these results is of, for results without a run card; None if they do not tell."""
    metrics = object_at(results.data, "results", task)
    suffix = "_control" if control else ""
    exact = number_in(metrics.get(f"items{suffix},none"))
    if group is None and exact % 1 == 0:
        return int(exact)
    by_error = items_by_error(metrics, f"acc{suffix}" if group is None else f"acc_{group}")
    if by_error is not None or control or group is not None or "acc_control,none" in metrics:
        return by_error
    effective = object_at(results.data, "n-samples", task).get("effective")
    return effective if isinstance(effective, int) else None


def _observation(
    results: Results, task: str, card: RunCard, cell: Cell, where: str, samples: Path | None
) -> Observation:
    group, frequency, total = cell
    metrics, control = object_at(results.data, "results", task), control_of(card)
    correct = count_right(metrics, "acc" if group is None else f"acc_{group}", total, where)
    right = count_right(metrics, "acc_control", control, where) if control and "acc_control,none" in metrics else None
    return Observation(
        path=results.path,
        model=results.model,
        card=card,
        frequency=frequency,
        group=group,
        correct=correct,
        total=total,
        control_correct=right,
        control_total=control if right is not None else None,
        date=results.date,
        task=task,
        relations=count_relations(metrics, correct, total) if total == card.triples["count"] else {},
        by_sum=_by_sum(metrics, total, where) if group is None else None,
        samples=samples,
    )


def _cells(card: RunCard) -> list[Cell]:
    """(group, frequency, items) of each observation."""
    if card.frequency is not None:
        return [(None, card.frequency, card.triples["count"])]
    return [
        (name, group["frequency"], group["count"])
        for name, group in (card.groups or {}).items()
        if group["count"]  # a group without triples has no accuracy
    ]


def _by_sum(metrics: Metrics, total: int, where: str) -> int | None:
    return count_right(metrics, "sum_acc", total, where) if "sum_acc,none" in metrics else None
