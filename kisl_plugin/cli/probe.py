"""`kisl probe`: many models in one process, in lm_eval's own result format."""

from pathlib import Path

import click

from kisl_plugin.cli import Command
from kisl_plugin.errors import KislError
from kisl_plugin.probe.run import HEADLINE, Scores, probe_models

_path = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=_path)
@click.option("--output_path", "output", required=True, type=_path, help="Folder for lm_eval's result files.")
@click.option("--tasks", default=HEADLINE, show_default=True, help="Tasks, separated by commas.")
@click.option("--batch_size", "--batch-size", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--device", help="cpu, cuda:0, ….  [default: cuda if there is one]")
@click.option("--dtype", default="float32", show_default=True, help="The type in which models compute.")
@click.option("--model_args", "--model-args", default="", metavar="A=B,…", help="lm_eval's: revision=step1000, peft=…")
@click.option("--limit", type=float, help="The first N items, or a share of them below 1; kisl-fit refuses parts.")
@click.option("--triples", metavar="SOURCE", help="Ask these facts: a file, or a bundled name.")
@click.option("--force", is_flag=True, help="Ask models again that have results.")
def probe(
    models: tuple[Path, ...],
    output: Path,
    tasks: str,
    batch_size: int,
    device: str | None,
    dtype: str,
    model_args: str,
    limit: float | None,
    triples: str | None,
    force: bool,
) -> None:
    """Ask models for the facts they were trained on.

    Each MODEL is a Hugging Face folder, or a name on the hub. One with a run card is asked its own triples, another one
    the bundled facts. Prints a line per model and task: the share of right answers (or bits per byte), and in brackets
    the number of items. The group kisl asks in three forms and measures the loss on held-out text.

    A model that has these results in the folder already is skipped. If a model fails, its error is printed, the exit
    status is not 0, and the other models are still asked.

    Example: kisl probe runs/*/hf --output_path results
    """
    names = [task.strip() for task in tasks.split(",") if task.strip()]
    width = max(len(str(model)) for model in models)
    statuses: list[int] = []

    def show(model: Path, scores: Scores) -> None:
        for task, metrics in scores.items():
            shares = {name: f"{name} {value:.3f} ({count:,})" for name, (value, count) in metrics.items()}
            ties, _ = metrics.get("ties", (0, 0))
            shares["ties"] = f"{ties:.0f} ties" if ties else ""
            click.echo(
                "  ".join([str(model).ljust(width), task.ljust(max(map(len, scores))), *shares.values()]).rstrip()
            )

    def report(_: Path, error: KislError) -> None:
        click.echo(f"Error: {error}", err=True)
        statuses.append(error.exit_status)

    def skip(model: Path, file: Path) -> None:
        click.echo(f"{model}: has results, {file}; --force asks again")

    probe_models(
        models,
        output,
        names,
        batch_size,
        device,
        on_done=show,
        on_failed=report,
        on_skipped=None if force else skip,
        limit=limit,
        model_args=f"dtype={dtype},{model_args}",
        triples=triples,
    )
    if statuses:  # status 2 only if every failure is a wrong input
        click.get_current_context().exit(min(statuses))
