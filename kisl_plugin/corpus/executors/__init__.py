"""Where tasks run: in this process, in processes of this machine, on a Slurm or on a Ray cluster."""

from kisl_plugin.corpus.executors.stages import Runner, Stage, forget

__all__ = ["Runner", "Stage", "forget"]
