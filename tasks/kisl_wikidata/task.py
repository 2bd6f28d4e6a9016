"""The tasks' classes, beside the YAMLs where every lm_eval looks for what !function names."""

from kisl_plugin.probe.background import BackgroundProbe
from kisl_plugin.probe.task import DirectProbe, ParaphraseProbe, QuestionProbe, StatementProbe

__all__ = ["BackgroundProbe", "DirectProbe", "ParaphraseProbe", "QuestionProbe", "StatementProbe"]
