"""The parts of the page that stand beside the findings: what was left out, how it was done, how to cite it."""

import platform

from kisl_plugin import __version__
from kisl_plugin.fit.curves.status import STATUS_HELP
from kisl_plugin.fit.report.gathered import FitReport
from kisl_plugin.fit.report.page.markup import Html, bullets, joined, tag
from kisl_plugin.fit.report.words import LOSSES

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


def method_section(report: FitReport) -> Html:
    """Estimator, noise and tests in plain words, and what each status means."""
    said = [
        "Each model's runs are fitted with P(F) = g + (1-g)·a·F^b·exp(-c·F), the paper's form above a guessing floor "
        "g; the collapse point is F* = b/c, where the curve peaks. The peak cannot exceed 1.",
        f"Estimator: {LOSSES.get(report.loss, report.loss)}. Intervals are 95 %; an open end means that the data do "
        "not bound it. The bars at points are Wilson intervals of the items alone.",
        "Runs of one model differ by more than the draw of items. That run-to-run noise (tau, the standard deviation "
        "of the logit of P) is estimated from seeds that share a frequency, or else from how far the points lie from "
        "the curve; intervals and tests of the curve take it in, with df degrees of freedom.",
        "Where lm-eval's samples are there, the same triples are followed through all frequencies (paired), which "
        "takes the difficulty of single facts out of the comparison.",
        "The form itself always falls somewhere, so a fall must be shown without it: by comparing the best curve that "
        "only rises with the best that rises and falls (fall p), and that one with any sequence (unimodal p). Form p "
        "tells whether this form fits the points.",
    ]
    statuses = [
        joined([tag("dt", f"{code}…" if code.endswith("=") else code), tag("dd", meaning)])
        for code, meaning in STATUS_HELP.items()
    ]
    return joined([bullets(said), tag("h3", "What a status means"), tag("dl", *statuses), _versions()])


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


def cite_section() -> Html:
    """The paper, and this software."""
    return joined([tag("p", PAPER), tag("p", f"Fitted with kisl {__version__}."), tag("pre", BIBTEX)])
