"""The page of a report, one self-contained HTML file: no script, no network, every label escaped.

The package writes no other HTML: `Html`, `tag` and the helpers below them are also for the demo's page.
"""

import base64
import html
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kisl_plugin import __version__
from kisl_plugin.errors import InputError
from kisl_plugin.fit.law import InfusionLaw
from kisl_plugin.fit.predict import Prediction, share_of_budget
from kisl_plugin.fit.report import CurveReport, FitReport, LawReport
from kisl_plugin.fit.text import (
    STATUS_HELP,
    count,
    curve_remarks,
    data_law_sentence,
    estimate,
    estimated,
    f_star_in_words,
    finding,
    frequency,
    held_out_sentence,
    interval,
    joint_sentences,
    parameter,
    plural,
    sentence,
    verdict_word,
    whole_percent,
)
from kisl_plugin.verbalize import templates_of

__all__ = [
    "Html",
    "bullets",
    "html_document",
    "html_figure",
    "html_table",
    "joined",
    "model_figure_name",
    "report_page",
    "tag",
]

# Markup in which text is escaped unless it was made here: labels and paths come from files of others

VOID = frozenset({"img", "meta"})
# The browser itself then refuses whatever a label might smuggle in
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; children that are no Html are escaped, as all attributes are. `class_` stands for class."""
    inside = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(v)}"' for key, v in attributes.items())
    if name in VOID:
        return Html(f"<{name}{inside}>")
    return Html(f"<{name}{inside}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after the other, those that are no Html escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def bullets(items: Iterable[str]) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items))


def html_table(label: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table in a box that scrolls; the first cell of a row is its heading. Cells that are Html are th or td."""
    head = tag("tr", *(text if isinstance(text, Html) else tag("th", text, scope="col") for text in headings))
    body = []
    for first, *rest in rows:
        cells = [text if isinstance(text, Html) else tag("td", text) for text in rest]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    # Focusable, so that the keyboard can scroll it
    return tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def html_figure(image: bytes, alt: str, caption: str, kind: str = "svg+xml") -> Html:
    """A figure that the page carries within; `kind` is svg+xml or png."""
    source = f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")
    return tag("figure", tag("img", src=source, alt=alt), tag("figcaption", caption))


def html_document(title: str, head: Sequence[Html], sections: Sequence[tuple[str, str, Html]]) -> str:
    """A whole page: what stands above the table of contents, then sections of (id, heading, content)."""
    links = tag("ul", *(tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in sections))
    body = tag(
        "body",
        tag("header", *head, tag("nav", links, aria_label="Contents")),
        tag("main", *(tag("section", tag("h2", heading), content, id=name) for name, heading, content in sections)),
    )
    meta = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"kisl {__version__}"),
        tag("title", title),
        Html(f"<style>{Path(__file__).with_name('report.css').read_text(encoding='utf-8')}</style>"),
    )
    return f'<!doctype html>\n<html lang="en">\n{meta}\n{body}\n</html>\n'


# The report


def report_page(report: FitReport, figures: Mapping[str, bytes]) -> str:
    """The page; `figures` are SVGs by name, those of single models by `model_figure_name`."""
    predictions = [("predictions", "Predictions", joined(map(_prediction, report.predictions)))]
    set_aside = [joined([tag("code", one.path), ": ", one.reason]) for one in report.set_aside]
    sections = [
        ("curves", "Collapse curves", _curves_section(report, figures)),
        ("law", "Infusion law", _law_section(report, figures)),
        *(predictions if report.predictions else []),
        ("models", "Each model", joined(_model(one, figures[model_figure_name(one)]) for one in report.curves)),
        ("aside", "Files that were not used", bullets(set_aside) if set_aside else tag("p", "None.")),
        ("method", "How it was fitted", _method_section()),
        ("cite", "How to cite", joined([tag("p", PAPER), tag("p", f"Fitted with kisl {__version__}.")])),
    ]
    observations, models = plural(len(report.observations), "observation"), plural(len(report.curves), "model")
    head = [
        tag("h1", f"Collapse curves and infusion law: {report.task}"),
        tag("p", finding(report), class_="finding"),
        tag("p", f"{observations}, {models}; {plural(len(report.set_aside), 'file')} set aside.", class_="soft"),
    ]
    return html_document(f"Collapse curves of {report.task}", head, sections)


