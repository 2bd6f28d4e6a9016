"""The runs of the grid: model × token budget × frequency."""

from dataclasses import dataclass

from kisl_plugin.configs.models import MODELS, TINY_MODELS, Model
from kisl_plugin.configs.training import BUDGETS, GRID, TINY, Training


@dataclass(frozen=True)
class Series:
    """The runs that one collapse curve takes: one model at one token budget."""

    name: str
    model: Model
    training: Training
    budget: float

    @property
    def train_iters(self) -> int:
        """Steps: as near to the budget as whole steps come."""
        return round(self.budget / (self.training.batch * self.training.seq_length))

    @property
    def tokens(self) -> int:
        """D = train_iters × batch × seq_length."""
        return self.train_iters * self.training.batch * self.training.seq_length

    @property
    def compute(self) -> float:
        """C = 6·N·D."""
        return 6.0 * self.model.shape.parameters * self.tokens

    @property
    def runs(self) -> tuple["Run", ...]:
        """One run for each frequency."""
        return tuple(Run(self, frequency) for frequency in self.training.frequencies)


@dataclass(frozen=True)
class Run:
    """One YAML."""

    series: Series
    frequency: int

    @property
    def name(self) -> str:
        """The file's name without `.yml`."""
        return f"{self.series.name}_f{self.frequency}"

    @property
    def injected_fraction(self) -> float:
        """The share of the tokens that are statements, by the mean length of a statement; the run card says exactly."""
        facts = self.series.training.facts
        return facts.count * facts.tokens * self.frequency / self.series.tokens


def all_series() -> tuple[Series, ...]:
    """The grid, then each model's other budgets beside it, then the tiny ones."""
    found = []
    for model in MODELS:
        found.append(Series(model.name, model, GRID, GRID.budget))
        for budget in BUDGETS.get(model.name, ()):
            found.append(Series(f"{model.name}_{budget / 1e9:.0f}b", model, GRID, budget))
    found += [Series(model.name, model, TINY, TINY.budget) for model in TINY_MODELS]
    return tuple(found)


def all_runs() -> tuple[Run, ...]:
    """Every run, series by series, F rising."""
    return tuple(run for series in all_series() for run in series.runs)
