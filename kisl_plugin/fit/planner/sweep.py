"""What the runs of a sweep have in common, from their run cards."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kisl_plugin.runcard import RunCard


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How the sweep injected: of each, what most of its run cards say (None: none says it).

    `triples` is the number of injected triples, `tokens_per_statement` the mean over the cards, `vocabulary` padded.
    """

    triples: int | None = None
    tokens_per_statement: float | None = None
    source: str | None = None
    form: str | None = None
    template: int | tuple[int, ...] | None = None
    spacing: str | None = None
    window: tuple[float, float] | None = None
    seq_length: int | None = None
    vocabulary: int | None = None


def sweep_of(cards: Iterable[RunCard]) -> Sweep:
    """What the run cards of a sweep say, those of runs without injection left out."""
    injected = [card for card in cards if _exposures(card) > 0]
    # Of the optional keys nothing was checked when the card was read
    tokens = [(card.injected_tokens, _exposures(card)) for card in injected if isinstance(card.injected_tokens, int)]
    lengths = [spent / exposures for spent, exposures in tokens if spent > 0]
    return Sweep(
        triples=_most((card.triples["count"] for card in injected), int),
        tokens_per_statement=sum(lengths) / len(lengths) if lengths else None,
        source=_most((card.triples.get("source") for card in injected), str),
        form=_most((card.form for card in injected), str),
        template=_most((_template(card) for card in injected), (int, tuple)),
        spacing=_most((card.spacing for card in injected), str),
        window=_most((_window(card) for card in injected), tuple),
        seq_length=_most((card.seq_length for card in injected), int) or None,
        vocabulary=_most((card.model.get("vocab_size") for card in injected), int) or None,
    )


def _exposures(card: RunCard) -> int:
    if card.groups is not None:
        return sum(group["frequency"] * group["count"] for group in card.groups.values())
    return (card.frequency or 0) * int(card.triples["count"])


def _template(card: RunCard) -> int | tuple[int, ...] | None:
    return tuple(card.template) if isinstance(card.template, list) else card.template


def _window(card: RunCard) -> tuple[float, float] | None:
    match card.window:
        case [int() | float() as start, int() | float() as end]:
            return float(start), float(end)
    return None


def _most(values: Iterable[Any], kind: type | tuple[type, ...]) -> Any:
    """The value that is there most often, among those of the right kind."""
    found = Counter(value for value in values if isinstance(value, kind)).most_common(1)
    return found[0][0] if found else None
