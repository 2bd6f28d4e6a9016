"""What a results file says of one run: how many items it got right at which frequency."""

import filecmp
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.runcard import DECIDES_THE_SCHEDULE, RunCard

# Looking into JSON that nobody has checked yet.

LARGEST = 1e300


def object_at(data: Any, *keys: str) -> Mapping[str, Any]:
    """The object at `keys`, empty if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def number_in(value: Any) -> float:
    """The value as a finite number, NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        return math.nan
    return float(value)


# Which results are of a whole run, asked in full.

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


# What a results file says of one run: how many items it got right at which frequency.

Key = tuple[str, str, str]  # a triple: subject, relation and object, by their ids where it has some


@dataclass(frozen=True, kw_only=True)
class Observation:
    """`correct` of `total` items right at `frequency`; of a run with groups, those of one `group`.

    `task`: lm-eval's name of it ("" if a table does not say). `relations`: (correct, total) of the injected triples by
    relation id, empty where that cannot be told. `by_sum`: how many are right by summed log-likelihood.
    `bits_per_byte`: on the background text. `samples`: lm-eval's samples of this very task and time, if they agree with
    `correct` and `total`; `outcomes`: what they say of each triple (not in the table, which names the samples).
    """

    path: str
    model: str
    card: RunCard
    frequency: int
    group: str | None
    correct: int
    total: int
    control_correct: int | None
    control_total: int | None
    date: float
    task: str = ""
    relations: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    by_sum: int | None = None
    bits_per_byte: float | None = None
    samples: Path | None = None
    outcomes: Mapping[Key, bool] | None = field(default=None, compare=False, repr=False)

    @property
    def params(self) -> int:
        """N, all parameters."""
        return int(self.card.model["params"])

    @property
    def tokens(self) -> int:
        """D, the tokens trained on."""
        return self.card.tokens

    @property
    def seed(self) -> int:
        """The seed of the run's schedule."""
        return self.card.seed

    @property
    def train_seed(self) -> int | None:
        """The seed of initialisation and row order, if the run card says it."""
        seed = self.card.train_seed
        return seed if isinstance(seed, int) else None

    @property
    def baseline(self) -> bool:
        """Whether nothing was injected in the whole run (F = 0): it shows what guessing reaches."""
        groups = self.card.groups
        return self.frequency == 0 and (groups is None or all(g["frequency"] == 0 for g in groups.values()))


@dataclass(frozen=True)
class SetAside:
    """A file (or folder) that is not used, and why, in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class Run:
    """The observations of one results file; results of equal `identity` are of one training run, or of its repeat.

    `date` is lm-eval's, `created` the run card's ("" if it has none).
    """

    path: str
    date: float
    created: str
    identity: tuple[str, ...]
    observations: tuple[Observation, ...]


# Which results are of one training run, so that nothing is counted as an independent observation twice.

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


# Which F = 0 runs measure the guessing floor of a curve: those that differ from its runs in the frequency alone.


def choose_baselines(observations: Sequence[Observation]) -> tuple[list[Observation], tuple[str, ...]]:
    """The F = 0 observations that match an injected run among `observations`; how many others there are, and why.

    Seeds may differ, and so may what nothing depends on at F = 0: spacing, window, and a form or template that
    does not change the wording of the items.
    """
    cards = [seen.card for seen in observations if seen.frequency > 0]
    unlike = {seen.path: _unlike(seen.card, cards) for seen in observations if seen.baseline}
    used = [seen for seen in observations if seen.baseline and not unlike[seen.path]]
    reasons = Counter(reason for reason in unlike.values() if reason)
    notes = [f"{count_runs(many)} not used for the floor: {reason}" for reason, many in reasons.items()]
    return used, tuple(notes)


def count_runs(many: int) -> str:
    """`1 F=0 run`, `2 F=0 runs`."""
    return f"{many} F=0 run{'s' * (many > 1)}"


def _unlike(baseline: RunCard, injected: Sequence[RunCard]) -> str:
    """Why a baseline matches no injected run, by the run that it is most like; empty if it matches one."""
    least: list[str] = min((_differences(baseline, card) for card in injected), key=len, default=[])
    return ", ".join(least)


def _differences(baseline: RunCard, card: RunCard) -> list[str]:
    triples = {one.triples["sha256"] for one in (baseline, card) if one.triples.get("sha256")}
    engines = {baseline.engine, card.engine} - {"unknown"}
    asked, there = baseline.triples["count"], card.triples["count"]
    found = {
        "other triples (sha256)": len(triples) > 1,
        f"{asked} items where the injected runs answered {there}": asked != there,
        "items worded with another template": _wording(baseline) != _wording(card),
        f"trained by another engine ({baseline.engine})": len(engines) > 1,
        "continued from another checkpoint": identity(baseline.parent) != identity(card.parent),
    }
    return [reason for reason, differs in found.items() if differs]


def _wording(card: RunCard) -> tuple[str | None, int] | None:
    """The form and template that the probe takes from a card; None where it asks with template 0, its own choice."""
    template = card.template
    first = template[0] if isinstance(template, list) and template else template
    return (card.form, first) if card.form and isinstance(first, int) and first else None


# The guessing floor g: the share of items that a model gets right which never saw the triples.

AUTO, NONE = "auto", "none"
Chance = str | float


@dataclass(frozen=True)
class Floor:
    """A floor and where it is from; `measured` says whether F = 0 runs gave it, `notes` which of them did not.

    A measured floor is `correct` of `total` items; both are 0 otherwise.
    """

    value: float
    source: str
    measured: bool = False
    notes: tuple[str, ...] = ()
    correct: int = 0
    total: int = 0


def check_chance(chance: Chance) -> Chance:
    """`auto`, `none`, or a share as a number.

    Raises:
        InputError: it is none of these.
    """
    if chance in (AUTO, NONE):
        return chance
    try:
        value = float(chance)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1:
        raise InputError(f"--chance is {chance!r}; expected auto, none, or a share from 0 to below 1, such as 0.25")
    return value


def find_floor(observations: Sequence[Observation], chance: Chance) -> Floor:
    """The floor of the curve that `observations` (of one N and D) make; 1 if its F = 0 runs got every item right.

    `auto` pools the runs in which nothing was injected and which else match. Control triples are not the floor:
    a model that saw other triples has learned which objects a relation takes, and a model that saw none has not.

    Raises:
        InputError: `chance` is no floor.
    """
    chance = check_chance(chance)
    if chance == NONE:
        return Floor(0.0, "none, as asked (the paper's form)")
    if chance != AUTO:
        return Floor(float(chance), "given")
    baselines, unused = choose_baselines(observations)
    if not baselines:
        none = "no F=0 run matches its runs" if unused else "no F=0 run was found"
        return Floor(0.0, f"{none}, so none; such a run, or --chance, would give it", notes=unused)
    correct, total = sum(seen.correct for seen in baselines), sum(seen.total for seen in baselines)
    runs = count_runs(len({seen.path for seen in baselines}))
    source = f"{correct:,} of {total:,} items of {runs}"
    return Floor(correct / total, source, measured=True, notes=unused, correct=correct, total=total)