CURVE_HEADINGS = (
    "N, D",
    tag("th", "status", scope="col", class_="text"),
    "F* (95 %)",
    "peak P (95 %)",
    "b",
    "floor",
    "F asked",
    "runs",
    "tau",
    "df",
    "fall p",
    "unimodal p",
    "form p",
    "largest fall",
)


def _curves_section(report: FitReport, figures: Mapping[str, bytes]) -> Html:
    """All curves in one figure, and the numbers of each curve in a table."""
    if not report.curves:
        return tag("p", "No run with injected facts could be used.")
    rows, described = [], []
    for one in report.curves:
        curve = one.curve
        shown = f"collapse point {estimate(curve.f_star)}" if curve.ok else curve.status
        described.append(f"{one.name}: {shown}")
        rows.append(
            (
                f"{count(one.params)}, {count(one.tokens)}",
                tag("td", curve.status, class_="text"),
                estimated(curve.f_star, curve.f_star_interval) if curve.ok else "–",
                estimated(curve.peak, curve.peak_interval, "{:.3f}".format) if curve.ok else "–",
                _number(curve.b, ".3f") if curve.ok else "–",
                f"{one.floor.value:.3f}",
                interval(*curve.frequency_range, frequency),
                str(len(one.runs)),
                _number(curve.tau, ".3f"),
                "∞" if curve.df == math.inf else _number(curve.df, ".3g"),
                _number(curve.fall_p, ".2g"),
                _number(curve.unimodal_p, ".2g"),
                _number(curve.form_p, ".2g"),
                _number(curve.largest_fall, ".3f"),
            )
        )
    caption = (
        "Memorisation rate P against the frequency F at which each fact was injected. Points: all items at one F with "
        "95 % Wilson intervals (small and hollow: single runs); lines with bands: fitted curves with 95 % intervals; "
        "bars above the axis: F* with its interval. A broken line is a fit that shows no collapse point."
    )
    parts = [
        html_figure(figures["curves"], f"Memorisation rate against frequency. {'; '.join(described)}.", caption),
        html_table("Numbers of each curve", CURVE_HEADINGS, rows),
    ]
    parts += [bullets(map(sentence, report.notes))] if report.notes else []
    if "cost" in figures:
        cost = (
            "Against F: the share of control triples (asked, never injected) that are right, and bits per byte on "
            "background text (dotted: at F = 0), where they were measured."
        )
        alt = "Control triples right and bits per byte against frequency."
        parts += [tag("h3", "What memory costs"), html_figure(figures["cost"], alt, cost)]
    return joined(parts)


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


LAW_HEADINGS = ("form", "alpha (95 %)", "E (95 %)", "A", "R²", "by chance", "scatter", "left-one-out error")
FORM_HEADINGS = (
    "F* =",
    "AIC",
    "weight",
    "left-one-out error",
    tag("th", "parameters (95 %)", scope="col", class_="text"),
)
LEFT_OUT_HEADINGS = ("left out", "measured F*", "predicted by the others (95 %)", "off by")


def _law_section(report: FitReport, figures: Mapping[str, bytes]) -> Html:
    """The laws of each token budget, of each size, and jointly; what was held out; the paper's three checks."""
    missing = [tag("p", sentence(report.missing_law))] if report.missing_law else []
    if not any(one.params for one in report.laws):
        return joined(missing)
    caption = (
        "Collapse points F* against compute C = 6·N·D, with 95 % intervals; lines with bands: infusion laws with the "
        "95 % interval of a further model."
    )
    measured = ", ".join(f"{one.name} {estimate(one.curve.f_star)}" for one in report.curves if one.curve.ok)
    parts = [html_figure(figures["law"], f"Collapse points against compute. F* of {measured}.", caption), *missing]
    parts += [_law(one, one.law) for one in report.laws if one.law]
    if report.data_laws:
        laws = bullets(sentence(data_law_sentence(law)) for law in report.data_laws)
        parts += [tag("h3", "F* against training tokens"), laws]
    if report.joint:
        rows = []
        for form in report.joint.forms:
            numbers = [
                f"{name} = {estimated(value, form.intervals.get(name, (None, None)), parameter)}"
                for name, value in form.parameters.items()
            ]
            rows.append(
                (
                    form.formula,
                    f"{form.aic:.1f}",
                    whole_percent(form.weight),
                    _factor(form.leave_one_out_error),
                    tag("td", ", ".join(numbers), class_="text"),
                )
            )
        parts += [
            tag("h3", "N and D together"),
            bullets(map(sentence, joint_sentences(report.joint))),
            html_table("Joint forms in N and D", FORM_HEADINGS, rows),
        ]
    if report.held_out:
        parts += [tag("h3", "Held out"), bullets(sentence(held_out_sentence(held)) for held in report.held_out)]
    checks = []
    for verdict in report.verdicts:
        word = verdict_word(verdict)
        badge = tag("span", word, class_=f"badge {word.replace(' ', '-')}")
        checks.append(joined([badge, sentence(f"{verdict.name}: {verdict.sentence}")]))
    return joined([*parts, tag("h3", "Signs that the law does not hold"), bullets(checks)])


