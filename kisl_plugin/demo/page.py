"""The demo's page: one self-contained HTML file, readable on a phone and in print."""

import base64
import html
from pathlib import Path

from kisl_plugin import __version__
from kisl_plugin.demo.run import QUESTION, STATEMENT, DemoReport
from kisl_plugin.demo.table import HEADINGS, rows, verdicts
from kisl_plugin.options import choices_of
from kisl_plugin.runcard import RunCard, write_atomically
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import question, statement

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap }
img { max-width: 100%; height: auto; display: block; margin: 1rem auto } .verdict { font-weight: 600 }
blockquote { border-left: 3px solid #ccc; margin: 1rem 0; padding: .1rem 1rem; color: #444 }
@media print { body { margin: 0; font-size: 11pt } img { break-inside: avoid } }
"""


def write_page(report: DemoReport, out: Path, command: str) -> Path:
    """Write `out`/index.html with the figures inside; every label is escaped."""
    card = report.runs[0].card
    sizes = (
        f"A Llama of {card.model['params']:,} parameters ({card.model['params_non_embedding']:,} outside its "
        f"embeddings), trained from scratch {len(report.runs)} times on {card.tokens:,} tokens; "
        f"{card.triples['count']} facts injected as statements, {card.triples['control']} control facts asked and "
        f"never injected. Background: {report.data.documents:,} docstrings of the installed Python packages "
        f"({report.data.left_out} more stated a fact and were left out)."
    )
    parts = [
        "<h1>How often must a fact be in the training data, and when is it too often?</h1>",
        _p(sizes),
        "<h2>What was measured</h2>",
        *(f'<p class="verdict">{html.escape(said[0].upper() + said[1:])}.</p>' for said in verdicts(report)),
        _image(out / "overview.png", "memory and general loss against frequency"),
        f'<div class="scroll">{_table(report)}</div>',
        _p("Shares with 95 % Wilson intervals in the figure. Held-out loss: nats per token of background text."),
        "<h2>One fact, as it was injected and asked</h2>",
        _example(read_triples(str(report.data.facts)), card),
        "<h2>The collapse curve</h2>",
        _p("P(F) = g + (1 − g)·a·F^b·exp(−c·F) by binomial maximum likelihood; g, the guessing floor, is what the run "
           "at F = 0 gets right."),
        *(_image(out / "report" / task / "curves.png", f"collapse curve of {task}") for task in (QUESTION, STATEMENT)),
        "<h2>The infusion law</h2>",
        _p(_sentence(report.fits[QUESTION].missing_law) or "See report/ for the law."),
        "<h2>How it was made</h2>",
        f"<p><code>{html.escape(command)}</code>, kisl-plugin {__version__}. The configurations are in "
        "<code>configs/</code>, lm-eval's results in <code>results/</code>, fits in <code>report/</code>.</p>",
    ]  # fmt: skip
    path = out / "index.html"
    head = (
        "<title>kisl demo</title>"
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    )
    body = "\n".join(parts)
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    write_atomically(path, page)
    return path


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _p(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _image(path: Path, description: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(description)}">'


def _table(report: DemoReport) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows(report))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _example(triples: list[Triple], card: RunCard) -> str:
    place = next(k for k, triple in enumerate(triples) if triple.group != CONTROL)
    triple, choices = triples[place], choices_of(triples)[place]
    templates = card.template if isinstance(card.template, list) else [card.template or 0]
    said = "".join(_p(statement(triple, template)) for template in templates)
    return (
        _p(f"Stated F times in all, in {len(templates)} wordings:")
        + f"<blockquote>{said}</blockquote>"
        + _p("Asked, in a wording that no statement has:")
        + f"<blockquote>{_p(question(triple))}{_p(' / '.join(choices.options))}</blockquote>"
        + _p("The option with the lowest perplexity per token after the question is the model's choice.")
    )
