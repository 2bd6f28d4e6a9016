"""The page of a report, one self-contained HTML file: no script, no network, every label escaped."""

import base64
import html
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kisl_plugin import __version__
from kisl_plugin.fit import text
from kisl_plugin.fit.predict import Prediction
from kisl_plugin.fit.report import CurveReport, FitReport

__all__ = ["ExtraSection", "report_page"]

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
    """A list; nothing where it has no items."""
    elements = [_tag("li", item) for item in items]
    return _tag("ul", *elements) if elements else _Html()


def _table(label: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> _Html:
    """A table in a box that scrolls; the first cell of a row is its heading."""
    head = _tag("tr", *(_tag("th", text, scope="col") for text in headings))
    body = [_tag("tr", _tag("th", first, scope="row"), *(_tag("td", cell) for cell in rest)) for first, *rest in rows]
    whole = _tag("table", _tag("thead", head), _tag("tbody", *body))
    # Focusable, so that the keyboard can scroll it
    return _tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def _figure(svg: bytes, alt: str, caption: str, wide: bool = False) -> _Html:
    """A figure that the page carries within, of one column or as wide as the page."""
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
    image, below = _tag("img", src=source, alt=alt), _tag("figcaption", caption)
    return _tag("figure", image, below, class_="wide" if wide else "column")


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


@dataclass(frozen=True)
class ExtraSection:
    """What a caller adds below the curves: sentences, then a table whose `rows` have as many cells as `headings`."""

    heading: str
    sentences: Sequence[str]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def report_page(
    report: FitReport, figures: Mapping[str, bytes], models: Sequence[bytes], extra: ExtraSection | None = None
) -> str:
    """The page; `figures` are SVGs by name, `models` those of the single curves in their order."""
    sections = [("curves", "Collapse curves", _curves_section(report, figures))]
    if extra:
        table = _table(extra.heading, extra.headings, extra.rows)
        sections.append(("extra", extra.heading, _joined([_bullets(map(text.sentence, extra.sentences)), table])))
    sections.append(("law", "Infusion law", _law_section(report, figures)))
    if report.predictions:
        sections.append(("predictions", "Predictions", _joined(map(_prediction, report.predictions))))
    sections.append(("models", "Each model", _joined(map(_model, report.curves, models))))
    set_aside = [_joined([_tag("code", one.path), ": ", one.reason]) for one in report.set_aside]
    sections.append(("aside", "Files that were not used", _bullets(set_aside) or _tag("p", "None.")))
    sections.append(("method", "Method and citation", _method_section()))
    counts = ((report.observations, "observation"), (report.curves, "model"), (report.set_aside, "file"))
    observations, curves, files = (text.plural(len(items), noun) for items, noun in counts)
    head = [
        _tag("h1", f"Collapse curves and infusion law: {report.task}"),
        _tag("p", text.finding(report), class_="finding"),
        _tag("p", f"{observations}, {curves}; {files} set aside.", class_="soft"),
    ]
    return _document(f"Collapse curves of {report.task}", head, sections)


def _curves_section(report: FitReport, figures: Mapping[str, bytes]) -> _Html:
    """All curves in one figure, and the numbers of each curve in a table."""
    if not report.curves:
        return _tag("p", "No run with injected facts could be used.")
    caption = (
        "Memorisation rate P against the frequency F at which each fact was injected. Points: all items at one F with "
        "95 % Wilson intervals (small and hollow: single runs); lines with bands: fitted curves with 95 % intervals; "
        "bars above the axis: F* with its interval. A broken line is a fit that shows no collapse point."
    )
    alt = "Memorisation rate against frequency; the tables below have the numbers."
    parts = [_figure(figures["curves"], alt, caption, wide=bool(report.other_tasks))]
    for task in report.tasks:
        heading = [_tag("h3", task.task)] if report.other_tasks else []
        label = f"Numbers of each curve, {task.task}"
        parts += [*heading, _table(label, text.CURVE_HEADINGS, map(text.curve_cells, task.curves))]
    return _joined([*parts, _bullets(map(text.sentence, report.notes))])


def _law_section(report: FitReport, figures: Mapping[str, bytes]) -> _Html:
    """The laws of each token budget, of each size, and jointly; what was held out; the paper's three checks."""
    missing = [_tag("p", text.sentence(report.missing_law))] if report.missing_law else []
    if not any(one.params for one in report.laws):
        return _joined(missing)
    caption = (
        "Collapse points F* against compute C = 6·N·D, with 95 % intervals; lines with bands: infusion laws with the "
        "95 % interval of a further model."
    )
    parts = [_figure(figures["law"], "Collapse points against compute, with the laws below.", caption), *missing]
    for one in report.laws:
        if one.law is None:
            continue
        parts.append(_tag("p", text.law_sentence(one, one.law)))
        names = {point.compute: text.count(point.params) for point in one.points}
        parts.append(
            _bullets(
                f"{names.get(left.compute, f'C = {left.compute:.3g}')}: measured F* {text.estimate(left.measured)}, "
                f"predicted by the others {text.estimated(left.predicted, left.interval)}, "
                f"off by {math.exp(left.log_error) - 1:+.0%}"
                for left in one.law.leave_one_out
            )
        )
    if "region" in figures:
        caption = (
            "The joint 95 % region of A, alpha and E: what E, and A/C^alpha at the largest C, may be at each alpha; "
            "crosses: the estimates. It is curved, and longer than the intervals of the single parameters."
        )
        parts.append(_figure(figures["region"], "E and A against alpha, their joint region.", caption))
    for heading, sentences in (
        ("F* against training tokens", [text.data_law_sentence(law) for law in report.data_laws]),
        ("N and D together", text.joint_sentences(report.joint) if report.joint else []),
        ("Held out", [text.held_out_sentence(one) for one in report.held_out]),
    ):
        parts += [_tag("h3", heading), _bullets(map(text.sentence, sentences))] if sentences else []
    checks = []
    for verdict in report.verdicts:
        word = text.VERDICT_WORDS[verdict.passed]
        badge = _tag("span", word, class_=f"badge {word.replace(' ', '-')}")
        checks.append(_joined([badge, text.sentence(f"{verdict.name}: {verdict.sentence}")]))
    return _joined([*parts, _tag("h3", "Checks of the law"), _bullets(checks)])


def _prediction(one: Prediction) -> _Html:
    """A prediction with its interval, what it costs, how far it reaches, and what may be wrong with it."""
    model = f"{text.count(one.params)} on {text.count(one.tokens)} tokens (C = {one.compute:.3g})"
    best, *rows = (f"{name}: {value}" for name, value in text.prediction_rows(one))
    lines = _bullets(map(text.sentence, [*rows, *one.caveats]))
    return _joined([_tag("h3", model), _tag("p", text.sentence(best), class_="best"), lines])


# Each model


def _model(one: CurveReport, svg: bytes) -> _Html:
    """A model's figure, the remarks on its curve, and its points."""
    controls = ", with control triples" if one.controls else ""
    background = ", with bits per byte of the background text (dotted: at F = 0)" if one.background else ""
    residuals = " Residuals are Pearson's, run-to-run noise included: some 19 in 20 lie within ± 2 (dotted)."
    caption = f"Memory of {one.name}{controls}{background}.{residuals if one.curve.theta else ''}"
    alt = f"Memorisation rate of {one.name} at {len(one.points)} frequencies, with what else was measured."
    remarks = text.curve_remarks(one)
    if one.curve.ok:
        remarks.insert(0, text.f_star_in_words(one.curve.f_star, one.curve.f_star_interval))
    # Columns of what was measured, by frequency
    columns = {
        "right": {point.frequency: f"{point.correct:,} of {point.total:,}" for point in one.points},
        "P": {point.frequency: f"{point.accuracy:.3f}" for point in one.points},
    }
    if one.has_replicates:
        columns["single runs"] = {
            frequency: " ".join(f"{run.accuracy:.3f}" for run in one.runs if run.frequency == frequency)
            for frequency in columns["P"]
        }
    if one.controls:
        columns["control"] = {point.frequency: f"{point.accuracy:.3f}" for point in one.controls}
    if one.background:
        columns["bits per byte"] = {point.frequency: f"{point.bits_per_byte:.3f}" for point in one.background}
    rows = [[text.frequency(F), *(column.get(F, "–") for column in columns.values())] for F in columns["P"]]
    table = _table(f"Points of {one.name}", ["F", *columns], rows)
    return _joined([_tag("h3", one.name), _figure(svg, alt, caption), _bullets(map(text.sentence, remarks)), table])


# Method and citation

_FORMULA = (
    "The form is the paper's above a guessing floor g: P(F) = g + (1 − g)·a·F^b·exp(−c·F), with the collapse point "
    "F* = b/c. kisl's documentation (docs/fit.md) describes the estimators, the tests, and what each status means."
)
_PAPER = (
    "Lv, Chen, Yuan, Liu, Liu, Wang, Su, Zheng. How to inject knowledge efficiently? Knowledge Infusion Scaling Law "
    "for Pre-training Large Language Models. EMNLP 2025. arXiv:2509.19371."
)


def _method_section() -> _Html:
    import matplotlib
    import numpy
    import scipy

    libraries = ", ".join(f"{module.__name__} {module.__version__}" for module in (numpy, scipy, matplotlib))
    versions = f"kisl {__version__}, Python {platform.python_version()}, {libraries}."
    return _joined([_tag("p", _FORMULA), _tag("p", _PAPER), _tag("p", versions, class_="soft")])
