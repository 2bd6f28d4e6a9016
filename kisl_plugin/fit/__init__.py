"""From lm-eval results to collapse curves and infusion laws."""

from kisl_plugin.fit.curve import CollapseCurve, fit_collapse_curve
from kisl_plugin.fit.law import InfusionLaw, fit_infusion_law
from kisl_plugin.fit.report import FitReport, fit_results
from kisl_plugin.fit.writing import write_report

__all__ = [
    "CollapseCurve",
    "FitReport",
    "InfusionLaw",
    "fit_collapse_curve",
    "fit_infusion_law",
    "fit_results",
    "write_report",
]