def _law(one: LawReport, law: InfusionLaw) -> Html:
    at = f"D = {count(one.tokens)}"
    rows = []
    for form, fitted in (("A/C^alpha + E", law), ("E = 0", law.without_E)):
        if fitted is not None:
            has_r2 = not math.isnan(fitted.r2)
            rows.append(
                (
                    form,
                    estimated(fitted.alpha, fitted.alpha_interval, parameter),
                    estimated(fitted.E, fitted.E_interval, parameter),
                    f"{fitted.A:.3g}",
                    _number(fitted.r2, ".4f"),
                    _number(fitted.r2_by_chance, ".0%"),
                    _number(fitted.scatter, ".2f") if has_r2 else "–",
                    _factor(fitted.leave_one_out_error),
                )
            )
    parts = [
        tag("h3", f"F*(C) = A/C^alpha + E at {at}"),
        tag("p", f"Through {', '.join(map(count, one.params))}. Intervals: {law.interval_method}."),
        html_table(f"Parameters of the law at {at}", LAW_HEADINGS, rows),
        bullets(map(sentence, law.caveats)),
    ]
    if law.leave_one_out:
        names = {6.0 * params * one.tokens: count(params) for params in one.params}
        left_out = [
            (
                names.get(left.compute, f"C = {left.compute:.3g}"),
                estimate(left.measured),
                estimated(left.predicted, left.interval),
                f"{math.exp(left.log_error) - 1:+.0%}",
            )
            for left in law.leave_one_out
        ]
        title = "Each model predicted from the others"
        parts += [tag("h4", title), html_table(title, LEFT_OUT_HEADINGS, left_out)]
    return joined(parts)


def _factor(log_error: float) -> str:
    return "–" if math.isnan(log_error) else f"×{math.exp(log_error):.2f}"


def _prediction(one: Prediction) -> Html:
    """A prediction with its interval, what it costs, how far it reaches, and what may be wrong with it."""
    model = f"{count(one.params)} on {count(one.tokens)} tokens (C = {one.compute:.3g})"
    if one.f_star is None:
        return joined([tag("h3", model), tag("p", sentence(f"no prediction: {one.words}"), class_="best")])
    best = f"best F = {estimate(one.f_star)} ({one.ends}), by {one.source}"
    facts = []
    if one.exposures is not None:
        facts.append(f"{count(one.exposures)} exposures: F × {one.triples:,} triples")
    if one.injected_tokens is not None and one.injected_fraction is not None:
        facts.append(f"{count(one.injected_tokens)} injected tokens, {share_of_budget(one.injected_fraction)}")
    lines = bullets(map(sentence, [*facts, one.words, *one.caveats]))
    return joined([tag("h3", model), tag("p", sentence(best), class_="best"), lines])


# Each model


def model_figure_name(one: CurveReport) -> str:
    """The name of a model's figure."""
    return f"{one.params}-{one.tokens}"


