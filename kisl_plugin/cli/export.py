"""`kisl export`: a checkpoint of GPT-NeoX for lm_eval and everything else that reads Hugging Face folders."""

from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.neox.export import export_checkpoint
from kisl_plugin.runcard import CARD_NAME


@click.command(cls=Command)
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the weights written; if left out, as they are stored.",
)
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The training's tokenizer.json, if it has moved.")
def export(checkpoint: Path, out: Path, dtype: str | None, tokenizer: Path | None) -> None:
    """Write a checkpoint of GPT-NeoX as a Hugging Face Llama folder.

    CHECKPOINT is SAVE/global_stepN, or SAVE (then the latest). OUT gets the weights, the tokenizer, and the run card
    with its triples; an earlier export in its place is replaced.

    Example: kisl export checkpoints/1b_f200 1b_f200
    """
    done = export_checkpoint(checkpoint, out, dtype, tokenizer)
    click.echo(
        f"{done.folder}: {done.parameters:,} parameters in {done.dtype}, iteration {done.iteration:,} "
        f"of {done.checkpoint}"
    )
    if done.card is None:
        click.echo(f"{done.checkpoint} has no {CARD_NAME}, so the export has none: kisl-fit cannot place its results")
