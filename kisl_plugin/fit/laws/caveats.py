"""What must be read with a law's numbers, in words."""

import numpy as np

from kisl_plugin.fit.laws.estimate import Estimate
from kisl_plugin.fit.laws.shape import LARGEST_ALPHA


def at_bounds(found: Estimate, free_E: bool) -> list[str]:
    """Bounds that the best law reached."""
    if found.rises:
        return ["F* does not fall with C in these data: they do not support the law"]
    caveats = []
    if free_E and found.shapes.slope[0] >= found.shapes.alpha[0]:
        caveats.append("E is at its bound 0")
    if found.shapes.alpha[0] >= LARGEST_ALPHA:
        caveats.append(f"alpha is at its bound {LARGEST_ALPHA:g}")
    return caveats


def of_constant(distinguishable: bool | None) -> list[str]:
    """Whether there is a frequency below which F* does not fall, however large the model."""
    return ["E is not distinguishable from 0"] if distinguishable is False else []


def of_r2(models: int, r2: float, by_chance: float) -> list[str]:
    """What R² is worth."""
    if models == 3:
        return [
            "three models for three parameters: R² = 1 by construction, so there is none and no interval of a parameter"
        ]
    if not np.isfinite(r2):
        return ["every F* is the same: there is no R²"]
    return [f"{100 * by_chance:.0f} % of random falling sequences of {models} points reach this R² of {r2:.4f}"]


def method(found: Estimate, models: int) -> str:
    """How the intervals were made."""
    noise = found.noise
    if found.region is None:
        return "none: three models without intervals of F* leave no measure of error"
    if models == 3:
        return "predictions: range of the laws that fit the curves' errors; scatter cannot be seen with three models"
    if noise.errors is None:
        return f"profile likelihood, errors from the scatter about the law alone, F(1, {noise.df:.0f})"
    if noise.scatter:
        return (
            f"profile likelihood, the curves' errors and a scatter of {100 * noise.scatter:.0f} %, F(1, {noise.df:.1f})"
        )
    return "profile likelihood, the curves' errors; no scatter beyond them is seen"
