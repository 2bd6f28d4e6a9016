"""Tasks as job arrays of a Slurm cluster: submitted, and then run without us."""

import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datatrove.executor import SlurmPipelineExecutor

from kisl_plugin.corpus.executors.logs import executor_log, output_to
from kisl_plugin.corpus.executors.notes import NotedTasks, clear_notes
from kisl_plugin.corpus.executors.slurm_jobs import ask_slurm, refuse_while_active, write_jobs
from kisl_plugin.corpus.executors.stages import Stage
from kisl_plugin.errors import InputError, KislError


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of the cluster; None leaves it to the cluster.

    `sbatch` holds further options of sbatch (account, constraint …), which win; `workers` tasks run at a time, -1: as
    many as there is room for; `env_command` is run first in every job, by default what finds the programs of the
    environment that runs us.
    """

    partition: str | None = None
    time: str | None = None
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2
    workers: int = -1
    sbatch: Mapping[str, str] = field(default_factory=dict)
    env_command: str | None = None


@dataclass(frozen=True)
class SlurmRunner:
    """Submits each stage as a job array that waits for the stage before it."""

    options: SlurmOptions

    def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
        """Submit what is not done; False: the cluster runs it; True if there is nothing left to do.

        Raises:
            InputError: jobs of these stages are still queued or running, or sbatch refuses what is asked.
            KislError: Slurm does not answer.
        """
        refuse_while_active(stages)
        submitted: list[str] = []
        for stage in stages:
            if stage.left():
                submitted = self._submit(stage, submitted) or submitted
        return not submitted

    def _submit(self, stage: Stage, after: Sequence[str]) -> list[str]:
        clear_notes(stage)
        executor = SlurmExecutor.of(stage, self.options, after)
        executor.refuse_bad_options()
        try:
            with output_to(executor_log(stage.folder)):
                executor.launch_job()
        except subprocess.CalledProcessError as error:
            before = f" after jobs {', '.join(executor.jobs)}" if executor.jobs else ""
            raise KislError(
                f"sbatch failed with exit status {error.returncode}{before} of {executor.job_name}; its words are above"
            ) from None
        finally:  # also what was submitted before an error or Ctrl-C
            write_jobs(stage, executor.jobs, executor.max_array_size)
        return executor.jobs


class SlurmExecutor(NotedTasks, SlurmPipelineExecutor):
    """datatrove's executor: it remembers all its jobs, quotes paths, and leaves out options that are None."""

    jobs: list[str]

    @classmethod
    def of(cls, stage: Stage, options: SlurmOptions, after: Sequence[str]) -> "SlurmExecutor":
        """The executor of a stage that waits until all jobs `after` have succeeded."""
        executor = cls(
            stage.pipeline,
            stage.tasks,
            options.time,
            options.partition,
            cpus_per_task=options.cpus_per_task,
            mem_per_cpu_gb=options.mem_per_cpu_gb,
            workers=options.workers,
            job_name=f"kisl_{stage.name}",
            qos=None,
            env_command=options.env_command or own_environment(),
            # Without it a job whose dependency failed stays in the queue for ever.
            sbatch_args={"kill-on-invalid-dep": "yes", **options.sbatch},
            max_array_size=max_array_size(),
            depends_job_id=":".join(after) or None,
            logging_dir=str(stage.folder),
        )
        executor.jobs = []
        executor.job_id_retriever = executor.remember
        return executor

    def remember(self, said: str) -> str:
        """The id in what sbatch said; datatrove asks for it after each of the arrays it submits."""
        found = re.search(r"Submitted batch job (\d+)", said)
        if found is None:
            raise KislError(f"sbatch said {said.strip()!r}; expected 'Submitted batch job ID'")
        self.jobs.append(found[1])
        return found[1]

    def launch_merge_stats(self) -> None:
        """No job for datatrove's sum of statistics: what is counted is with the results."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Datatrove's options, without those left to the cluster, quoted as sbatch reads them."""
        options = super().get_sbatch_args(max_array)
        return {key: shlex.quote(str(value)) if value else value for key, value in options.items() if value is not None}

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """Datatrove's script, with the folder's path quoted."""
        pickled = self.logging_dir.resolve_paths("executor.pik")
        return str(super().get_launch_file_contents(sbatch_args, run_script.replace(pickled, shlex.quote(pickled))))

    def refuse_bad_options(self) -> None:
        """Let sbatch look at the options before anything is submitted.

        Raises:
            InputError: what sbatch says against them.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".slurm") as script:
            script.write(self.get_launch_file_contents(self.get_sbatch_args(), "true"))
            script.flush()
            tried = subprocess.run(["sbatch", "--test-only", script.name], capture_output=True, text=True)
        if tried.returncode:
            said = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
            raise InputError(f"sbatch refuses the job {self.job_name}: {said.removeprefix('sbatch: error: ')}")


def own_environment() -> str:
    """The command by which a job finds the programs of the environment that runs us."""
    return f"export PATH={shlex.quote(sysconfig.get_path('scripts'))}{os.pathsep}$PATH"


def max_array_size() -> int:
    """The largest job array that the cluster takes; what is larger goes as several, one after the other."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask_slurm("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else 1001  # Slurm's own default
