"""Which F = 0 runs measure the guessing floor of a curve: those that differ from its runs in the frequency alone."""

from collections import Counter
from collections.abc import Sequence

from kisl_plugin.fit.reading.observations import Observation
from kisl_plugin.fit.reading.replicates import identity
from kisl_plugin.runcard import RunCard


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
