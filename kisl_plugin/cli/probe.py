"""`kisl probe`: many models in one process, in lm_eval's own result format."""

from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import KislError
from kisl_plugin.probe.run import HEADLINE, Scores, probe_models


@click.command(cls=Command)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for lm_eval's result files.")
@click.option("--tasks", default=HEADLINE, show_default=True, help="Tasks, separated by commas.")
@click.option("--batch-size", "--batch_size", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default=None, help="cpu, cuda:0, …; default: cuda if there is one.")
def probe(models: tuple[Path, ...], output: Path, tasks: str, batch_size: int, device: str | None) -> None:
    """Ask models for the facts they were trained on.

    Each MODEL is a Hugging Face folder. One with a run card is asked its own triples, another one the bundled facts.
    Prints a line per model and task: the share of right answers (or bits per byte), and in brackets the number of
    items. The group kisl asks in three forms and measures the loss on held-out text. If a model fails, its error is
    printed at the end, the exit status is not 0, and the other models are still asked.

    Example: kisl probe kisl-demo/runs/f040/hf kisl-demo/runs/f080/hf --output results
    """
    names = [task.strip() for task in tasks.split(",") if task.strip()]
    width = max(len(str(model)) for model in models)
    failures: list[tuple[str, int]] = []  # not the errors themselves, which would keep a model in memory

    def show(model: Path, scores: Scores) -> None:
        for task, metrics in scores.items():
            parts = [f"{name} {value:.3f} ({count:,})" for name, (value, count) in metrics.items()]
            click.echo("  ".join([str(model).ljust(width), task.ljust(max(map(len, scores))), *parts]))

    def note(_: Path, error: KislError) -> None:
        failures.append((str(error), error.exit_status))

    probe_models(models, output, names, batch_size, device, on_done=show, on_failed=note)
    for message, _ in failures:
        click.echo(f"Error: {message}", err=True)
    if failures:  # status 2 only if every failure is a wrong input
        click.get_current_context().exit(min(status for _, status in failures))
