"""F*(D) ∝ D^gamma of models with one N: weighted least squares of log F* on log D."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.fit.laws.points import OPEN, CollapsePoint, FloatArray, Interval, log_errors, positive
from kisl_plugin.fit.laws.scatter import Noise, find_noise

FEWEST_BUDGETS = 2


@dataclass(frozen=True, kw_only=True)
class DataLaw:
    """F* = level·(D / centre)^gamma at N = `params`.

    `scatter` and `df` as in the infusion law. From two budgets with intervals of F* the intervals hold the curves'
    errors only; without any measure of error they are open.
    """

    params: int
    gamma: float
    gamma_interval: Interval
    scatter: float
    df: float
    points: int
    tokens_range: tuple[int, int]
    caveats: tuple[str, ...]
    level: float = field(repr=False)
    centre: float = field(repr=False)
    errors: tuple[float, float] = field(repr=False)  # of log level and of gamma
    noise: Noise = field(repr=False, compare=False)

    def predict(self, tokens: float) -> float:
        """F* of the model trained on D = `tokens`."""
        return float(self.level * (positive("tokens", [tokens])[0] / self.centre) ** self.gamma)

    def interval(self, tokens: float) -> Interval:
        """The 95 % interval of that F*, a model's scatter in it."""
        if not self.noise.known:
            return OPEN
        away = np.log(positive("tokens", [tokens])[0] / self.centre)
        error = np.sqrt(self.errors[0] ** 2 + (away * self.errors[1]) ** 2 + self.scatter**2)
        factor = float(np.exp(self.noise.quantile * error))
        return self.predict(tokens) / factor, self.predict(tokens) * factor


def fit_data_law(points: Sequence[CollapsePoint]) -> DataLaw:
    """Fit F* ∝ D^gamma to collapse points of one N, from two D on.

    Raises:
        InputError: several N, or fewer than two D.
    """
    sizes, budgets = {point.params for point in points}, {point.tokens for point in points}
    if len(sizes) != 1 or len(budgets) < FEWEST_BUDGETS:
        raise InputError(
            f"collapse points of {len(sizes)} N and {len(budgets)} D; the law of D takes one N and two D or more"
        )
    D = positive("tokens", [point.tokens for point in points])
    F = positive("f_star", [point.f_star for point in points])
    errors = log_errors(F, [point.interval for point in points])
    noise = find_noise(errors, len(D), len(D) - 2, lambda weights: np.array([_line(D, F, w)[-1] for w in weights]))
    centre, log_level, gamma, level_error, gamma_error, _ = _line(D, F, noise.weight)
    reach = noise.quantile * gamma_error
    return DataLaw(
        params=points[0].params,
        gamma=gamma,
        gamma_interval=(gamma - reach, gamma + reach) if noise.known else OPEN,
        scatter=noise.scatter if noise.known else float("nan"),
        df=noise.df,
        points=len(D),
        tokens_range=(int(D.min()), int(D.max())),
        caveats=tuple(_caveats(noise, len(D))),
        level=float(np.exp(log_level)),
        centre=centre,
        errors=(level_error, gamma_error),
        noise=noise,
    )


def _line(D: FloatArray, F: FloatArray, weight: FloatArray) -> tuple[float, float, float, float, float, float]:
    """Weighted mean D, log F* there, gamma, their standard errors, and the deviance."""
    total = weight.sum()
    centre = float((weight * np.log(D)).sum() / total)
    away, y = np.log(D) - centre, np.log(F)
    spread = float((weight * away**2).sum())
    level, gamma = float((weight * y).sum() / total), float((weight * away * y).sum() / spread)
    deviance = float((weight * (y - level - gamma * away) ** 2).sum())
    return float(np.exp(centre)), level, gamma, float(total**-0.5), spread**-0.5, deviance


def _caveats(noise: Noise, points: int) -> list[str]:
    if not noise.known:
        return ["two points without intervals of F* leave no measure of error"]
    if points == 2:
        return ["two points: the line fits by construction, and scatter about it cannot be seen"]
    return []
