"""The options of `kisl corpus build` that say where its tasks run."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kisl_plugin.cli.option_groups import GroupedOption
from kisl_plugin.errors import InputError

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner

WHERE, CLUSTER, SLURM, RAY = "Where it runs", "Slurm and Ray", "Slurm", "Ray"


def _option(group: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    return click.option(*args, cls=GroupedOption, group=group, **kwargs)


OPTIONS = (
    _option(
        WHERE, "--executor", default="local", show_default=True, type=click.Choice(["local", "slurm", "ray"]),
        help="Processes of this machine, or a cluster.",
    ),
    _option(
        WHERE, "--tasks", type=click.IntRange(min=1),
        help="Into how many shards the work is cut; the result is the same.  [default and at most: one a piece (a "
        "file or 128 MB of Parquet), 1000]",
    ),
    _option(
        WHERE, "--workers", type=click.IntRange(min=1),
        help="Tasks at a time.  [default: the cores of this machine; on a cluster what it has room for]",
    ),
    _option(CLUSTER, "--cpus-per-task", type=click.IntRange(min=1), help="Cores of a task.  [default: 1]"),
    _option(CLUSTER, "--mem-per-cpu", metavar="GB", type=click.IntRange(min=1), help="[default: 2]"),
    _option(SLURM, "--partition", help="[default: the cluster's]"),
    _option(SLURM, "--time", help="Limit of a task, such as 12:00:00.  [default: the partition's]"),
    _option(SLURM, "--sbatch", multiple=True, metavar="KEY=VALUE", help="Any other option of sbatch: account=lab"),
    _option(SLURM, "--env-command", help="What a job runs first.  [default: find this very environment]"),
    _option(RAY, "--address", help="Of the cluster.  [default: RAY_ADDRESS, else one that is started here]"),
)  # fmt: skip
ONLY_FOR = {
    "cpus_per_task": ("slurm", "ray"),
    "mem_per_cpu": ("slurm", "ray"),
    "partition": ("slurm",),
    "time": ("slurm",),
    "sbatch": ("slurm",),
    "env_command": ("slurm",),
    "address": ("ray",),
}


def takes_executor(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the parameters that `runner_of` takes, and `tasks`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def runner_of(executor: str, workers: int | None, given: dict[str, Any]) -> "Runner":
    """What runs the tasks.

    Raises:
        InputError: an option of another executor is given.
    """
    for name, executors in ONLY_FOR.items():
        if given[name] not in (None, ()) and executor not in executors:
            raise InputError(
                f"--{name.replace('_', '-')} goes with --executor {' or '.join(executors)}, not {executor}"
            )
    if executor == "local":
        from kisl_plugin.corpus.executors.local import LocalRunner

        return LocalRunner(workers or cores())
    return (_slurm if executor == "slurm" else _ray)(workers or -1, given)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _slurm(workers: int, given: dict[str, Any]) -> "Runner":
    from kisl_plugin.corpus.executors.slurm import SlurmOptions, SlurmRunner

    return SlurmRunner(
        SlurmOptions(
            partition=given["partition"],
            time=given["time"],
            cpus_per_task=given["cpus_per_task"] or 1,
            mem_per_cpu_gb=given["mem_per_cpu"] or 2,
            workers=workers,
            sbatch=dict(map(_pair, given["sbatch"])),
            env_command=given["env_command"],
        )
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(f"--sbatch {text}: expected KEY=VALUE, such as account=lab")
    return key.removeprefix("--"), value


def _ray(workers: int, given: dict[str, Any]) -> "Runner":
    from kisl_plugin.corpus.executors.ray import RayRunner

    return RayRunner(given["address"], workers, given["cpus_per_task"] or 1, given["mem_per_cpu"] or 2)
