"""From lm-eval results to collapse curves and infusion laws."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kisl_plugin.fit.curve import CollapseCurve, fit_collapse_curve
    from kisl_plugin.fit.law import InfusionLaw, fit_infusion_law
    from kisl_plugin.fit.report import FitOptions, FitReport, fit_results
    from kisl_plugin.fit.writing import write_report

__all__ = [
    "CollapseCurve",
    "FitOptions",
    "FitReport",
    "InfusionLaw",
    "fit_collapse_curve",
    "fit_infusion_law",
    "fit_results",
    "write_report",
]

_MODULES = {
    "curve": ("CollapseCurve", "fit_collapse_curve"),
    "law": ("InfusionLaw", "fit_infusion_law"),
    "report": ("FitOptions", "FitReport", "fit_results"),
    "writing": ("write_report",),
}


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): numpy and scipy take longer than `kisl-fit --help` may."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
