"""From lm-eval results to collapse curves and infusion laws."""

from kisl_plugin.fit.curve import CollapseCurve, fit_collapse_curve

__all__ = ["CollapseCurve", "fit_collapse_curve"]
