"""What counts as one independent observation of a curve, and which runs measure its guessing floor.

An observation is the number of items that one training run got right at one frequency. Runs that differ in their seeds
alone are replicates; a run that was probed or trained again is not.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.fit.text import plural
from kisl_plugin.runcard import DECIDES_THE_SCHEDULE, RunCard

__all__ = ["Chance", "Observation"]

TOO_LARGE = 10**30  # for any count in a run card
TripleKey = tuple[str, str, str]  # subject, relation and object, by their ids where it has some


def object_at(data: Any, *keys: str) -> Mapping[str, Any]:
    """The JSON object at `keys` of unchecked data; empty if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


@dataclass(frozen=True, kw_only=True)
class Observation:
    """`correct` of `total` items of `task` right at `frequency`; in a run with groups, those of one `group`.

    `path` names the results file and `date` (seconds since 1970) when lm-eval wrote it. `bits_per_byte`: on the
    background text. `samples`: lm-eval's samples file, where its rows agree with `correct` and `total`; `outcomes`:
    what they say of each triple.
    """

    path: str
    task: str
    model: str
    card: RunCard
    frequency: int
    group: str | None
    correct: int
    total: int
    control_correct: int | None
    control_total: int | None
    date: float
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)
    bits_per_byte: float | None = None
    samples: Path | None = None
    outcomes: Mapping[TripleKey, bool] | None = field(default=None, compare=False, repr=False)

    @property
    def params(self) -> int:
        """N, all parameters."""
        return int(self.card.model["params"])

    @property
    def tokens(self) -> int:
        """D, the tokens trained on."""
        return self.card.tokens

    @property
    def seeds(self) -> tuple[int, int | None]:
        """The seed of the injection, and that of initialisation and row order (None: the run card has none)."""
        seed = self.card.train_seed
        return self.card.seed, seed if isinstance(seed, int) else None

    @property
    def accuracy(self) -> float:
        """The memorisation rate P."""
        return self.correct / self.total

    @property
    def baseline(self) -> bool:
        """Whether nothing was injected in the whole run (F = 0), so that its accuracy is that of guessing."""
        groups = self.card.groups
        return self.frequency == 0 and (groups is None or all(g["frequency"] == 0 for g in groups.values()))


@dataclass(frozen=True)
class SetAside:
    """A file or folder that is not used, and the reason in one line."""

    path: str
    reason: str


def check_card(card: RunCard, where: str) -> None:
    """Refuse the cards of unfinished runs, and cards whose numbers cannot be; `where` names the card.

    Raises:
        InputError: it is one of these.
    """
    groups = card.groups or {}
    counted = {"model.params": card.model["params"], "tokens": card.tokens, "seed": card.seed}
    counted |= {"frequency": card.frequency or 0, "triples.count": card.triples["count"]}
    counted |= {f"groups.{name}.{key}": group[key] for name, group in groups.items() for key in ("frequency", "count")}
    for key, value in counted.items():
        if value == 0 and key in ("model.params", "tokens"):
            raise InputError(f"{where}: {key} is 0; expected a positive number")
        if value >= TOO_LARGE:
            raise InputError(f"{where}: {key} is 10^30 or more; is this a run card?")
    done, planned = card.iteration, card.train_iters
    if isinstance(done, int) and isinstance(planned, int) and done < planned:
        raise InputError(f"unfinished run: iteration {done} of {planned}, so not every exposure was trained on")
    if card.groups is not None and not any(group["count"] for group in groups.values()):
        raise InputError(f"{where}: groups is empty or counts 0 triples; expected at least one group with triples")


# Runs of one frequency are replicates, groups of one run are not


@dataclass(frozen=True)
class Point:
    """All items asked at one frequency, summed over runs."""

    frequency: int
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """The memorisation rate P."""
        return self.correct / self.total


def merge_groups(observations: Iterable[Observation]) -> tuple[Observation, ...]:
    """One observation for each run and frequency, by frequency: groups of a run that share F are summed.

    Control triples and bits per byte belong to the whole model, so they are kept only where the run has one frequency.
    """
    groups: dict[tuple[int, str], list[Observation]] = defaultdict(list)
    frequencies: dict[str, set[int]] = defaultdict(set)
    for one in observations:
        groups[one.frequency, one.path].append(one)
        frequencies[one.path].add(one.frequency)
    merged = []
    for (_, path), group in sorted(groups.items(), key=lambda item: item[0]):
        first, alone = group[0], len(frequencies[path]) == 1
        has_control = alone and bool(first.control_total)
        outcomes = [one.outcomes for one in group if one.outcomes is not None]
        merged.append(
            replace(
                first,
                correct=sum(one.correct for one in group),
                total=sum(one.total for one in group),
                control_correct=first.control_correct if has_control else None,
                control_total=first.control_total if has_control else None,
                bits_per_byte=first.bits_per_byte if alone else None,
                outcomes={k: v for part in outcomes for k, v in part.items()} if len(outcomes) == len(group) else None,
            )
        )
    return tuple(merged)


