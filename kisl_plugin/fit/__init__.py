"""From lm-eval results to collapse curves and infusion laws."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kisl_plugin.fit.curves.curve import CollapseCurve, fit_collapse_curve
    from kisl_plugin.fit.laws.law import InfusionLaw, fit_infusion_law
    from kisl_plugin.fit.reading.results import observations_of
    from kisl_plugin.fit.report.asked import Asked
    from kisl_plugin.fit.report.assemble import fit_observations, fit_results
    from kisl_plugin.fit.report.gathered import FitReport
    from kisl_plugin.fit.report.writing import write_report

__all__ = [
    "Asked",
    "CollapseCurve",
    "FitReport",
    "InfusionLaw",
    "fit_collapse_curve",
    "fit_infusion_law",
    "fit_observations",
    "fit_results",
    "observations_of",
    "write_report",
]

_HOMES = {
    "Asked": "report.asked",
    "CollapseCurve": "curves.curve",
    "fit_collapse_curve": "curves.curve",
    "InfusionLaw": "laws.law",
    "fit_infusion_law": "laws.law",
    "FitReport": "report.gathered",
    "fit_observations": "report.assemble",
    "fit_results": "report.assemble",
    "observations_of": "reading.results",
    "write_report": "report.writing",
}


def __getattr__(name: str) -> Any:
    """Imported when it is first asked for (PEP 562): numpy and scipy take longer than `kisl-fit --help` may."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
