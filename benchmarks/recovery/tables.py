"""Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from recovery.targets import Target


@dataclass(frozen=True)
class Section:
    """A part of the report, and the targets that it shows met or missed."""

    title: str
    text: str
    targets: tuple[Target, ...] = ()

    def __str__(self) -> str:
        return f"## {self.title}\n\n{self.text}\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash for none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def of_targets(targets: Iterable[Target]) -> str:
    rows = [(one.name, one.asked, one.seen, "met" if one.met else f"missed ({len(one.misses)})") for one in targets]
    return table(("target", "asked", "seen", ""), rows)