def outcome_matrix(runs: Sequence[Observation]) -> NDArray[np.float64] | None:
    """Which triple was right in which run [T, R]: 1 right, 0 wrong, NaN not asked; None where a run does not say."""
    columns = [run.outcomes for run in runs if run.outcomes is not None]
    if len(columns) < len(runs) or not columns:
        return None
    rows = {key: row for row, key in enumerate(dict.fromkeys(key for column in columns for key in column))}
    right = np.full((len(rows), len(columns)), np.nan)
    for at, column in enumerate(columns):
        right[[rows[key] for key in column], at] = list(column.values())
    return right


def pool_by_frequency(counts: Iterable[tuple[int, int, int]]) -> tuple[Point, ...]:
    """(F, correct, total) summed by F, in order of F; frequencies without items are left out."""
    sums: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for frequency, correct, total in counts:
        sums[frequency] = (sums[frequency][0] + correct, sums[frequency][1] + total)
    return tuple(Point(frequency, *sums[frequency]) for frequency in sorted(sums) if sums[frequency][1])


Experiment = tuple[tuple[str, str], ...]  # what tells it from others: keys of the run card, and their values, cut


def experiments(observations: Sequence[Observation]) -> dict[Experiment, list[Observation]]:
    """The observations by what their run cards say of data, optimizer and model shape, where these differ.

    Such runs are no seeds of one experiment. A key is what differs between them, empty where nothing does. A card that
    does not say belongs with those that do, unless they differ among themselves.
    """
    described = [_experiment_settings(one.card) for one in observations]
    differing = [
        key
        for key in dict.fromkeys(key for settings in described for key in settings)
        if len({json.dumps(settings[key], sort_keys=True) for settings in described if key in settings}) > 1
    ]
    groups: dict[Experiment, list[Observation]] = defaultdict(list)
    for one, settings in zip(observations, described, strict=True):
        groups[tuple((key, str(settings.get(key, "unknown"))[:12]) for key in differing)].append(one)
    return groups


def belongs_to(card: RunCard, experiment: Experiment) -> bool:
    """Whether the card contradicts nothing that tells the experiment from others."""
    settings = _experiment_settings(card)
    return all(str(settings.get(key, value))[:12] == value for key, value in experiment)


def _experiment_settings(card: RunCard) -> dict[str, Any]:
    parts = {"data": card.data, "optimizer": card.optimizer, "model": card.model}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in (part or {}).items()}


# Which results are of one training run, so that no run counts twice

_CONTRADICTION = 4.0  # standard errors between the shares of two results of one run
# Beside the model, the triples and the parent. Not `created`: the same run trained twice gives the same model
_DECIDES_THE_MODEL = ("tokens", "data", "optimizer", *DECIDES_THE_SCHEDULE)


def identity(card: Any) -> tuple[str, ...]:
    """What decides the trained model, from a run card as JSON: of the run, then of each of its parents."""
    runs = []
    while isinstance(card, Mapping):
        triples = object_at(card, "triples")
        facts = triples.get("sha256") or [triples.get("source"), triples.get("count")]
        settings = [card.get(key) for key in _DECIDES_THE_MODEL]
        model, engine = object_at(card, "model"), card.get("engine") or "unknown"
        runs.append(json.dumps([model, facts, engine, *settings], sort_keys=True))
        card = card.get("parent")
    return tuple(runs)


def drop_superseded(
    runs: Sequence[Sequence[Observation]],
) -> tuple[list[Sequence[Observation]], list[SetAside]]:
    """For each training run the results that lm-eval dates last, and the others with the reason.

    `runs` are the observations of one results file each. Where results of the same date contradict the last, none of
    the run's results is used. Where earlier ones do so beyond chance, the reason says that it "contradicts" them: they
    may be of another experiment with the same card.
    """
    same: dict[tuple[str, ...], list[Sequence[Observation]]] = defaultdict(list)
    for run in runs:
        same[identity(run[0].card.to_dict())].append(run)
    keep, dropped = [], []
    for repeats in same.values():
        # When lm-eval probed the model, then when the run was trained
        ages = [(run[0].date, run[0].card.created) for run in repeats]
        last = [run for run, age in zip(repeats, ages, strict=True) if age == max(ages)]
        counts = {
            frozenset((o.group, o.frequency, o.correct, o.total, o.control_correct, o.control_total) for o in run)
            for run in last
        }
        if len(counts) > 1:
            names = ", ".join(run[0].path for run in last)
            clash = f"contradictory: {names} are of one run and date but have different counts; remove one"
            dropped += [SetAside(run[0].path, clash) for run in repeats]
            continue
        kept = next((run for run in last if run[0].samples is not None), last[0])
        keep.append(kept)
        for run in repeats:
            if run is not kept:
                earlier = "an earlier probe of the same run, or of a run with the same seeds"
                reason = f"a copy of {kept[0].path}" if run in last else f"{earlier}; {kept[0].path} is used"
                for one, other in zip(run, kept, strict=False):
                    pooled = (one.correct + other.correct) / (one.total + other.total)
                    variance = pooled * (1 - pooled) * (1 / one.total + 1 / other.total)
                    if (one.accuracy - other.accuracy) ** 2 > _CONTRADICTION**2 * variance:
                        rates = f"P = {one.accuracy:.3f}, not {other.accuracy:.3f}, at F = {one.frequency}"
                        reason = f"{earlier}; {kept[0].path} is used, which contradicts it ({rates})"
                dropped.append(SetAside(run[0].path, reason))
    return keep, dropped


