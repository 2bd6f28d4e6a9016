"""One self-contained HTML page: no script, no network, every label escaped."""

import base64
import html
import math
import platform
from collections.abc import Iterable, Sequence

from kisl_plugin import __version__
from kisl_plugin.errors import InputError
from kisl_plugin.fit import text as human
from kisl_plugin.fit.joint import JointForm
from kisl_plugin.fit.law import InfusionLaw
from kisl_plugin.fit.law_estimate import OPEN
from kisl_plugin.fit.predict import Prediction, share_of_budget
from kisl_plugin.fit.report import (
    CurveReport,
    FitReport,
    LawReport,
    Point,
    data_law_sentence,
    f_star,
    finding,
    held_out_sentence,
    joint_sentences,
    many,
    remarks,
    sentence,
    valued,
    verdict_word,
    weight,
)
from kisl_plugin.fit.text import STATUS_HELP
from kisl_plugin.verbalize import templates_of

# How the page looks: on a phone, on a desk, in the dark and in print.

CSS = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5a636d; --line: #d9dee3; --page: #fff; --tint: #f4f6f8;
  --accent: #0b5cad; --good: #1a6b3a; --bad: #a3261b }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --soft: #a3adb7; --line: #3a424b; --page: #14181c;
  --tint: #1e242a; --accent: #7db7f2; --good: #7fcf9b; --bad: #f2958b } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--text); background: var(--page);
  max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); margin: 0 }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1.08rem; margin: 2.25rem 0 .5rem }
h4 { font-size: 1rem; margin: 1.5rem 0 .4rem }
.best { font-weight: 600 }
.finding { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: .5rem 0 1rem; text-wrap: pretty }
.soft, figcaption { color: var(--soft) } figcaption, .soft { font-size: .9rem }
p, ul, dl { margin: .6rem 0 } ul { padding-left: 1.2rem } li { margin: .3rem 0 }
a { color: var(--accent) }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1rem 0 0 }
figure { margin: 1.25rem 0 }
figure img { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto .5rem; background: #fff;
  border-radius: 4px }
