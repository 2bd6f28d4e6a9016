"""The guessing floor g: the share of items that a model gets right which never saw the triples."""

from collections.abc import Sequence
from dataclasses import dataclass

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.baselines import choose_baselines, count_runs
from kisl_plugin.fit.reading.observations import Observation

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
