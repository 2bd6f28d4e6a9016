"""The tasks' classes, beside the YAML because lm_eval before 0.4.12 resolves !function nowhere else."""

from kisl_plugin.probe.task import QuestionProbe, StatementProbe

__all__ = ["QuestionProbe", "StatementProbe"]
