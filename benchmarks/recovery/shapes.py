"""Truths that the form cannot give: never falling, two peaks, other shapes with one peak."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.text import OK
from recovery.draws import counts, generator
from recovery.plan import BLOCK, Plan, shared
from recovery.seen import HEADINGS, STATUSES, joined, look
from recovery.tables import Section, number, table
from recovery.targets import Target
from recovery.truths import GRIDS, SHAPES, FloatArray, largest_fall
from recovery.verdicts import never_ok, wrong_verdicts

NAME = "shapes"
NEVER, TWO, _OTHER = SHAPES
OF_SHAPES = 7  # sets the seeds of these draws apart
QUICKLY = (("never falls", "rises, then flat"), ("two peaks", "second peak of 0.20"), ("never falls", "saturates"))


@dataclass(frozen=True)
class Shape:
    """Shares of one kind, each counted in `seeds` runs of `items` items, whose log-odds scatter by tau."""

    kind: str
    name: str
    items: int
    seeds: int
    tau: float
    draws: int

    @property
    def rates(self) -> FloatArray:
        return SHAPES[self.kind][self.name]

    @property
    def key(self) -> tuple[int, ...]:
        place = [(kind, name) for kind, group in SHAPES.items() for name in group].index((self.kind, self.name))
        return (OF_SHAPES, place, self.items, self.seeds, round(1000 * self.tau))

    def __str__(self) -> str:
        return f"{self.name} n={self.items} seeds={self.seeds}"


@dataclass(frozen=True)
class Found:
    shape: Shape
    statuses: tuple[float, ...]
    ok: int
    wrong: int
    allowed: float  # median of the largest fall that the data allow

    def __str__(self) -> str:
        shape, told = self.shape, " ".join(f"{share:.3f}" for share in self.statuses)
        return f"{shape} tau={shape.tau:g}: {told}, wrong {self.wrong / shape.draws:.3f}"


def run(plan: Plan, processes: int) -> Section:
    found = shared(NAME, find, _jobs(plan), processes)
    return Section("Other shapes", _text(found), _targets(found))


def _jobs(plan: Plan) -> list[Shape]:
    if plan.quick:
        return [Shape(kind, name, 3000, 1, 0.0, plan.shapes) for kind, name in QUICKLY]
    return [
        Shape(kind, name, items, seeds, tau, draws)
        for tau, draws in ((0.0, plan.shapes), (0.1, plan.noisy_shapes))
        for kind, group in SHAPES.items()
        for name in group
        for items in (500, 3000)
        for seeds in (1, 3)
    ]


def find(shape: Shape) -> Found:
    frequency, blocks = np.repeat(GRIDS[8], shape.seeds), []
    for start in range(0, shape.draws, BLOCK):
        rng, size = generator(*shape.key, start), min(BLOCK, shape.draws - start)
        correct = counts(rng, shape.rates, shape.items, size, shape.seeds, shape.tau)
        blocks.append(look(frequency, correct, shape.items, 0.0))
    seen = joined(blocks)
    wrong = seen.wrong(shape.kind in (NEVER, TWO), largest_fall(shape.rates))
    statuses = tuple(seen.share(status) for status in STATUSES)
    return Found(shape, statuses, int((seen.status == OK).sum()), int(wrong.sum()), float(np.median(seen.allowed)))


def _targets(found: Sequence[Found]) -> tuple[Target, ...]:
    """Without run-to-run noise."""
    plain = [one for one in found if not one.shape.tau]
    never = [one for one in plain if one.shape.kind == NEVER]
    return (
        *wrong_verdicts(NAME, [str(o.shape) for o in plain], [o.wrong for o in plain], [o.shape.draws for o in plain]),
        never_ok(NAME, [str(o.shape) for o in never], [o.ok for o in never], [o.shape.draws for o in never]),
    )


def _text(found: Sequence[Found]) -> str:
    headings = ("kind", "shape", "tau", "n", "seeds", "draws", *HEADINGS, "wrong", "falls by", "allowed (median)")
    words = (
        "Eight frequencies. tau is the standard deviation of log-odds between runs; targets hold where it is 0.\n"
        "With tau and one run a frequency nothing tells noise from shape, so such sweeps err more often."
    )
    return words + "\n\n" + table(headings, map(_row, found))


def _row(one: Found) -> list[str]:
    shape = one.shape
    named = [shape.kind, shape.name, *(f"{v:g}" for v in (shape.tau, shape.items, shape.seeds, shape.draws))]
    values = (*one.statuses, one.wrong / shape.draws, largest_fall(shape.rates), one.allowed)
    return named + [number(value) for value in values]
