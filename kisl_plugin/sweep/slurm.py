"""A sweep on Slurm, through submitit: one job a run, which requeues itself at its time limit and goes on.

Nothing stays alive where the jobs were submitted. What is in the queue is asked of Slurm, by the jobs' names.
"""

import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from kisl_plugin.errors import BusyError, InputError, KislError, is_number, is_whole, needs_extra
from kisl_plugin.files import sha256
from kisl_plugin.sweep.spec import Sweep, SweepRun, refuse_missing_inputs
from kisl_plugin.sweep.steps import checkpoint_step, is_trained, record_failure, run_steps, state_of

__all__ = ["RunJob", "jobs_in_queue", "submit_sweep"]

# The keys of the section `slurm` that are not passed to sbatch as they are, and their defaults.
_OPTIONS: Mapping[str, tuple[Any, Any, str]] = {
    "gpus": (0, is_whole, "a whole number"),  # of each node
    "nodes": (1, lambda v: is_whole(v, 1), "a whole number, 1 or more"),
    "hours": (24.0, lambda v: is_number(v) and v > 0, "a number above 0"),
    "requeues": (100, is_whole, "a whole number"),
    "signal_seconds": (120, lambda v: is_whole(v, 1), "a whole number, 1 or more"),
    "setup": ([], lambda v: isinstance(v, list), "a list of shell commands"),
}
_WAIT_SECONDS = 10.0  # for another process that works on the run
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED")


class RunJob:
    """What submitit calls in a job: the steps of a run. At the time limit `checkpoint` says how the job goes on."""

    def __init__(self, run: SweepRun, retries: int, hours: float) -> None:
        self.run, self.retries, self.hours = run, retries, hours

    def __call__(self) -> None:
        """Do what is left of the run."""
        self._began, self._stood = time.monotonic(), _progress(self.run)
        attempt = 0
        while True:
            try:
                return run_steps(self.run)
            except BusyError:
                time.sleep(_WAIT_SECONDS)
            except KislError as error:
                attempt += 1
                if attempt > self.retries or isinstance(error, InputError):
                    raise

    def checkpoint(self) -> Any:
        """The job after a requeue; None, which ends it, if a whole time limit brought no checkpoint."""
        from submitit.helpers import DelayedSubmission

        whole_limit = time.monotonic() - self._began > 0.5 * 3600 * self.hours
        if whole_limit and _progress(self.run) == self._stood:
            reason = f"{self.hours:g} hours ended before the next checkpoint; lower checkpoint_factor or raise hours"
            record_failure(self.run, KislError(reason))
            return None
        return DelayedSubmission(RunJob(self.run, self.retries, self.hours))


def _progress(run: SweepRun) -> tuple[int, bool]:
    return checkpoint_step(run), is_trained(run)


def submit_sweep(sweep: Sweep, retries: int = 0) -> tuple[int, str]:
    """Submit a job for each run that is neither done nor in the queue.

    Returns:
        How many were submitted, and in words where the others stand.

    Raises:
        InputError: Slurm or submitit is not here, an option is wrong, or input files are missing.
        KislError: Slurm refuses a job.
    """
    with needs_extra("sweep", "kisl sweep run --slurm"):
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    jobs = jobs_in_queue(sweep, required=True)
    states = [state_of(run, jobs) for run in sweep.runs]
    left = [one.run for one in states if one.state in ("waiting", "trained", "failed")]
    if left:
        refuse_missing_inputs(sweep)
    parameters = {run.name: _sbatch_parameters(run, sweep.where) for run in left}
    for number, run in enumerate(left):
        options = dict(parameters[run.name])
        # Without srun and with exec the batch job is the program itself: it gets the signal, and may use srun.
        python = f"exec {shlex.quote(sys.executable)}"
        executor = SlurmExecutor(sweep.out / "slurm", max_num_timeout=options.pop("requeues"), python=python)
        executor.update_parameters(use_srun=False, **options)
        run.write_config()
        try:
            executor.submit(RunJob(run, retries, options["time"] / 60))
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            reason = " ".join(str(error).split())
            raise KislError(f"{run.name}: Slurm refused the job ({reason}); {number} were submitted before") from None
    counts = Counter(one.state for one in states if one.run not in left)
    return len(left), ", ".join(f"{number} {state}" for state, number in counts.items())


def _sbatch_parameters(run: SweepRun, where: str) -> dict[str, Any]:
    """The section `slurm` as submitit takes it."""
    values = {key: default for key, (default, _, _) in _OPTIONS.items()} | dict(run.slurm)
    for key, (_, accepts, expected) in _OPTIONS.items():
        if not accepts(values[key]):
            raise InputError(f"{where}: slurm.{key} is {values[key]!r}; expected {expected}")
    gpus, nodes = values.pop("gpus"), values.pop("nodes")
    parameters: dict[str, Any] = {
        "job_name": _job_name(run),
        # A second job of that name waits until the first one has ended.
        "dependency": "singleton",
        "time": max(1, round(60 * values.pop("hours"))),
        "nodes": nodes,
        # DeepSpeed's launcher of Slurm starts the training's processes with srun, one task for each GPU.
        "ntasks_per_node": max(1, gpus) if nodes > 1 else 1,
        "stderr_to_stdout": True,
        "requeues": values.pop("requeues"),
        "setup": ["export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}", *map(str, values.pop("setup"))],
    }
    if gpus:
        parameters["gpus_per_node"] = gpus
    # B: the signal is for the batch program alone, which then ends what it has started.
    additional = {"signal": f"B:USR2@{values.pop('signal_seconds')}", "requeue": True}
    parameters["additional_parameters"] = additional | {str(key).replace("_", "-"): v for key, v in values.items()}
    return parameters


def _job_name(run: SweepRun) -> str:
    """Of a run in a folder: the same run in another folder is another job."""
    return f"kisl_{run.name}_{sha256(str(run.out.resolve()))[:6]}"


def jobs_in_queue(sweep: Sweep, required: bool = False) -> dict[str, str]:
    """The runs for which Slurm has a job of this user, each `queued` or `running`; none where there is no Slurm.

    Raises:
        InputError: with `required`, there is no Slurm here, or it does not answer.
    """
    names = {_job_name(run): run.name for run in sweep.runs}
    try:
        command = ["squeue", "--me", "-h", "-o", "%T %j"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        if not required:  # such as Slurm's commands on a machine that is in no cluster
            return {}
        reason = " ".join(error.stderr.split()) if isinstance(error, subprocess.CalledProcessError) else "not installed"
        raise InputError(f"squeue: {reason}; --slurm submits from a machine of the cluster") from None
    jobs: dict[str, str] = {}
    for line in listed.splitlines():
        state, _, name = line.partition(" ")
        if name in names and jobs.get(names[name]) != "running":
            jobs[names[name]] = "running" if state in _RUNNING else "queued"
    return jobs
