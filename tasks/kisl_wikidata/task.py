"""The tasks' classes, beside the YAML where every lm_eval looks for what !function names."""

from kisl_plugin.probe.task import QuestionProbe, StatementProbe

__all__ = ["QuestionProbe", "StatementProbe"]
