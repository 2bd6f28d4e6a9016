"""Which results are of a whole run, asked in full."""

from collections.abc import Mapping
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.nested import number_in, object_at
from kisl_plugin.runcard import RunCard

TOO_LARGE = 10**30  # of what a run may count


def check_task(data: Mapping[str, Any], task: str) -> None:
    """Refuse results without the task, and a group of tasks: what lm-eval writes of one is no task's.

    Raises:
        InputError: it is one of these.
    """
    members = object_at(data, "group_subtasks").get(task)
    if members or task in object_at(data, "groups"):
        known = ", ".join(map(str, members)) if isinstance(members, list) else "see 'configs'"
        raise InputError(f"{task} is a group of tasks ({known}): choose one of them with --task")
    if task in object_at(data, "results") and not object_at(data, "results", task):
        raise InputError(f"results.{task} holds no metrics; probe again")
    if not object_at(data, "results", task):
        there = ", ".join(sorted(object_at(data, "results"))) or "no task at all"
        raise InputError(f"no results of task {task}; it holds {there} (choose with --task)")


def check_limit(data: Mapping[str, Any]) -> None:
    """Refuse a run on the first items only.

    Raises:
        InputError: it is one.
    """
    limit = object_at(data, "config").get("limit")
    if limit is not None:
        raise InputError(f"run with --limit {limit}: probe all items")


def check_card(card: RunCard, where: str) -> None:
    """Refuse cards of nothing and of unfinished runs; `where` names the card.

    Raises:
        InputError: it is one.
    """
    for key, value in (("model.params", card.model["params"]), ("tokens", card.tokens)):
        if value == 0:
            raise InputError(f"{where}: {key} is 0; expected a positive number")
    _check_sizes(card, where)
    done, planned = card.iteration, card.train_iters
    if isinstance(done, int) and isinstance(planned, int) and done < planned:
        raise InputError(f"unfinished run: iteration {done} of {planned}, so not every exposure was seen")
    if card.groups is not None and not any(group["count"] for group in card.groups.values()):
        raise InputError(f"{where}: groups is empty or counts 0 triples; expected at least one group with triples")


def _check_sizes(card: RunCard, where: str) -> None:
    groups = (card.groups or {}).items()
    counted = {"model.params": card.model["params"], "tokens": card.tokens, "seed": card.seed}
    counted |= {"frequency": card.frequency or 0, "triples.count": card.triples["count"]}
    counted |= {f"groups.{name}.{key}": group[key] for name, group in groups for key in ("frequency", "count")}
    for key, value in counted.items():
        if value >= TOO_LARGE:
            raise InputError(f"{where}: {key} is 10^30 or more; is this a run card?")


def check_items(data: Mapping[str, Any], card: RunCard, task: str, where: str) -> None:
    """Refuse a run on part of the items.

    Raises:
        InputError: not all triples that the card counts were asked.
    """
    check_limit(data)
    asked = object_at(data, "results", task)
    items, items_control = _answered(asked, "items"), _answered(asked, "items_control")
    for name, answered, total in (
        ("items", items, card.triples["count"]),
        ("items_control", items_control, control_of(card)),
    ):
        if answered is not None and total is not None and answered != total:
            raise InputError(f"{name} is {answered}; the {where} says {total} triples: probe all items")
    counts = object_at(data, "n-samples", task)
    original = counts.get("original")
    if items is None:
        _check_effective(counts.get("effective"), card, where)
    elif isinstance(original, int) and items + (items_control or 0) != original:  # no run card may have known it
        raise InputError(f"{items + (items_control or 0)} of {original} items asked: probe all items")


def _answered(asked: Mapping[str, Any], name: str) -> int | None:
    """The number of items that were counted, None where they were not."""
    if f"{name},none" not in asked:
        return None
    value = number_in(asked[f"{name},none"])
    if not value >= 0 or value % 1 != 0:
        raise InputError(f"{name},none is {asked[f'{name},none']!r}; expected a number of items")
    return int(value)


def _check_effective(effective: Any, card: RunCard, where: str) -> None:
    """The same for results that do not say how many items were asked.

    `effective` is not always the number of items: 0.4.12 gives that of one metric, 0.4.13 the largest of them, so any
    of the metrics' n is right.
    """
    count, control = card.triples["count"], control_of(card)
    groups = [group["count"] for group in (card.groups or {}).values() if group["count"]]
    allowed = {count, count + (control or 0), *groups, *([control] if control else [])}
    if not isinstance(effective, int) or effective in allowed or (control is None and effective > count):
        return
    expected = f"{count} injected" + (f" and {control} control" if control else "")
    raise InputError(f"{effective} items answered; the {where} says {expected} triples: probe all items")


def control_of(card: RunCard) -> int | None:
    """How many control triples the card counts, if it says so."""
    count = card.triples.get("control")
    return count if type(count) is int and 0 <= count < TOO_LARGE else None  # True is no count
