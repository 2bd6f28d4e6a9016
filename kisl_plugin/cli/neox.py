"""`kisl neox` installs and checks GPT-NeoX, which `deepy.py` trains with; `kisl export` converts its checkpoints."""

import platform
from pathlib import Path

import click

from kisl_plugin import __version__
from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import KislError


@click.command(cls=Command)
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The training's tokenizer.json, if it has moved.")
def export(checkpoint: Path, out: Path, tokenizer: Path | None) -> None:
    """Write a checkpoint of GPT-NeoX as a Hugging Face Llama folder.

    CHECKPOINT is SAVE/global_stepN, or SAVE (then the latest). OUT gets the weights, the tokenizer, and the run card
    with its triples; an earlier export in its place is replaced.

    Example: kisl export checkpoints/1b_f200 1b_f200
    """
    from kisl_plugin.neox.export import export_checkpoint
    from kisl_plugin.runcard import CARD_NAME

    done = export_checkpoint(checkpoint, out, tokenizer)
    click.echo(
        f"{done.folder}: {done.parameters:,} parameters in {done.dtype}, iteration {done.iteration:,} "
        f"of {done.checkpoint}"
    )
    if done.card is None:
        click.echo(f"{done.checkpoint} has no {CARD_NAME}, so the export has none: kisl-fit cannot place its results")


@click.group()
def neox() -> None:
    """Install GPT-NeoX and show what is missing.

    GPT-NeoX is on no package registry.

    Example: kisl neox install
    """


@neox.command(cls=Command)
@click.option(
    "--source", metavar="URL|PATH", help="Where to clone from: GPT-NeoX's public address, or any clone or mirror."
)
@click.option("--ref", metavar="COMMIT", help="A commit, tag or branch; by default the tested commit.")
def install(source: str | None, ref: str | None) -> None:
    """Clone GPT-NeoX at the tested commit and compile its helpers.

    The clone is in the cache folder. A second call changes nothing that is right already. Where GPT_NEOX_DIR names a
    clone of yours, only its helpers are compiled.

    Example: kisl neox install --source /mnt/mirrors/gpt-neox.git
    """
    from kisl_plugin.neox import install as host

    folder = host.install_neox(source, ref, click.echo)
    missing = [name for name in host.NEEDED if host.installed_version(name) is None]
    if missing:
        click.echo(f"packages are missing ({', '.join(missing)}): {host.INSTALL_PACKAGES}")
    compiled = host.ensure_helpers(folder)
    click.echo(f"data helpers {'compiled' if compiled else 'already compiled'}: {host.helpers_file(folder).name}")
    if not missing:
        click.echo("GPT-NeoX is ready; kisl neox check lists what was found")


@neox.command(cls=Command)
def check() -> None:
    """Show which GPT-NeoX is used and what is missing.

    Exit status 1 where training cannot start: the last line gives the reason and what to do.
    """
    from kisl_plugin.neox import install as host

    def row(name: str, value: str) -> None:
        click.echo(f"{name:<11}{value}".rstrip())

    row("kisl", __version__)
    row("Python", f"{platform.python_version()} ({platform.machine()})")
    for title, packages in (("needed to train", host.NEEDED), ("optional", host.OPTIONAL)):
        click.echo(f"\n{title}")
        for name in packages:
            click.echo(f"  {name:<20}{host.installed_version(name) or 'absent'}")
    click.echo()
    missing = [name for name in host.NEEDED if host.installed_version(name) is None]
    folder = host.find_neox()
    row("GPT-NeoX", str(folder))
    row("found by", f"${host.VARIABLE}" if host.own_folder() else host.INSTALL)
    commit = host.commit_of(folder)
    changed = host.changed_files(folder) if commit else []
    row("commit", commit or "unknown: the folder is not a git clone")
    row("", "the tested one" if commit == host.TESTED_COMMIT else f"tested was {host.TESTED_COMMIT}")
    if changed:
        row("changed", ", ".join(changed[:3]) + (" …" if changed[3:] else ""))
    reason = host.why_unusable(folder)
    row("helpers", reason or "compiled for this Python")
    if missing:
        raise KislError(f"packages are missing ({', '.join(missing)}): {host.INSTALL_PACKAGES}")
    failure = host.import_failure(folder)
    row("imports", "fail" if failure else "work")
    if failure is not None:
        raise KislError(f"GPT-NeoX cannot be imported: {failure}")
    if reason is not None:
        raise KislError(f"the data helpers are {reason}: {host.INSTALL}")
