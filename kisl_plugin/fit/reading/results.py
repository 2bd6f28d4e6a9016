"""lm-eval results files → observations. Nothing is dropped in silence: what is not used is listed with its reason."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.nested import object_at
from kisl_plugin.fit.reading.observations import Observation, Run, SetAside
from kisl_plugin.fit.reading.replicates import identity, latest
from kisl_plugin.fit.reading.walking import claims_to_be_results, find_json
from kisl_plugin.runcard import RunCard

TASK = "kisl_wikidata"
WHOLE = 0.01  # acc × n may be off a whole number by this much: lm-eval may round, a wrong n is off by more


@dataclass(frozen=True)
class Reading:
    """The observations of the runs that are used, what was set aside, and what is worth saying beside."""

    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...] = ()


def read_results(paths: Sequence[Path], task: str = TASK, runs: Path | None = None) -> Reading:
    """Read every lm-eval results file under `paths` (folders or files) for `task`.

    Raises:
        InputError: a path does not exist, or there is no results file at all.
    """
    files, aside = find_json(paths)
    named = {path for path in paths if path.is_file()}
    found: list[Run] = []
    for file in files:
        try:
            data = _load(file, must_be_results=file in named or claims_to_be_results(file))
            if data is not None:
                found.append(_run(data, file, task))
        except InputError as reason:
            aside.append(SetAside(str(file), str(reason)))
    if not found and not aside:
        raise InputError(
            f"{', '.join(map(str, paths))}: no lm-eval results found; looked for results_*.json, and any *.json with "
            f"'results' and 'configs'. Write some: lm_eval --tasks {task} --output_path results ..."
        )
    kept, superseded = latest(found)
    return Reading(tuple(seen for run in kept for seen in run.observations), (*aside, *superseded))


def observations_of(results: Mapping[str, Any], task: str = TASK) -> Reading:
    """Read what lm_eval.simple_evaluate returned."""
    raise NotImplementedError


def _load(file: Path, must_be_results: bool) -> dict[str, Any] | None:
    """The file's data, or None for some other JSON file."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if must_be_results:
            raise InputError(f"cannot be read as JSON ({error})") from None
        return None
    if isinstance(data, dict) and "results" in data and ("configs" in data or "n-samples" in data):
        return data
    if must_be_results:
        raise InputError("not lm-eval results: they are a JSON object with 'results' and 'configs'")
    return None


def _run(data: Mapping[str, Any], file: Path, task: str) -> Run:
    metrics = object_at(data, "results", task)
    if not metrics:
        there = ", ".join(sorted(object_at(data, "results"))) or "no task at all"
        raise InputError(f"no results of task {task}; it holds {there} (choose with --task)")
    raw = object_at(data, "configs", task, "metadata").get("kisl")
    if raw is None:
        raise InputError("no run card (metadata.kisl): probe a model trained with kisl, its kisl.json beside it")
    card = RunCard.from_dict(raw, "run card")
    _check_card(card)
    _check_complete(data, card, task)
    when = data.get("date")
    date = float(when) if isinstance(when, int | float) else 0.0
    model = str(data.get("model_name") or object_at(data, "config").get("model") or "")
    seen = tuple(_observations(metrics, card, str(file), model, date))
    return Run(str(file), date, str(raw.get("created") or ""), identity(raw), seen)


def _check_card(card: RunCard) -> None:
    for key, value in (("model.params", card.model["params"]), ("tokens", card.tokens)):
        if value == 0:
            raise InputError(f"run card: {key} is 0; expected a positive number")
    done, planned = card.iteration, card.train_iters
    if isinstance(done, int) and isinstance(planned, int) and done < planned:
        raise InputError(f"unfinished run: iteration {done} of {planned}, so not every exposure was seen")
    if card.groups is not None and not any(group["count"] for group in card.groups.values()):
        raise InputError("run card: groups is empty or counts 0 triples; expected at least one group with triples")


def _check_complete(data: Mapping[str, Any], card: RunCard, task: str) -> None:
    """Refuse a run on part of the items (--limit, --samples)."""
    limit = object_at(data, "config").get("limit")
    if limit is not None:
        raise InputError(f"run with --limit {limit}: probe all items")
    count, control, asked = card.triples["count"], _control(card), object_at(data, "results", task)
    for metric, total in (("items", count), ("items_control", control)):
        answered = asked.get(f"{metric},none")
        if answered is not None and total is not None and answered != total:
            raise InputError(f"{metric} is {answered!r}; the run card says {total} triples: probe all items")
    if "items,none" not in asked:
        _check_effective(object_at(data, "n-samples", task).get("effective"), card)


def _check_effective(effective: Any, card: RunCard) -> None:
    """The same for results that do not say how many items were asked.

    `effective` is not always the number of items: 0.4.12 gives that of one metric, 0.4.13 the largest of them, so any
    of the metrics' n is right.
    """
    count, control = card.triples["count"], _control(card)
    groups = [group["count"] for group in (card.groups or {}).values() if group["count"]]
    allowed = {count, count + (control or 0), *groups, *([control] if control else [])}
    if not isinstance(effective, int) or effective in allowed or (control is None and effective > count):
        return
    expected = f"{count} injected" + (f" and {control} control" if control else "")
    raise InputError(f"{effective} items answered; the run card says {expected} triples: probe all items")


def _control(card: RunCard) -> int | None:
    count = card.triples.get("control")
    return count if isinstance(count, int) else None


def _observations(metrics: Mapping[str, Any], card: RunCard, path: str, model: str, date: float) -> list[Observation]:
    control = _control(card)
    right = _right(metrics, "acc_control", control) if control and "acc_control,none" in metrics else None
    cells: list[tuple[str | None, str, int, int]] = []
    for name, group in (card.groups or {}).items():
        if group["count"]:  # a group without triples has no accuracy
            cells.append((name, f"acc_{name}", group["frequency"], group["count"]))
    if card.frequency is not None:
        cells.append((None, "acc", card.frequency, card.triples["count"]))
    return [
        Observation(
            path=path,
            model=model,
            card=card,
            frequency=frequency,
            group=group_name,
            correct=_right(metrics, metric, total),
            total=total,
            control_correct=right,
            control_total=control if right is not None else None,
            date=date,
        )
        for group_name, metric, frequency, total in cells
    ]


def _right(metrics: Mapping[str, Any], metric: str, total: int) -> int:
    """How many of `total` items were right, from the accuracy."""
    key = f"{metric},none"
    if key not in metrics:
        raise InputError(f"no metric {key} among {', '.join(sorted(metrics))}")
    share = metrics[key]
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise InputError(f"{key} is {share!r}; expected a share between 0 and 1")
    if total == 0:
        raise InputError(f"{key}: the run card counts 0 triples for it")
    if abs(share * total - round(share * total)) > WHOLE:
        raise InputError(
            f"{key} is {share!r}, which is no whole number of the {total} triples that the run card counts"
        )
    return round(share * total)
