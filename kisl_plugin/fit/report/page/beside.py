"""The parts of the page that stand beside the findings: what was left out, how to cite it."""

from kisl_plugin import __version__
from kisl_plugin.fit.report.gathered import FitReport
from kisl_plugin.fit.report.page.markup import Html, bullets, joined, tag

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
