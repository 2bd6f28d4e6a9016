"""The bootstrap of a whole sweep: triples drawn anew for all models at once, curves and laws fitted anew."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from kisl_plugin.fit.curves.bootstrap import Runs, bootstrap_collapse_points
from kisl_plugin.fit.laws.law import FEWEST_MODELS
from kisl_plugin.fit.laws.points import Interval, log_errors
from kisl_plugin.fit.laws.refit import refit_laws
from kisl_plugin.fit.planner.prediction import Prediction
from kisl_plugin.fit.planner.sources import same
from kisl_plugin.fit.reading.observations import Observation
from kisl_plugin.fit.reading.outcomes import FloatArray, read_outcomes
from kisl_plugin.fit.report.gathered import Bootstrap, CurveReport, DrawnLaw
from kisl_plugin.fit.report.pooling import by_run

ENDS = (2.5, 97.5)
UNWEIGHTED = 1.0


def bootstrap(
    curves: Sequence[CurveReport],
    observations: Sequence[Observation],
    predictions: Sequence[Prediction],
    draws: int,
    watch: Callable[[str, int, int], None],
) -> Bootstrap | None:
    """Draw the curves that are ok anew; None without such curves or without draws."""
    found = [one for one in curves if one.curve.ok]
    if not draws or not found:
        return None
    outcomes = _outcomes(found, observations)
    models = [_runs(one) for one in found]
    what = "drawing triples anew" if outcomes is not None else "drawing counts anew"
    drawn = bootstrap_collapse_points(models, outcomes, draws, watch=lambda done: watch(what, done, len(models)))
    by_budget = [[at for at, one in enumerate(found) if one.tokens == tokens] for tokens in {o.tokens for o in found}]
    return Bootstrap(
        draws=draws,
        paired=outcomes is not None,
        f_star=tuple((one.params, one.tokens, _ends(column)) for one, column in zip(found, drawn.T, strict=True)),
        laws=tuple(
            _law([found[at] for at in places], drawn[:, places], predictions)
            for places in sorted(by_budget, key=lambda places: found[places[0]].tokens)
            if len(places) >= FEWEST_MODELS
        ),
    )


def _outcomes(found: Sequence[CurveReport], observations: Sequence[Observation]) -> FloatArray | None:
    """[T, runs of all models side by side]; None where a result has no samples."""
    groups = [
        [o for o in observations if (o.params, o.tokens) == (one.params, one.tokens) and o.frequency > 0]
        for one in found
    ]
    outcomes = read_outcomes([seen for group in groups for seen in group])
    if outcomes is None:
        return None
    columns = np.split(outcomes.right, np.cumsum([len(group) for group in groups])[:-1], axis=1)
    return np.column_stack([by_run(right, group) for right, group in zip(columns, groups, strict=True)])


def _runs(found: CurveReport) -> Runs:
    counts = np.array([(run.frequency, run.correct, run.total) for run in found.runs], dtype=np.float64).T
    return Runs(found.curve, *counts)


def _law(found: Sequence[CurveReport], drawn: FloatArray, predictions: Sequence[Prediction]) -> DrawnLaw:
    tokens = found[0].tokens
    asked = [one for one in predictions if same(one.tokens, tokens)]
    errors = log_errors([one.curve.f_star for one in found], [one.curve.f_star_interval for one in found])
    laws = refit_laws(
        [one.compute for one in found],
        drawn,
        UNWEIGHTED if errors is None else errors,
        [one.compute for one in asked],
    )
    return DrawnLaw(
        tokens=tokens,
        alpha=_ends(laws.alpha),
        E=_ends(laws.E),
        predictions=tuple((one.params, _ends(column)) for one, column in zip(asked, laws.predictions.T, strict=True)),
        fell=float(np.isfinite(drawn).all(axis=1).mean()),
    )


def _ends(values: FloatArray) -> Interval:
    known = values[np.isfinite(values)]
    if not len(known):
        return None, None
    low, high = (float(end) for end in np.percentile(known, ENDS))
    return (low, high) if math.isfinite(high) else (low, None)
