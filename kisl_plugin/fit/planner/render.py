"""A prediction as lines for a terminal and as JSON."""

import math
import textwrap
from typing import Any

from kisl_plugin.fit import human
from kisl_plugin.fit.planner.prediction import Prediction
from kisl_plugin.fit.planner.words import share_of_budget

WIDTH = 80
INDENT = 19


def render(prediction: Prediction) -> str:
    """Lines of at most 80 columns: the prediction, what it costs, how far it reaches, what may be wrong with it."""
    model = f"N = {human.count(prediction.params)}, D = {human.count(prediction.tokens)}"
    rows = [("best F", _best(prediction)), *_costs(prediction)]
    if prediction.f_star is not None:
        rows += [("by", prediction.source), ("reach", prediction.words)]
    lines = [f"Prediction for {model} (C = {prediction.compute:.3g})", *(_row(*row) for row in rows)]
    return "\n".join([*lines, *map(_caveat, prediction.caveats)])


def as_json(prediction: Prediction) -> dict[str, Any]:
    """The prediction as fit.json holds it: null where a value is not known."""
    return {
        "params": prediction.params,
        "tokens": prediction.tokens,
        "compute": prediction.compute,
        "f_star": _finite(prediction.f_star),
        "f_star_interval": prediction.interval and [_finite(end) for end in prediction.interval],
        "interval_missing": prediction.interval_missing or None,
        "source": prediction.source,
        "decades": _finite(prediction.decades),
        "words": prediction.words,
        "triples": prediction.triples,
        "exposures": _finite(prediction.exposures),
        "injected_tokens": _finite(prediction.injected_tokens),
        "injected_fraction": _finite(prediction.injected_fraction),
        "caveats": list(prediction.caveats),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _best(prediction: Prediction) -> str:
    if prediction.f_star is None:
        return f"not known: {prediction.words}"
    return f"{human.estimate(prediction.f_star)} ({prediction.ends})"


def _costs(prediction: Prediction) -> list[tuple[str, str]]:
    rows = []
    if prediction.exposures is not None:
        rows.append(("exposures", f"{human.count(prediction.exposures)}: F × {prediction.triples:,} triples"))
    if prediction.injected_tokens is not None and prediction.injected_fraction is not None:
        share = share_of_budget(prediction.injected_fraction)
        rows.append(("injected tokens", f"{human.count(prediction.injected_tokens)}, {share}"))
    return rows


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name}".ljust(INDENT), subsequent_indent=" " * INDENT)


def _caveat(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
