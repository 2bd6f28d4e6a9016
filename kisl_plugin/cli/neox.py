"""`kisl neox` installs and checks GPT-NeoX, which `deepy.py` trains with; `kisl export` converts its checkpoints."""

import platform
from pathlib import Path

import click

from kisl_plugin import __version__
from kisl_plugin.cli import Command, Group
from kisl_plugin.errors import KislError


@click.command(cls=Command)
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The training's tokenizer.json, if it has moved.")
@click.option("--any-commit", is_flag=True, help="Also if an untested commit of GPT-NeoX trained it.")
@click.option("--verify", is_flag=True, help="Compare logits with those that GPT-NeoX computes from the checkpoint.")
@click.option("--push-to-hub", metavar="REPO", help="Upload OUT to this model of the Hugging Face hub, made private.")
def export(
    checkpoint: Path, out: Path, tokenizer: Path | None, any_commit: bool, verify: bool, push_to_hub: str | None
) -> None:
    """Write a checkpoint of GPT-NeoX as a Hugging Face Llama folder.

    CHECKPOINT is SAVE/global_stepN, or SAVE (then the latest). OUT gets the weights, the tokenizer, the run card with
    its triples, and a model card, into which kisl probe writes the scores; an earlier export in its place is replaced.

    Example: kisl export checkpoints/1b_f200 1b_f200
    """
    from kisl_plugin.huggingface import push_to_hub as upload
    from kisl_plugin.neox.export import export_checkpoint
    from kisl_plugin.neox.verify import TOLERANCE
    from kisl_plugin.runcard import CARD_NAME

    done = export_checkpoint(checkpoint, out, tokenizer, any_commit=any_commit, verify=verify)
    click.echo(
        f"{done.folder}: {done.parameters:,} parameters in {done.dtype}, iteration {done.iteration:,} "
        f"of {done.checkpoint}"
    )
    if done.difference is not None:
        click.echo(
            f"verified: no logit differs by more than {done.difference:.2g} from GPT-NeoX's ({TOLERANCE:g} allowed)"
        )
    if done.card is None:
        click.echo(f"{done.checkpoint} has no {CARD_NAME}, so the export has none: kisl-fit cannot place its results")
    if push_to_hub:
        click.echo(upload(done.folder, push_to_hub))


@click.group(cls=Group)
def neox() -> None:
    """Install GPT-NeoX and show what is missing.

    GPT-NeoX is on no package registry.

    Example: kisl neox install
    """


@neox.command()
@click.option(
    "--source", metavar="URL|PATH", help="Where to clone from: GPT-NeoX's public address, or any clone or mirror."
)
@click.option("--ref", metavar="REF", help="A full hash, tag or branch; by default the tested commit.")
def install(source: str | None, ref: str | None) -> None:
    """Clone GPT-NeoX at the tested commit and compile its helpers.

    The clone is in the cache folder. A second call changes nothing that is right already. Where GPT_NEOX_DIR names a
    clone of yours, only its helpers are compiled.

    Example: kisl neox install --source /mnt/mirrors/gpt-neox.git
    """
    from kisl_plugin.neox import install as host

    folder = host.install_neox(source, ref)
    missing = host.missing_packages()
    if missing:
        click.echo(f"packages are missing ({', '.join(missing)}): {host.INSTALL_PACKAGES}")
    compiled = host.ensure_helpers(folder)
    click.echo(f"data helpers {'compiled' if compiled else 'already compiled'}: {host.helpers_file(folder).name}")
    if not missing:
        click.echo("GPT-NeoX is ready; kisl neox check lists what was found")


@neox.command()
def check() -> None:
    """Show which GPT-NeoX is used and what is missing.

    Exit status 1 where training cannot start: the last line gives the reason and what to do.
    """
    from kisl_plugin.neox import install as host

    missing = host.missing_packages()
    click.echo(f"kisl       {__version__}, Python {platform.python_version()} ({platform.machine()})")
    click.echo(f"packages   {'missing: ' + ', '.join(missing) if missing else 'all that training needs'}")
    folder = host.find_neox()
    commit = host.commit_of(folder)
    tested = "the tested one" if commit == host.TESTED_COMMIT else f"tested was {host.TESTED_COMMIT}"
    click.echo(f"GPT-NeoX   {folder}\ncommit     {commit or 'unknown: not a git clone'}\n           {tested}")
    reason = host.why_unusable(folder)
    click.echo(f"helpers    {reason or 'compiled for this Python'}")
    if missing:
        raise KislError(f"packages are missing ({', '.join(missing)}): {host.INSTALL_PACKAGES}")
    failure = host.import_failure(folder)
    if failure is not None:
        raise KislError(f"GPT-NeoX cannot be imported: {failure}")
    if reason is not None:
        raise KislError(f"the data helpers are {reason}: {host.INSTALL}")
