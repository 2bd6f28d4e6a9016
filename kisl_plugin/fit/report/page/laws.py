"""The part of the page on laws: the figure, each law's parameters with intervals, and what it misses."""

import math

from kisl_plugin.fit import human
from kisl_plugin.fit.laws.joint import JointForm
from kisl_plugin.fit.laws.law import InfusionLaw
from kisl_plugin.fit.laws.points import OPEN
from kisl_plugin.fit.report.gathered import FitReport, LawReport
from kisl_plugin.fit.report.page.markup import Html, bullets, figure, joined, table, tag
from kisl_plugin.fit.report.words import (
    bootstrap_sentences,
    data_law_sentence,
    held_out_sentence,
    joint_sentences,
    sentence,
    valued,
    verdict_word,
    weight,
)

LAW_HEADINGS = ("form", "alpha (95 %)", "E (95 %)", "A", "R²", "by chance", "scatter", "left-one-out error")
FORM_HEADINGS = (
    "F* =",
    "AIC",
    "weight",
    "left-one-out error",
    tag("th", "parameters (95 %)", scope="col", class_="text"),
)
LEFT_OUT_HEADINGS = ("left out", "measured F*", "predicted by the others (95 %)", "off by")


def law_section(report: FitReport, figures: dict[str, bytes]) -> Html:
    """The figure and the law of every token budget; what is missing where there is none."""
    missing = [tag("p", sentence(report.missing_law))] if report.missing_law else []
    if not any(found.params for found in report.laws):
        return joined(missing)
    caption = (
        "Collapse points F* against compute C = 6·N·D, with 95 % intervals; lines with bands: infusion laws with the "
        "95 % interval of a further model."
    )
    drawn = figure(figures["law"], f"Collapse points against compute. {_in_words(report)}", caption)
    laws = [_law(found, found.law) for found in report.laws if found.law]
    return joined([drawn, *missing, *laws, *_of_tokens(report), *_beside(report), _verdicts(report)])


def _in_words(report: FitReport) -> str:
    points = [f"{found.name} {human.estimate(found.curve.f_star)}" for found in report.curves if found.curve.ok]
    return f"F* of {', '.join(points)}."


def _law(found: LawReport, law: InfusionLaw) -> Html:
    at = f"D = {human.count(found.tokens)}"
    sizes = ", ".join(human.count(params) for params in found.params)
    rows = [_numbers("A/C^alpha + E", law)]
    if law.without_E is not None:
        rows.append(_numbers("E = 0", law.without_E))
    parts = [
        tag("h3", f"F*(C) = A/C^alpha + E at {at}"),
        tag("p", f"Through {sizes}. Intervals: {law.interval_method}."),
        table(f"Parameters of the law at {at}", LAW_HEADINGS, rows),
        bullets(map(sentence, law.caveats)),
    ]
    if law.leave_one_out:
        parts += [tag("h4", "Each model from the others"), _left_out(found, law)]
    return joined(parts)


def _numbers(form: str, law: InfusionLaw) -> tuple[str, ...]:
    return (
        form,
        valued(law.alpha, law.alpha_interval),
        valued(law.E, law.E_interval),
        f"{law.A:.3g}",
        "–" if math.isnan(law.r2) else f"{law.r2:.4f}",
        "–" if math.isnan(law.r2_by_chance) else f"{law.r2_by_chance:.0%}",
        "–" if math.isnan(law.r2) else f"{law.scatter:.2f}",
        "–" if math.isnan(law.leave_one_out_error) else f"×{math.exp(law.leave_one_out_error):.2f}",
    )


def _left_out(found: LawReport, law: InfusionLaw) -> Html:
    names = {6.0 * params * found.tokens: human.count(params) for params in found.params}
    rows = [
        (
            names.get(left.compute, f"C = {left.compute:.3g}"),
            human.estimate(left.measured),
            f"{human.estimate(left.predicted)} ({human.interval(*left.interval)})",
            f"{math.exp(left.log_error) - 1:+.0%}",
        )
        for left in law.leave_one_out
    ]
    return table("Each model predicted from the others", LEFT_OUT_HEADINGS, rows)


def _of_tokens(report: FitReport) -> list[Html]:
    """How F* goes with D, of one size and jointly with N."""
    said = [sentence(data_law_sentence(law)) for law in report.data_laws]
    parts = [tag("h3", "F* against training tokens"), bullets(said)] if said else []
    if report.joint:
        rows = [_form(form) for form in report.joint.forms]
        parts += [
            tag("h3", "N and D together"),
            bullets(map(sentence, joint_sentences(report.joint))),
            table("Joint forms in N and D", FORM_HEADINGS, rows),
        ]
    return parts


def _form(form: JointForm) -> tuple[str, ...]:
    numbers = [f"{name} = {valued(value, form.intervals.get(name, OPEN))}" for name, value in form.parameters.items()]
    error = form.leave_one_out_error
    return (
        form.formula,
        f"{form.aic:.1f}",
        weight(form.weight),
        "–" if math.isnan(error) else f"×{math.exp(error):.2f}",
        tag("td", ", ".join(numbers), class_="text"),
    )


def _beside(report: FitReport) -> list[Html]:
    """What was held out, and what the bootstrap says."""
    parts = []
    if report.held_out:
        parts += [tag("h3", "Held out"), bullets(sentence(held_out_sentence(held)) for held in report.held_out)]
    if report.bootstrap:
        parts += [tag("h3", "Triples drawn anew"), bullets(map(sentence, bootstrap_sentences(report.bootstrap)))]
    return parts


def _verdicts(report: FitReport) -> Html:
    """The paper's signs that a law does not hold, each with its verdict."""
    items = [
        joined(
            [
                tag("span", word, class_=f"badge {word.replace(' ', '-')}"),
                sentence(f"{verdict.name}: {verdict.sentence}"),
            ]
        )
        for verdict in report.verdicts
        for word in [verdict_word(verdict)]
    ]
    return joined([tag("h3", "What would refute the law"), bullets(items)])
