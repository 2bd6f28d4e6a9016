"""The tasks' classes, beside the YAMLs where every lm_eval looks for what !function names."""

from kisl_plugin.probe.task import BackgroundProbe, DirectProbe, ParaphraseProbe, QuestionProbe, StatementProbe

__all__ = ["BackgroundProbe", "DirectProbe", "ParaphraseProbe", "QuestionProbe", "StatementProbe"]
