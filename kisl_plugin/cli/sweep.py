"""`kisl sweep`: a grid of runs from one file, on this machine or on Slurm."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kisl_plugin.cli import Group
from kisl_plugin.errors import KislError
from kisl_plugin.fit.text import count
from kisl_plugin.progress import duration, text_table

if TYPE_CHECKING:
    from kisl_plugin.sweep import RunState, Sweep

FILE = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
OUT = click.option(
    "--out", default=".", show_default=True, type=click.Path(path_type=Path),
    help="Folder of configs/, runs/, results/ and report/.",
)  # fmt: skip
ONLY = click.option(
    "--only", multiple=True, metavar="PATTERN",
    help="Only the runs whose name matches: '*_f200_*'. May be repeated.",
)  # fmt: skip
CALIBRATE = click.option(
    "--calibrate/--no-calibrate", default=None,
    help="Measure the speed of this machine for some seconds.  [default: for engine: local]",
)  # fmt: skip


@click.group(cls=Group)
def sweep() -> None:
    """Train, export, probe and fit a grid of runs from one file.

    docs/sweep.md describes the file.

    Example: kisl sweep plan sweep.yml
    """


@sweep.command()
@FILE
@OUT
@ONLY
@CALIBRATE
def plan(file: Path, out: Path, only: tuple[str, ...], calibrate: bool | None) -> None:
    """Write the YAMLs, and show what the runs take and what is done.

    Nothing is started.

    Example: kisl sweep plan sweep.yml
    """
    from kisl_plugin.sweep import read_sweep

    _show_plan(read_sweep(file, out).only(only), calibrate)


@sweep.command()
@FILE
@OUT
@ONLY
@click.option("--jobs", type=click.IntRange(min=1), help="Runs side by side.  [default: as GPUs or CPU cores allow]")
@click.option("--retries", default=0, show_default=True, type=click.IntRange(min=0), help="Of a run that fails.")
@click.option("--slurm", is_flag=True, help="Submit what is left to Slurm, and return.")
@click.option("--dry-run", is_flag=True, help="Show the plan instead.")
def run(
    file: Path, out: Path, only: tuple[str, ...], jobs: int | None, retries: int, slurm: bool, dry_run: bool
) -> None:
    """Do what is left of a sweep, then fit.

    Interrupted anywhere, the same command goes on where it was. A run that fails does not stop the others; those that
    failed are listed at the end, and the exit status is 1.

    Example: kisl sweep run sweep.yml --jobs 2
    """
    from kisl_plugin.sweep import read_sweep, run_sweep

    grid = read_sweep(file, out).only(only)
    if dry_run:
        _show_plan(grid, None)
    elif slurm:
        from kisl_plugin.sweep.slurm import submit_sweep

        submitted, others = submit_sweep(grid, retries)
        click.echo(f"submitted {submitted} of {len(grid.runs)} runs{f'; {others}' if others else ''}")
        click.echo(f"kisl sweep status {file}")
    else:
        states = run_sweep(grid, jobs, retries)
        try:
            _fit(grid)
        finally:
            _show_failures(states)


@sweep.command()
@FILE
@OUT
@ONLY
def status(file: Path, out: Path, only: tuple[str, ...]) -> None:
    """Show where every run stands; exit status 1 if one failed.

    waiting, queued (in Slurm), running, trained, probed or failed.

    Example: kisl sweep status sweep.yml
    """
    from kisl_plugin.sweep import read_sweep, state_of, total_line
    from kisl_plugin.sweep.slurm import jobs_in_queue

    grid = read_sweep(file, out).only(only)
    jobs = jobs_in_queue(grid)
    states = [state_of(run, jobs) for run in grid.runs]
    rows = [("run", "state", "step", "tokens/s", "left")]
    for one in states:
        step = f"{one.step:,}/{one.run.train_iters:,}" if one.state != "probed" else ""
        left = duration(one.seconds_left) if one.seconds_left else ""
        rows.append((one.run.name, one.state, step, f"{one.rate:,.0f}" if one.rate else "", left))
    click.echo("\n".join(text_table(rows, "<<>>>")))
    click.echo(f"\n{total_line(states)}")
    _show_failures(states)


def _show_plan(grid: "Sweep", calibrate: bool | None) -> None:
    from kisl_plugin.sweep import disk_of, plan_sweep

    plan = plan_sweep(grid, grid.engine == "local" if calibrate is None else calibrate)

    def cells(name: Sequence[str], states: "Sequence[RunState]") -> list[str]:
        """The row of one model at one budget, or of all."""
        seconds = [plan.seconds_left(one) for one in states]
        hours = "?" if None in seconds else _figure(sum(one or 0 for one in seconds) / 3600)
        done = sum(one.state == "probed" for one in states)
        flops, left = sum(one.run.flops for one in states), sum(one.flops_left for one in states)
        disk = _bytes(sum(disk_of(one.run) for one in states))
        return [*name, str(len(states)), str(done), f"{flops:.3g}", f"{left:.3g}", hours, disk]

    table = [["model", "N", "D", "runs", "done", "FLOPs", "left", f"{plan.device}-hours", "disk"]]
    groups: dict[tuple[str, int, int], list[RunState]] = {}
    for state in plan.states:
        groups.setdefault((state.run.model, state.run.params, state.run.tokens), []).append(state)
    for (model, params, tokens), members in groups.items():
        table.append(cells((model, count(params), count(tokens)), members))
    if len(groups) > 1:
        table.append(cells(("all", "", ""), plan.states))
    click.echo("\n".join(text_table(table, "<>>>>>>>>")))
    click.echo(f"\n{plan.device}-hours of what is left: {plan.basis}")
    click.echo(f"disk: {_bytes(plan.free)} free")
    click.echo(f"YAMLs: {grid.out / 'configs'}")
    if plan.missing:
        click.echo("missing files, and the command that makes each:")
    for line in plan.missing:
        # The commands are to be copied: no word of them is broken.
        click.echo(textwrap.fill(line, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _bytes(value: float) -> str:
    size, unit = next((pair for pair in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if value >= pair[0]), (1e3, "KB"))
    return f"{value / size:.3g} {unit}"


def _fit(grid: "Sweep") -> None:
    """kisl-fit on all results of the folder."""
    from kisl_plugin.cli.fit import main as fit

    results = grid.out / "results"
    if results.is_dir():
        fit.main([str(results), "--out", str(grid.out / "report")], standalone_mode=False)


def _show_failures(states: Sequence["RunState"]) -> None:
    failed = [one for one in states if one.state == "failed"]
    lines = [f"{one.run.name}: {one.reason} ({one.run.log})" for one in failed]
    if lines:
        raise KislError("\n  ".join([f"{len(lines)} of {len(states)} runs failed:", *lines]))
