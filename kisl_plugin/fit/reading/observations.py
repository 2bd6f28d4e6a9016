"""What a results file says of one run: how many items it got right at which frequency."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kisl_plugin.runcard import RunCard

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
