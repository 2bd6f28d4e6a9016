"""All that kisl-fit found, as the table, the page and fit.json show it."""

from collections.abc import Mapping
from dataclasses import dataclass

from kisl_plugin.fit.curves.curve import CollapseCurve
from kisl_plugin.fit.human import count
from kisl_plugin.fit.laws.data_law import DataLaw
from kisl_plugin.fit.laws.hold_out import HeldOut
from kisl_plugin.fit.laws.joint import JointLaw
from kisl_plugin.fit.laws.law import FEWEST_MODELS, InfusionLaw
from kisl_plugin.fit.laws.points import Interval
from kisl_plugin.fit.laws.verdicts import Verdict
from kisl_plugin.fit.planner.prediction import Prediction
from kisl_plugin.fit.reading.floor import Chance, Floor
from kisl_plugin.fit.reading.observations import Observation, SetAside


@dataclass(frozen=True)
class Point:
    """All items asked at one frequency, the runs summed."""

    frequency: int
    correct: int
    total: int

    @property
    def share(self) -> float:
        """The memorisation rate P."""
        return self.correct / self.total


@dataclass(frozen=True, kw_only=True)
class RunPoint:
    """One run at one frequency, its groups summed: what the curve is fitted to.

    `control`, `by_sum` and `bits_per_byte` are None where they are not known, or not of this frequency alone.
    """

    path: str
    model: str
    seed: int
    train_seed: int | None
    frequency: int
    correct: int
    total: int
    control: Point | None
    by_sum: int | None
    bits_per_byte: float | None
    relations: Mapping[str, tuple[int, int]]

    @property
    def share(self) -> float:
        """The memorisation rate P of this run."""
        return self.correct / self.total


@dataclass(frozen=True)
class Background:
    """Bits per byte on the background text at one frequency: the mean of `runs` runs."""

    frequency: int
    bits_per_byte: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class CurveReport:
    """The curve of the models with N parameters trained on D tokens.

    `points`, `controls` and `by_sum` hold the runs summed, by frequency (> 0); `background` begins at F = 0 where such
    runs are; `relations` are the points of each relation. `seeds` are those of the injection and of training (None
    where the run cards do not say it). `pairing` says in words whether the fit knew which triple was right when.
    """

    params: int
    tokens: int
    floor: Floor
    runs: tuple[RunPoint, ...]
    points: tuple[Point, ...]
    controls: tuple[Point, ...]
    by_sum: tuple[Point, ...]
    background: tuple[Background, ...]
    relations: Mapping[str, tuple[Point, ...]]
    seeds: tuple[tuple[int, int | None], ...]
    curve: CollapseCurve
    pairing: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What this model is called in words."""
        return f"{count(self.params)} on {count(self.tokens)} tokens"

    @property
    def has_replicates(self) -> bool:
        """Whether a frequency was run more than once."""
        return len(self.runs) > len(self.points)

    @property
    def compute(self) -> float:
        """C = 6·N·D in floating-point operations."""
        return 6.0 * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class LawReport:
    """The law of one token budget, through the models whose curves show a collapse point."""

    tokens: int
    params: tuple[int, ...]
    law: InfusionLaw | None


@dataclass(frozen=True, kw_only=True)
class DrawnLaw:
    """95 % percentile intervals of one token budget's law; `predictions` are those asked for at this D, with their N.

    `fell` is the share of draws in which every model had a collapse point.
    """

    tokens: int
    alpha: Interval
    E: Interval
    predictions: tuple[tuple[int, Interval], ...]
    fell: float


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """`f_star`: 95 % percentile intervals of F* by (params, tokens). `paired`: triples were drawn, not counts."""

    draws: int
    paired: bool
    f_star: tuple[tuple[int, int, Interval], ...]
    laws: tuple[DrawnLaw, ...]


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """Everything that was found. `laws` has one entry per token budget, the one with most sizes first."""

    task: str
    chance: Chance
    loss: str
    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    curves: tuple[CurveReport, ...]
    laws: tuple[LawReport, ...]
    data_laws: tuple[DataLaw, ...]
    joint: JointLaw | None
    held_out: tuple[HeldOut, ...]
    verdicts: tuple[Verdict, ...]
    predictions: tuple[Prediction, ...]
    bootstrap: Bootstrap | None
    notes: tuple[str, ...]

    @property
    def budgets(self) -> list[int]:
        """The token budgets D, in order."""
        return sorted({found.tokens for found in self.curves})

    @property
    def headline(self) -> LawReport | None:
        """The token budget with most sizes, if it has a law."""
        return self.laws[0] if self.laws and self.laws[0].law else None

    @property
    def missing_law(self) -> str:
        """What it would take to fit a law; empty where there is one."""
        if self.headline:
            return ""
        takes = f"it takes {FEWEST_MODELS} models of different N with a collapse point (ok) at one token budget D"
        if not self.laws:
            return f"no infusion law: {takes}"
        sizes = ", ".join(count(params) for params in self.laws[0].params) or "none"
        return f"no infusion law: {takes}; here D = {count(self.laws[0].tokens)} has most: {sizes}"
