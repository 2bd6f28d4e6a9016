"""A grid of runs from one file: train, export, probe and fit, on this machine or on Slurm; the files are the truth."""

from kisl_plugin.sweep.estimate import SweepPlan, disk_of, plan_sweep
from kisl_plugin.sweep.pool import run_sweep, total_line
from kisl_plugin.sweep.spec import Sweep, SweepRun, read_sweep
from kisl_plugin.sweep.steps import RunState, state_of

__all__ = [
    "RunState",
    "Sweep",
    "SweepPlan",
    "SweepRun",
    "disk_of",
    "plan_sweep",
    "read_sweep",
    "run_sweep",
    "state_of",
    "total_line",
]
