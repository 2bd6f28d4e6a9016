"""One self-contained HTML page: no script, no network, every label escaped."""

from kisl_plugin import __version__
from kisl_plugin.fit.report.gathered import FitReport
from kisl_plugin.fit.report.page.beside import aside_section, cite_section
from kisl_plugin.fit.report.page.curves import curves_section
from kisl_plugin.fit.report.page.laws import law_section
from kisl_plugin.fit.report.page.markup import Html, joined, tag
from kisl_plugin.fit.report.page.method import method_section
from kisl_plugin.fit.report.page.models import models_section
from kisl_plugin.fit.report.page.planned import predictions_section
from kisl_plugin.fit.report.page.style import CSS
from kisl_plugin.fit.report.words import finding, many

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