def _model(one: CurveReport, svg: bytes) -> Html:
    """A model's figure, the remarks on its curve, its points and its relations."""
    measured = (
        ("the share right by summed likelihood", one.by_sum),
        ("control triples", one.controls),
        ("bits per byte of the background text (dotted: at F = 0)", one.background),
    )
    others = ", ".join(name for name, values in measured if values)
    caption = sentence(f"memory of {one.name}" + (f", with {others}" if others else ""))
    alt = f"Memorisation rate of {one.name} at {len(one.points)} frequencies, with what else was measured."
    remarks = curve_remarks(one)
    if one.curve.ok:
        remarks.insert(0, f_star_in_words(one.curve.f_star, one.curve.f_star_interval))
    # Columns of what was measured, by frequency
    columns: dict[str, dict[int, str]] = {}
    if one.has_replicates:
        columns["single runs"] = {
            point.frequency: " ".join(f"{run.accuracy:.3f}" for run in one.runs if run.frequency == point.frequency)
            for point in one.points
        }
    for name, points in (("by sum", one.by_sum), ("control", one.controls)):
        if points:
            columns[name] = {point.frequency: f"{point.accuracy:.3f}" for point in points}
    if one.background:
        columns["bits per byte"] = {point.frequency: f"{point.bits_per_byte:.3f}" for point in one.background}
    rows = [
        (
            frequency(point.frequency),
            f"{point.correct:,} of {point.total:,}",
            f"{point.accuracy:.3f}",
            *(column.get(point.frequency, "–") for column in columns.values()),
        )
        for point in one.points
    ]
    parts = [
        tag("h3", one.name),
        html_figure(svg, alt, caption),
        bullets(map(sentence, remarks)),
        html_table(f"Points of {one.name}", ["F", "right", "P", *columns], rows),
    ]
    if one.relations:
        frequencies = [point.frequency for point in one.points]
        by_relation = []
        for relation, points in one.relations.items():
            name = relation
            with suppress(InputError):  # the name is a plugin's to know
                name = f"{relation} {templates_of(relation).name}"
            cells: dict[int, str] = dict.fromkeys(frequencies, "–")
            for point in points:
                share, title = f"{point.accuracy:.2f}", f"{point.correct} of {point.total}"
                cells[point.frequency] = tag("td", share, class_="heat", style=f"--share:{share}", title=title)
            by_relation.append([name, *cells.values()])
        headings = ["relation", *map(frequency, frequencies)]
        label = f"Share right per relation, {one.name}"
        parts += [tag("h4", "Per relation"), html_table(label, headings, by_relation)]
    return joined(parts)


# Method and citation

METHOD = (
    joined(
        [
            "Each model's runs are fitted with P(F) = g + (1 − g)·a·F",
            tag("sup", "b"),
            "·e",
            tag("sup", "−c·F"),
            ", the paper's form above a guessing floor g. The collapse point is F* = b/c, where the curve peaks.",
        ]
    ),
    "Estimator: binomial maximum likelihood, with the peak at most 1. Intervals are 95 % intervals; an open end means "
    "that the data set no bound. The bars at points are Wilson intervals of the items alone.",
    "Runs of one model differ by more than the choice of items explains. This run-to-run noise (tau, the standard "
    "deviation of the log-odds of P) is estimated from seeds that share a frequency, or else from how far the points "
    "lie from the curve. Intervals and tests include it, with df degrees of freedom.",
    "Where there are samples of lm-eval, the same triples are followed through all frequencies (paired), which removes "
    "the difficulty of single facts from the comparison.",
    "The form always falls somewhere, so a fall must be shown without it. Fall p compares the best sequence that only "
    "rises with the best that rises and then falls; unimodal p compares the latter with any sequence. Form p tests "
    "whether the form fits the points.",
    "Laws are fitted to the logarithms of the collapse points of curves with status ok, weighted by their intervals. "
    "Every interval includes the scatter of models about the law; that of a prediction is for one further model. "
    "Each R² is printed with how often a random decreasing sequence does as well.",
)
PAPER = (
    "Lv, Chen, Yuan, Liu, Liu, Wang, Su, Zheng. How to inject knowledge efficiently? Knowledge Infusion Scaling Law "
    "for Pre-training Large Language Models. EMNLP 2025. arXiv:2509.19371."
)


def _method_section() -> Html:
    """Estimator, noise and tests, what each status means, and the versions."""
    import matplotlib
    import numpy
    import scipy

    statuses = [
        joined([tag("dt", f"{code}…" if code.endswith("=") else code), tag("dd", meaning)])
        for code, meaning in STATUS_HELP.items()
    ]
    libraries = ", ".join(f"{module.__name__} {module.__version__}" for module in (numpy, scipy, matplotlib))
    versions = f"kisl {__version__}, Python {platform.python_version()}, {libraries}."
    parts = [bullets(METHOD), tag("h3", "What a status means"), tag("dl", *statuses)]
    return joined([*parts, tag("p", versions, class_="soft")])