figcaption { max-width: 34rem; margin: 0 auto }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
th, td { padding: .38rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
tbody tr:last-child > * { border-bottom: 0 }
th { font-weight: 600 } thead th { background: var(--tint); color: var(--soft) }
th:first-child, th.text, td.text { text-align: left }
tbody th { font-weight: 600 }
code, pre { font: .86rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace }
pre { background: var(--tint); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; overflow-wrap: normal }
.badge { font-size: .78rem; font-weight: 700; letter-spacing: .02em; border: 1px solid currentColor;
  border-radius: 4px; padding: .02rem .4rem; white-space: nowrap; margin-right: .4rem }
.passed { color: var(--good) } .failed { color: var(--bad) } .not-tested { color: var(--soft) }
.heat { background: color-mix(in srgb, var(--accent) calc(var(--share) * 45%), transparent) }
dt { font-weight: 600; margin-top: .6rem } dd { margin: 0 }
@media (max-width: 30rem) { .best { font-weight: 600 }
.finding { font-size: 1.2rem } body { padding-top: 1rem } th, td { padding: .35rem .5rem } }
@page { margin: 18mm 16mm }
@media print { :root { --text: #000; --soft: #444; --line: #bbb; --page: #fff; --tint: #f2f2f2; --accent: #0b5cad }
  body { max-width: none; padding: 0; font-size: 10pt } nav { display: none }
  h2, h3, h4 { break-after: avoid } h2 { margin-top: 1.5rem } figure, tr, dl, pre { break-inside: avoid }
  figure img { max-width: 12cm } .scroll { overflow: visible; border: 0 } table { font-size: 7pt }
  th, td { padding: .15rem .25rem; white-space: normal } pre { white-space: pre-wrap }
  a { color: inherit; text-decoration: none } }
"""


# HTML in which text is escaped unless it was made here: labels and paths come from files.

VOID = frozenset({"img", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; children that are no Html are escaped, as all attributes are. `class_` stands for class."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after the other, those that are no Html escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def bullets(items: Iterable[str]) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items))


def table(label: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table in a scroller of its own; the first cell of a row is its heading. Cells that are Html are th or td."""
    head = tag("tr", *(_heading(heading) for heading in headings))
    body = [tag("tr", tag("th", first, scope="row"), *map(_cell, rest)) for first, *rest in rows]
    # Focusable, so that the keyboard can scroll it
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="scroll", role="region", aria_label=label, tabindex="0")


def _heading(text: str) -> Html:
    return text if isinstance(text, Html) else tag("th", text, scope="col")


def _cell(text: str) -> Html:
    return text if isinstance(text, Html) else tag("td", text)


def figure(svg: bytes, alt: str, caption: str) -> Html:
    """A figure that the page carries within."""
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
    return tag("figure", tag("img", src=source, alt=alt), tag("figcaption", caption))


# The parts of the page that stand beside the findings: what was left out, how to cite it.

PAPER = (
    "Lv, Chen, Yuan, Liu, Liu, Wang, Su, Zheng. How to inject knowledge efficiently? Knowledge Infusion Scaling Law "
    "for Pre-training Large Language Models. EMNLP 2025. arXiv:2509.19371."
)
BIBTEX = f"""@inproceedings{{lv2025inject,
  title     = {{How to Inject Knowledge Efficiently? Knowledge Infusion Scaling Law for
               Pre-training Large Language Models}},
  author    = {{Lv and Chen and Yuan and Liu and Liu and Wang and Su and Zheng}},
  booktitle = {{EMNLP}},
  year      = {{2025}},
  note      = {{arXiv:2509.19371}}
}}

@software{{kisl,
  title   = {{kisl: knowledge infusion scaling laws for GPT-NeoX and lm-evaluation-harness}},
  author  = {{The kisl developers}},
  version = {{{__version__}}}
}}"""


def aside_section(report: FitReport) -> Html:
    """Every file that was not used, with the reason."""
    if not report.set_aside:
        return tag("p", "Nothing: every results file that was found is used.")
    items = [joined([tag("code", aside.path), ": ", aside.reason]) for aside in report.set_aside]
    return bullets(items)


def cite_section() -> Html:
    """The paper, and this software."""
    return joined([tag("p", PAPER), tag("p", f"Fitted with kisl {__version__}."), tag("pre", BIBTEX)])


# The part of the page on all curves: the figure, their numbers, and what memory costs.

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


def curves_section(report: FitReport, figures: dict[str, bytes]) -> Html:
    """All curves in one figure, and each curve's numbers in a table."""
    if not report.curves:
        return tag("p", "No run with injected facts could be used.")
    described = "; ".join(f"{found.name}: {_in_words(found)}" for found in report.curves)
    caption = (
        "Memorisation rate P against the frequency F at which each fact was injected. Points: all items at one F with "
        "95 % Wilson intervals (small and hollow: single runs); lines with bands: fitted curves with 95 % intervals; "
        "bars above the axis: F* with its interval. A broken line is a fit that shows no collapse point."
    )
    return joined(
        [
            figure(figures["curves"], f"Memorisation rate against frequency. {described}.", caption),
            table("Numbers of each curve", CURVE_HEADINGS, [_numbers(found) for found in report.curves]),
            *([bullets(report.notes)] if report.notes else []),
            *_cost(figures),
        ]
    )


def _in_words(found: CurveReport) -> str:
    curve = found.curve
    return f"collapse point {human.estimate(curve.f_star)}" if curve.ok else curve.status


def _numbers(found: CurveReport) -> tuple[str, ...]:
    curve = found.curve
    return (
        f"{human.count(found.params)}, {human.count(found.tokens)}",
        tag("td", curve.status, class_="text"),
        f"{human.estimate(curve.f_star)} ({human.interval(*curve.f_star_interval)})" if curve.ok else "–",
        f"{curve.peak:.3f} ({human.interval(*curve.peak_interval, human.share)})" if curve.ok else "–",
        _number(curve.b, ".3f") if curve.ok else "–",
        f"{found.floor.value:.3f}",
        human.interval(*curve.frequency_range, human.frequency),
        str(len(found.runs)),
        _number(curve.tau, ".3f"),
        "∞" if curve.df == math.inf else _number(curve.df, ".3g"),
        _number(curve.fall_p, ".2g"),
        _number(curve.unimodal_p, ".2g"),
        _number(curve.form_p, ".2g"),
        _number(curve.largest_fall, ".3f"),
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _cost(figures: dict[str, bytes]) -> list[Html]:
    if "cost" not in figures:
        return []
    caption = (
        "Against F: the share of control triples (asked, never injected) that are right; bits per byte on background "
        "text, dotted at F = 0; each where it was measured."
    )
    return [
        tag("h3", "What memory costs"),
        figure(figures["cost"], "Control triples right and bits per byte against frequency.", caption),
    ]


# The part of the page on laws: the figure, each law's parameters with intervals, and what it misses.

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
    drawn = figure(figures["law"], f"Collapse points against compute. {_laws_in_words(report)}", caption)
    laws = [_law(found, found.law) for found in report.laws if found.law]
    return joined([drawn, *missing, *laws, *_of_tokens(report), *_beside(report), _verdicts(report)])


def _laws_in_words(report: FitReport) -> str:
    points = [f"{found.name} {human.estimate(found.curve.f_star)}" for found in report.curves if found.curve.ok]
    return f"F* of {', '.join(points)}."


def _law(found: LawReport, law: InfusionLaw) -> Html:
    at = f"D = {human.count(found.tokens)}"
    sizes = ", ".join(human.count(params) for params in found.params)
    rows = [_laws_numbers("A/C^alpha + E", law)]
    if law.without_E is not None:
        rows.append(_laws_numbers("E = 0", law.without_E))
    parts = [
        tag("h3", f"F*(C) = A/C^alpha + E at {at}"),
        tag("p", f"Through {sizes}. Intervals: {law.interval_method}."),
        table(f"Parameters of the law at {at}", LAW_HEADINGS, rows),
        bullets(map(sentence, law.caveats)),
    ]
    if law.leave_one_out:
        parts += [tag("h4", "Each model from the others"), _left_out(found, law)]
    return joined(parts)


def _laws_numbers(form: str, law: InfusionLaw) -> tuple[str, ...]:
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
    """What was held out."""
    parts = []
    if report.held_out:
        parts += [tag("h3", "Held out"), bullets(sentence(held_out_sentence(held)) for held in report.held_out)]
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


# The part of the page on how it was fitted, in plain words.

ESTIMATOR = (
    "Estimator: binomial maximum likelihood, with the peak at 1 at most. Intervals are of 95 %; where an end is open, "
    "the data do not bound it. The bars at points are Wilson intervals of the items alone."
)
NOISE = (
    "Runs of one model differ by more than the draw of items. That run-to-run noise (tau, the standard deviation of "
    "the log-odds of P) is estimated from seeds that share a frequency, or else from how far the points lie from the "
    "curve; intervals and tests of the curve take it in, with df degrees of freedom."
)
PAIRED = (
    "Where lm-eval's samples are there, the same triples are followed through all frequencies (paired), which takes "
    "the difficulty of single facts out of the comparison."
)
TESTS = (
    "The form itself always falls somewhere, so a fall must be shown without it: by comparing the best curve that only "
    "rises with the best that rises and falls (fall p), and that one with any sequence (unimodal p). Form p tells "
    "whether this form fits the points."
)
LAWS = (
    "Laws are fitted to the logarithm of the collapse points of curves with status ok, weighted by their intervals, "
    "with the scatter of models about the law in every interval. A prediction's interval is that of one further model. "
    "R² of so few falling numbers says little, so the share of random falling sequences that reach it stands beside it."
)


def method_section(report: FitReport) -> Html:
    """Estimator, noise and tests, what each status means, and the versions."""
    statuses = [
        joined([tag("dt", f"{code}…" if code.endswith("=") else code), tag("dd", meaning)])
        for code, meaning in STATUS_HELP.items()
    ]
    said = bullets([_method_form(), ESTIMATOR, NOISE, PAIRED, TESTS, LAWS])
    return joined([said, tag("h3", "What a status means"), tag("dl", *statuses), _versions()])


def _method_form() -> Html:
    parts = ["Each model's runs are fitted with P(F) = g + (1 − g)·a·F", tag("sup", "b"), "·e", tag("sup", "−c·F")]
    above = ", the paper's form above a guessing floor g; the collapse point is F* = b/c, where the curve peaks."
    return joined([*parts, above])


def _versions() -> Html:
    import matplotlib
    import numpy
    import scipy

    return tag(
        "p",
        f"kisl {__version__}, Python {platform.python_version()}, numpy {numpy.__version__}, "
        f"scipy {scipy.__version__}, matplotlib {matplotlib.__version__}.",
        class_="soft",
    )


# The part of the page on each model: its own figure, its points, its relations, and what to know of it.


def models_section(report: FitReport, figures: dict[str, bytes]) -> Html:
    """One part per model."""
    return joined(_model(found, figures[figure_name(found)]) for found in report.curves)


def figure_name(found: CurveReport) -> str:
    """The name of a model's figure."""
    return f"{found.params}-{found.tokens}"


def _model(found: CurveReport, svg: bytes) -> Html:
    alt = f"Memorisation rate of {found.name} at {len(found.points)} frequencies, with what was measured beside it."
    parts = [tag("h3", found.name), figure(svg, alt, _caption(found))]
    said = [f_star(found.curve), *remarks(found)] if found.curve.ok else remarks(found)
    parts += [bullets(map(sentence, said)), table(f"Points of {found.name}", _headings(found), _rows(found))]
    if found.relations:
        parts += [tag("h4", "Per relation"), _relations(found)]
    return joined(parts)


def _caption(found: CurveReport) -> str:
    beside = [
        name
        for name, there in (
            ("the share right by summed likelihood", found.by_sum),
            ("control triples", found.controls),
            ("bits per byte of the background text (dotted: at F = 0)", found.background),
        )
        if there
    ]
    return sentence(f"memory of {found.name}" + (f", with {', '.join(beside)}" if beside else ""))


def _headings(found: CurveReport) -> list[str]:
    beside = (
        ("single runs", found.has_replicates),
        ("by sum", found.by_sum),
        ("control", found.controls),
        ("bits per byte", found.background),
    )
    return ["F", "right", "P", *(name for name, there in beside if there)]


def _rows(found: CurveReport) -> list[list[str]]:
    by_sum, controls = _shares(found.by_sum), _shares(found.controls)
    cost = {seen.frequency: f"{seen.bits_per_byte:.3f}" for seen in found.background}
    rows = []
    for point in found.points:
        runs = [f"{run.share:.3f}" for run in found.runs if run.frequency == point.frequency]
        row = [human.frequency(point.frequency), f"{point.correct:,} of {point.total:,}", f"{point.share:.3f}"]
        row += [" ".join(runs)] if found.has_replicates else []
        row += [column.get(point.frequency, "–") for column in (by_sum, controls, cost) if column]
        rows.append(row)
    return rows


def _shares(points: tuple[Point, ...]) -> dict[int, str]:
    return {point.frequency: f"{point.share:.3f}" for point in points}


def _relations(found: CurveReport) -> Html:
    frequencies = [point.frequency for point in found.points]
    rows = []
    for relation, points in found.relations.items():
        at = {point.frequency: point for point in points}
        rows.append([_named(relation), *(_heat(at[F]) if F in at else "–" for F in frequencies)])
    return table(f"Share right per relation, {found.name}", ["relation", *map(human.frequency, frequencies)], rows)


def _named(relation: str) -> str:
    """The relation's id with its name, if a plugin knows one."""
    try:
        return f"{relation} {templates_of(relation).name}"
    except InputError:
        return relation


def _heat(point: Point) -> Html:
    title = f"{point.correct} of {point.total}"
    return tag("td", f"{point.share:.2f}", class_="heat", style=f"--share:{point.share:.2f}", title=title)


# The part of the page on models that were not trained.


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


# One self-contained HTML page: no script, no network, every label escaped.

# The browser itself then refuses whatever a label might smuggle in
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: FitReport, figures: dict[str, bytes]) -> str:
    """The page; `figures` are SVGs by the name of what they show (`curves`, `law`, `cost`)."""
    optional = [("predictions", "Predictions", predictions_section(report))] if report.predictions else []
    sections = [
        ("curves", "Collapse curves", curves_section(report, figures)),
        ("law", "Infusion law", law_section(report, figures)),
        *optional,
        ("models", "Each model", models_section(report, figures)),
        ("aside", "What was set aside", aside_section(report)),
        ("method", "How it was fitted", method_section(report)),
        ("cite", "How to cite", cite_section()),
    ]
    links = tag("ul", *(tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections))
    body = [
        tag("header", *_head(report), tag("nav", links, aria_label="Contents")),
        tag("main", *(tag("section", tag("h2", title), content, id=name) for name, title, content in sections)),
    ]
    return f'<!doctype html>\n<html lang="en">\n{_meta(report)}\n{tag("body", *body)}\n</html>\n'


def _meta(report: FitReport) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"kisl {__version__}"),
        tag("title", f"Collapse curves of {report.task}"),
        joined([Html(f"<style>{CSS}</style>")]),
    )


def _head(report: FitReport) -> list[Html]:
    used = f"{many(len(report.observations), 'observation')}, {many(len(report.curves), 'model')}"
    aside = f"{many(len(report.set_aside), 'file')} set aside"
    return [
        tag("h1", f"Collapse curves and infusion law: {report.task}"),
        tag("p", finding(report), class_="finding"),
        tag("p", f"{used}; {aside}.", class_="soft"),
    ]