# The guessing floor g: what a model gets right that never saw the triples

AUTO, _NONE = "auto", "none"
Chance = str | float
_OPTIONS, _OPTIONS_ERROR = 4, 0.05  # of a question; how far a model that favours some objects may be from one in four


@dataclass(frozen=True)
class Floor:
    """A floor with its standard error (0: as given) and its source; whether F = 0 runs `measured` it.

    `notes` say which F = 0 runs were not used.
    """

    value: float
    source: str
    notes: tuple[str, ...] = ()
    error: float = 0.0
    measured: bool = False


def check_chance(chance: Chance) -> Chance:
    """`auto`, `none`, or a share as a number.

    Raises:
        InputError: it is none of these.
    """
    if chance in (AUTO, _NONE):
        return chance
    try:
        value = float(chance)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise InputError(f"--chance is {chance!r}; expected auto, none, or a share from 0 to below 1, such as 0.25")
    return value


def find_floor(observations: Sequence[Observation], chance: Chance) -> Floor:
    """The floor of the curve of `observations` (one N and D); 1 if its F = 0 runs got every item right.

    `auto` pools the F = 0 runs that match. Without any, the control triples of the injected runs stand in for them,
    though a model that saw other triples has learned which objects a relation takes; and without those, one in four.

    Raises:
        InputError: `chance` is no floor.
    """
    chance = check_chance(chance)
    if chance == _NONE:
        return Floor(0.0, "none, as requested (the paper's form)")
    if chance != AUTO:
        return Floor(float(chance), "given with --chance")
    baselines, notes = matching_baselines(observations)
    if baselines:
        correct, total = sum(one.correct for one in baselines), sum(one.total for one in baselines)
        runs = plural(len({one.path for one in baselines}), "run")
        source = f"{correct:,} of {total:,} items right in {runs} at F = 0"
        error = math.sqrt(correct * (total - correct) / total**3)
        return Floor(correct / total, source, notes, error, measured=True)
    missing = "no run at F = 0 matches the others" if notes else "no run at F = 0"
    injected = [one for one in observations if one.frequency > 0 and one.control_total]
    controls = {one.path: (one.control_correct or 0, one.control_total or 0) for one in injected}
    if not controls:
        source = f"one in {_OPTIONS} options, ± {_OPTIONS_ERROR}, as there is {missing} and no control triple"
        return Floor(1 / _OPTIONS, source, notes, _OPTIONS_ERROR)
    correct, total = (sum(counts) for counts in zip(*controls.values(), strict=True))
    share, items = correct / total, max(total for _, total in controls.values())
    # Every run was asked the same control triples, so that more runs make their share no more certain
    error = math.sqrt(max(share * (1 - share), 1 / (4 * items)) / items)
    runs = plural(len(controls), "run")
    source = f"{correct:,} of {total:,} control triples right in {runs}, ± {error:.2g}, as there is {missing}"
    return Floor(share, source, notes, error)


def matching_baselines(observations: Sequence[Observation]) -> tuple[list[Observation], tuple[str, ...]]:
    """The F = 0 observations that differ from some injected run in the frequency alone; why others are not used.

    Seeds may differ, and so may what has no effect at F = 0: spacing, window, and a form or template that does not
    change the wording of the items.
    """
    cards = [one.card for one in observations if one.frequency > 0]
    used, reasons = [], {}
    for one in observations:
        if one.baseline:
            differences: list[str] = min((_differences(one.card, card) for card in cards), key=len, default=[])
            if differences:
                reasons[one.path] = ", ".join(differences)
            else:
                used.append(one)
    counted = Counter(reasons.values())
    return used, tuple(f"{plural(n, 'run')} at F = 0 not used for the floor: {why}" for why, n in counted.items())


def _differences(baseline: RunCard, card: RunCard) -> list[str]:
    digests = {one.triples["sha256"] for one in (baseline, card) if one.triples.get("sha256")}
    engines = {baseline.engine, card.engine} - {"unknown"}
    items, expected = baseline.triples["count"], card.triples["count"]
    checks = {
        "other triples (sha256)": len(digests) > 1,
        f"{items} items where the injected runs have {expected}": items != expected,
        "items worded with another template": _wording(baseline) != _wording(card),
        f"trained by another engine ({baseline.engine})": len(engines) > 1,
        "continued from another checkpoint": identity(baseline.parent) != identity(card.parent),
    }
    return [reason for reason, differs in checks.items() if differs]


def _wording(card: RunCard) -> tuple[str | None, int] | None:
    """The form and template that the probe takes from a card; None where it uses template 0, its default."""
    template = card.template
    first = template[0] if isinstance(template, list) and template else template
    return (card.form, first) if card.form and isinstance(first, int) and first else None
