"""The guessing floor g: the share of items that a model gets right which never saw the triples."""

from collections.abc import Sequence
from dataclasses import dataclass

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import Observation

AUTO, NONE = "auto", "none"
Chance = str | float


@dataclass(frozen=True)
class Floor:
    """A floor and where it is from; `measured` says whether F = 0 runs gave it."""

    value: float
    source: str
    measured: bool = False


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
    """The floor of the curve that `observations` (of one N and D) make.

    `auto` pools the runs in which nothing was injected. Control triples are not the floor: a model that saw
    other triples has learned which objects a relation takes, and a model that saw none has not.

    Raises:
        InputError: `chance` is no floor, or the F = 0 runs got every item right.
    """
    chance = check_chance(chance)
    if chance == NONE:
        return Floor(0.0, "none, as asked (the paper's form)")
    if chance != AUTO:
        return Floor(float(chance), "given")
    baselines = [seen for seen in observations if seen.baseline]
    if not baselines:
        return Floor(0.0, "no F=0 run was found, so none; such a run, or --chance, would give it")
    correct, total = sum(seen.correct for seen in baselines), sum(seen.total for seen in baselines)
    if correct == total:
        raise InputError(f"{baselines[0].path}: the F = 0 runs got every item right; give the floor with --chance")
    runs = len({seen.path for seen in baselines})
    return Floor(correct / total, f"{correct:,} of {total:,} items of {runs} F=0 run{'s' * (runs > 1)}", True)
