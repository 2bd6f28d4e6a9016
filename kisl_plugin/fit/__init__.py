"""From lm-eval results to collapse curves and infusion laws."""

from kisl_plugin.fit.curves.curve import CollapseCurve, fit_collapse_curve
from kisl_plugin.fit.laws.law import InfusionLaw, fit_infusion_law
from kisl_plugin.fit.report.assemble import FitReport, fit_results
from kisl_plugin.fit.report.writing import write_report

__all__ = [
    "CollapseCurve",
    "FitReport",
    "InfusionLaw",
    "fit_collapse_curve",
    "fit_infusion_law",
    "fit_results",
    "write_report",
]
