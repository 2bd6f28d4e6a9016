"""The best F of a model that was not trained, from the laws of those that were."""

from collections.abc import Sequence

from kisl_plugin.fit.laws.points import CollapsePoint
from kisl_plugin.fit.planner.prediction import Prediction
from kisl_plugin.fit.planner.sources import Laws, guess
from kisl_plugin.fit.planner.sweep import Sweep
from kisl_plugin.fit.planner.target import Target
from kisl_plugin.fit.planner.words import caveats, decades_outside, distance, what_it_takes


def predict(
    target: Target, points: Sequence[CollapsePoint], laws: Laws, sweep: Sweep, triples: int | None = None
) -> Prediction:
    """Predict F*, and what it costs to inject `triples` (as many as the sweep's where None).

    `points` are those that the laws were fitted to. Without a law there is no number: `words` say what it takes.
    """
    found = guess(target, points, laws)
    planned = sweep.triples if triples is None else triples
    if found is None:
        return _nothing(target, points, planned, sweep)
    return Prediction(
        params=target.params,
        tokens=target.tokens,
        compute=target.compute,
        f_star=found.f_star,
        interval=found.interval,
        interval_missing="" if found.interval else found.interval_missing,
        source=found.source,
        decades=abs(decades_outside(target, found.points)),
        words=distance(target, found.points),
        triples=planned,
        tokens_per_statement=sweep.tokens_per_statement,
        caveats=(*caveats(target, found, points, sweep, planned), *found.caveats),
    )


def _nothing(target: Target, points: Sequence[CollapsePoint], triples: int | None, sweep: Sweep) -> Prediction:
    return Prediction(
        params=target.params,
        tokens=target.tokens,
        compute=target.compute,
        f_star=None,
        interval=None,
        interval_missing="there is no law",
        source="no law",
        decades=None,
        words=what_it_takes(target, points),
        triples=triples,
        tokens_per_statement=sweep.tokens_per_statement,
        caveats=(),
    )
