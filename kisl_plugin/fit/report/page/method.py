"""The part of the page on how it was fitted, in plain words."""

import platform

from kisl_plugin import __version__
from kisl_plugin.fit.curves.status import STATUS_HELP
from kisl_plugin.fit.report.gathered import FitReport
from kisl_plugin.fit.report.page.markup import Html, bullets, joined, tag
from kisl_plugin.fit.report.words import LOSSES

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
    said = bullets([_form(), _estimator(report), NOISE, PAIRED, TESTS, LAWS])
    return joined([said, tag("h3", "What a status means"), tag("dl", *statuses), _versions()])


def _form() -> Html:
    parts = ["Each model's runs are fitted with P(F) = g + (1 − g)·a·F", tag("sup", "b"), "·e", tag("sup", "−c·F")]
    above = ", the paper's form above a guessing floor g; the collapse point is F* = b/c, where the curve peaks."
    return joined([*parts, above])


def _estimator(report: FitReport) -> str:
    loss = LOSSES.get(report.loss, report.loss)
    return (
        f"Estimator: {loss}, with the peak at 1 at most. Intervals are of 95 %; where an end is open, the data do not "
        "bound it. The bars at points are Wilson intervals of the items alone."
    )


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
