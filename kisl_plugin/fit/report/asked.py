"""What is asked of a sweep beside its curves and laws."""

from collections.abc import Sequence
from dataclasses import dataclass

from kisl_plugin.errors import InputError
from kisl_plugin.fit.planner.target import Target

FEWEST_DRAWS = 100  # a 95 % interval of fewer is chance itself


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`loss` is what the curves minimise; the size nearest to `hold_out` is predicted from the others.

    Each of `predict` is predicted for `triples` triples (None: as many as the sweep's). `bootstrap` is the number of
    draws (0: none).

    Raises:
        InputError: `hold_out` is no size, or the draws are too few.
    """

    loss: str = "binomial"
    hold_out: float | None = None
    predict: Sequence[Target] = ()
    triples: int | None = None
    bootstrap: int = 0

    def __post_init__(self) -> None:
        if self.hold_out is not None and not 0 < self.hold_out < float("inf"):
            raise InputError(f"--hold-out {self.hold_out}: expected a number of parameters above 0, such as 1.05e9")
        if self.bootstrap and self.bootstrap < FEWEST_DRAWS:
            raise InputError(f"--bootstrap {self.bootstrap}: expected 0 or at least {FEWEST_DRAWS}, such as 2000")
