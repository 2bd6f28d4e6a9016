"""What is predicted for a model that was not trained."""

from dataclasses import dataclass

from kisl_plugin.fit import human
from kisl_plugin.fit.laws.points import Interval


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The best F of a model with N = `params` trained on D = `tokens`, and what it costs.

    `f_star` is None where no law reaches so far: `words` then say what it takes. `interval` is the 95 % interval
    (None at an open end); where there is none, `interval_missing` says why. `source` names the law. `decades` is how
    far C lies outside the range that the law was fitted to, in powers of ten (0 inside); `words` says so.
    `triples` are those planned, `tokens_per_statement` is the sweep's mean (None: its run cards do not say it).
    """

    params: int
    tokens: int
    compute: float
    f_star: float | None
    interval: Interval | None
    interval_missing: str
    source: str
    decades: float | None
    words: str
    triples: int | None
    tokens_per_statement: float | None
    caveats: tuple[str, ...]

    @property
    def exposures(self) -> float | None:
        """F* × triples."""
        return None if self.f_star is None or self.triples is None else self.f_star * self.triples

    @property
    def injected_tokens(self) -> float | None:
        """Statement tokens over the run."""
        if self.exposures is None or self.tokens_per_statement is None:
            return None
        return self.exposures * self.tokens_per_statement

    @property
    def injected_fraction(self) -> float | None:
        """Their share of D."""
        return None if self.injected_tokens is None else self.injected_tokens / self.tokens

    @property
    def ends(self) -> str:
        """The interval in words: `95 %: 21.0–58.9`."""
        if self.interval is None:
            return f"no interval: {self.interval_missing}"
        return f"95 %: {human.interval(*self.interval)}"

    @property
    def headline(self) -> str:
        """The prediction in one line, never without its interval."""
        model = f"N = {human.count(self.params)}, D = {human.count(self.tokens)}"
        if self.f_star is None:
            return f"no F* for {model}"
        return f"F* = {human.estimate(self.f_star)} ({self.ends}) for {model}"
