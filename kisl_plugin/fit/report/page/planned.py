"""The part of the page on models that were not trained."""

from kisl_plugin.fit import human
from kisl_plugin.fit.planner.prediction import Prediction
from kisl_plugin.fit.planner.words import share_of_budget
from kisl_plugin.fit.report.gathered import FitReport
from kisl_plugin.fit.report.page.markup import Html, bullets, joined, tag
from kisl_plugin.fit.report.words import sentence


def predictions_section(report: FitReport) -> Html:
    """Each prediction with its interval, what it costs, how far it reaches, and what may be wrong with it."""
    return joined(map(_prediction, report.predictions))


def _prediction(found: Prediction) -> Html:
    model = f"{human.count(found.params)} on {human.count(found.tokens)} tokens (C = {found.compute:.3g})"
    parts = [tag("h3", model), tag("p", sentence(_best(found)), class_="best")]
    said = [*_costs(found), *([found.words] if found.f_star is not None else []), *found.caveats]
    return joined([*parts, bullets(map(sentence, said))])


def _best(found: Prediction) -> str:
    if found.f_star is None:
        return f"no prediction: {found.words}"
    return f"best F = {human.estimate(found.f_star)} ({found.ends}), by {found.source}"


def _costs(found: Prediction) -> list[str]:
    costs = []
    if found.exposures is not None:
        costs.append(f"{human.count(found.exposures)} exposures: F × {found.triples:,} triples")
    if found.injected_tokens is not None and found.injected_fraction is not None:
        costs.append(
            f"{human.count(found.injected_tokens)} injected tokens, {share_of_budget(found.injected_fraction)}"
        )
    return costs
