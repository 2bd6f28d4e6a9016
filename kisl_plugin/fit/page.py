"""The page of a report, one self-contained HTML file: no script, no network, every label escaped."""

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
from kisl_plugin.fit.predict import Prediction
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
    prediction_rows,
    sentence,
    verdict_word,
    whole_percent,
)
from kisl_plugin.verbalize import templates_of

__all__ = ["model_figure_name", "report_page"]

# Markup in which text is escaped unless it was made here: labels and paths come from files of others

_VOID = frozenset({"img", "meta"})
# The browser itself then refuses whatever a label might smuggle in
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _tag(name: str, /, *children: str, **attributes: str) -> _Html:
    """An element; children that are no Html are escaped, as all attributes are. `class_` stands for class."""
    inside = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(v)}"' for key, v in attributes.items())
    if name in _VOID:
        return _Html(f"<{name}{inside}>")
    return _Html(f"<{name}{inside}>{_joined(children)}</{name}>")


def _joined(parts: Iterable[str]) -> _Html:
    """Parts one after the other, those that are no Html escaped."""
    return _Html("".join(part if isinstance(part, _Html) else html.escape(part) for part in parts))


def _bullets(items: Iterable[str]) -> _Html:
    """A list."""
    return _tag("ul", *(_tag("li", item) for item in items))


def _table(label: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> _Html:
    """A table in a box that scrolls; the first cell of a row is its heading. Cells that are Html are th or td."""
    head = _tag("tr", *(text if isinstance(text, _Html) else _tag("th", text, scope="col") for text in headings))
    body = []
    for first, *rest in rows:
        cells = [text if isinstance(text, _Html) else _tag("td", text) for text in rest]
        body.append(_tag("tr", _tag("th", first, scope="row"), *cells))
    whole = _tag("table", _tag("thead", head), _tag("tbody", *body))
    # Focusable, so that the keyboard can scroll it
    return _tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def _figure(svg: bytes, alt: str, caption: str) -> _Html:
    """A figure that the page carries within."""
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
    return _tag("figure", _tag("img", src=source, alt=alt), _tag("figcaption", caption))


def _document(title: str, head: Sequence[_Html], sections: Sequence[tuple[str, str, _Html]]) -> str:
    """A whole page: what stands above the table of contents, then sections of (id, heading, content)."""
    links = _tag("ul", *(_tag("li", _tag("a", heading, href=f"#{name}")) for name, heading, _ in sections))
    body = _tag(
        "body",
        _tag("header", *head, _tag("nav", links, aria_label="Contents")),
        _tag("main", *(_tag("section", _tag("h2", heading), content, id=name) for name, heading, content in sections)),
    )
    meta = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="generator", content=f"kisl {__version__}"),
        _tag("title", title),
        _Html(f"<style>{Path(__file__).with_name('report.css').read_text(encoding='utf-8')}</style>"),
    )
    return f'<!doctype html>\n<html lang="en">\n{meta}\n{body}\n</html>\n'


# The report


def report_page(report: FitReport, figures: Mapping[str, bytes]) -> str:
    """The page; `figures` are SVGs by name, those of single models by `model_figure_name`."""
    predictions = [("predictions", "Predictions", _joined(map(_prediction, report.predictions)))]
    set_aside = [_joined([_tag("code", one.path), ": ", one.reason]) for one in report.set_aside]
    sections = [
        ("curves", "Collapse curves", _curves_section(report, figures)),
        ("law", "Infusion law", _law_section(report, figures)),
        *(predictions if report.predictions else []),
        ("models", "Each model", _joined(_model(one, figures[model_figure_name(one)]) for one in report.curves)),
        ("aside", "Files that were not used", _bullets(set_aside) if set_aside else _tag("p", "None.")),
        ("method", "How it was fitted", _method_section()),
        ("cite", "How to cite", _joined([_tag("p", _PAPER), _tag("p", f"Fitted with kisl {__version__}.")])),
    ]
    observations, models = plural(len(report.observations), "observation"), plural(len(report.curves), "model")
    head = [
        _tag("h1", f"Collapse curves and infusion law: {report.task}"),
        _tag("p", finding(report), class_="finding"),
        _tag("p", f"{observations}, {models}; {plural(len(report.set_aside), 'file')} set aside.", class_="soft"),
    ]
    return _document(f"Collapse curves of {report.task}", head, sections)


_CURVE_HEADINGS = (
    "N, D",
    _tag("th", "status", scope="col", class_="text"),
    "F* (95 %)",
    "peak P (95 %)",
    "b",
    "floor",
    "F range",
    "runs",
    "tau",
    "df",
    "fall p",
    "unimodal p",
    "form p",
    "largest fall",
)


def _curves_section(report: FitReport, figures: Mapping[str, bytes]) -> _Html:
    """All curves in one figure, and the numbers of each curve in a table."""
    if not report.curves:
        return _tag("p", "No run with injected facts could be used.")
    rows, described = [], []
    for one in report.curves:
        curve = one.curve
        shown = f"collapse point {estimate(curve.f_star)}" if curve.ok else curve.status
        described.append(f"{one.name}: {shown}")
        rows.append(
            (
                f"{count(one.params)}, {count(one.tokens)}",
                _tag("td", curve.status, class_="text"),
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
        _figure(figures["curves"], f"Memorisation rate against frequency. {'; '.join(described)}.", caption),
        _table("Numbers of each curve", _CURVE_HEADINGS, rows),
    ]
    parts += [_bullets(map(sentence, report.notes))] if report.notes else []
    if "cost" in figures:
        cost = (
            "Against F: the share of control triples (asked, never injected) that are right, and bits per byte on "
            "background text (dotted: at F = 0), where they were measured."
        )
        alt = "Control triples right and bits per byte against frequency."
        parts += [_tag("h3", "What memory costs"), _figure(figures["cost"], alt, cost)]
    return _joined(parts)


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


_LAW_HEADINGS = ("form", "alpha (95 %)", "E (95 %)", "A", "R²", "by chance", "scatter", "leave-one-out error")
_FORM_HEADINGS = (
    "F* =",
    "AIC",
    "weight",
    "leave-one-out error",
    _tag("th", "parameters (95 %)", scope="col", class_="text"),
)
_LEFT_OUT_HEADINGS = ("left out", "measured F*", "predicted by the others (95 %)", "off by")


def _law_section(report: FitReport, figures: Mapping[str, bytes]) -> _Html:
    """The laws of each token budget, of each size, and jointly; what was held out; the paper's three checks."""
    missing = [_tag("p", sentence(report.missing_law))] if report.missing_law else []
    if not any(one.params for one in report.laws):
        return _joined(missing)
    caption = (
        "Collapse points F* against compute C = 6·N·D, with 95 % intervals; lines with bands: infusion laws with the "
        "95 % interval of a further model."
    )
    measured = ", ".join(f"{one.name} {estimate(one.curve.f_star)}" for one in report.curves if one.curve.ok)
    parts = [_figure(figures["law"], f"Collapse points against compute. F* of {measured}.", caption), *missing]
    parts += [_law(one, one.law) for one in report.laws if one.law]
    if report.data_laws:
        laws = _bullets(sentence(data_law_sentence(law)) for law in report.data_laws)
        parts += [_tag("h3", "F* against training tokens"), laws]
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
                    _tag("td", ", ".join(numbers), class_="text"),
                )
            )
        parts += [
            _tag("h3", "N and D together"),
            _bullets(map(sentence, joint_sentences(report.joint))),
            _table("Joint forms in N and D", _FORM_HEADINGS, rows),
        ]
    if report.held_out:
        parts += [_tag("h3", "Held out"), _bullets(sentence(held_out_sentence(one)) for one in report.held_out)]
    checks = []
    for verdict in report.verdicts:
        word = verdict_word(verdict)
        badge = _tag("span", word, class_=f"badge {word.replace(' ', '-')}")
        checks.append(_joined([badge, sentence(f"{verdict.name}: {verdict.sentence}")]))
    return _joined([*parts, _tag("h3", "Checks of the law"), _bullets(checks)])


def _law(one: LawReport, law: InfusionLaw) -> _Html:
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
        _tag("h3", f"F*(C) = A/C^alpha + E at {at}"),
        _tag("p", f"Through {', '.join(map(count, one.params))}. Intervals: {law.interval_method}."),
        _table(f"Parameters of the law at {at}", _LAW_HEADINGS, rows),
        _bullets(map(sentence, law.caveats)),
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
        parts += [_tag("h4", title), _table(title, _LEFT_OUT_HEADINGS, left_out)]
    return _joined(parts)


def _factor(log_error: float) -> str:
    return "–" if math.isnan(log_error) else f"×{math.exp(log_error):.2f}"


def _prediction(one: Prediction) -> _Html:
    """A prediction with its interval, what it costs, how far it reaches, and what may be wrong with it."""
    model = f"{count(one.params)} on {count(one.tokens)} tokens (C = {one.compute:.3g})"
    best, *rows = (f"{name}: {text}" for name, text in prediction_rows(one))
    lines = _bullets(map(sentence, [*rows, *one.caveats]))
    return _joined([_tag("h3", model), _tag("p", sentence(best), class_="best"), lines])


# Each model


def model_figure_name(one: CurveReport) -> str:
    """The name of a model's figure."""
    return f"{one.params}-{one.tokens}"


def _model(one: CurveReport, svg: bytes) -> _Html:
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
        _tag("h3", one.name),
        _figure(svg, alt, caption),
        _bullets(map(sentence, remarks)),
        _table(f"Points of {one.name}", ["F", "right", "P", *columns], rows),
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
                cells[point.frequency] = _tag("td", share, class_="heat", style=f"--share:{share}", title=title)
            by_relation.append([name, *cells.values()])
        headings = ["relation", *map(frequency, frequencies)]
        label = f"Share right per relation, {one.name}"
        parts += [_tag("h4", "Per relation"), _table(label, headings, by_relation)]
    return _joined(parts)


# Method and citation

_METHOD = (
    _joined(
        [
            "Each model's runs are fitted with P(F) = g + (1 − g)·a·F",
            _tag("sup", "b"),
            "·e",
            _tag("sup", "−c·F"),
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
_PAPER = (
    "Lv, Chen, Yuan, Liu, Liu, Wang, Su, Zheng. How to inject knowledge efficiently? Knowledge Infusion Scaling Law "
    "for Pre-training Large Language Models. EMNLP 2025. arXiv:2509.19371."
)


def _method_section() -> _Html:
    """Estimator, noise and tests, what each status means, and the versions."""
    import matplotlib
    import numpy
    import scipy

    statuses = [
        _joined([_tag("dt", f"{code}…" if code.endswith("=") else code), _tag("dd", meaning)])
        for code, meaning in STATUS_HELP.items()
    ]
    libraries = ", ".join(f"{module.__name__} {module.__version__}" for module in (numpy, scipy, matplotlib))
    versions = f"kisl {__version__}, Python {platform.python_version()}, {libraries}."
    parts = [_bullets(_METHOD), _tag("h3", "What a status means"), _tag("dl", *statuses)]
    return _joined([*parts, _tag("p", versions, class_="soft")])
