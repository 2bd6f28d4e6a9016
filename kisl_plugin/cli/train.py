"""`kisl train`: a GPT-NeoX YAML with an engine of this package."""

import platform
from collections.abc import Iterable
from pathlib import Path

import click

from kisl_plugin import __version__
from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.neox.export import export_checkpoint
from kisl_plugin.runcard import CARD_NAME

# `kisl train`: a GPT-NeoX YAML with an engine of this package.


@click.command(cls=Command)
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--engine", default="local", show_default=True, help="Which engine trains: local, or a plugin's.")
def train(configs: tuple[Path, ...], engine: str) -> None:
    """Train a model from GPT-NeoX YAMLs, on this machine's CPU or one GPU.

    The finished model is written to SAVE/hf, SAVE being the YAML's key; with `load` the run resumes from there.

    Example: kisl train neox_configs/demo.yml
    """
    from kisl_plugin.hookspecs import manager

    found = manager().hook.kisl_engine(name=engine)
    if found is None:
        raise InputError(f"--engine {engine!r}: no such engine; built in is local, plugins may add others")
    click.echo(found.train(list(configs)))


# `kisl export`: a checkpoint of GPT-NeoX for lm_eval and everything else that reads Hugging Face folders.


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


# `kisl neox`: GPT-NeoX, the host that `deepy.py` trains with.

WIDTH = 78


@click.group()
def neox() -> None:
    """Install GPT-NeoX, which no package registry has, and see what is there and what is missing.

    Example: kisl neox install
    """


@neox.command(cls=Command)
@click.option(
    "--source", metavar="URL|PATH", help="Where to clone from: GPT-NeoX's public address, or any clone or mirror."
)
@click.option(
    "--ref", metavar="COMMIT", help="A commit, tag or branch; if left out, the commit that kisl was tested with."
)
def install(source: str | None, ref: str | None) -> None:
    """Clone GPT-NeoX at the tested commit into the cache folder and compile its data helpers.

    A second call changes nothing that is right already. Where GPT_NEOX_DIR names a clone of yours, only its
    helpers are compiled.

    Example: kisl neox install --source /mnt/mirrors/gpt-neox.git
    """
    from kisl_plugin.neox.home import GET_NEEDED, ensure_helpers, helpers_file, missing
    from kisl_plugin.neox.install import set_up

    folder = set_up(source, ref, click.echo)
    absent = missing()
    if absent:
        _tell(f"still missing in this environment: {', '.join(absent)}: {GET_NEEDED}")
    compiled = ensure_helpers(folder)
    click.echo(f"data helpers {'compiled' if compiled else 'already compiled'}: {helpers_file(folder).name}")
    if not absent:
        click.echo("nothing is missing; kisl neox check says more")


@neox.command(cls=Command)
def check() -> None:
    """Say which GPT-NeoX was found, at which commit, and which packages are there.

    Exit status 1 where training cannot start: the last line says why, and what to do.
    """
    from kisl_plugin.neox.home import (
        GET_NEEDED,
        INSTALL,
        NEEDED,
        OPTIONAL,
        TOOLS,
        find_neox,
        import_failure,
        missing,
        why_unusable,
    )

    _row("kisl", __version__)
    _row("Python", f"{platform.python_version()} ({platform.machine()})")
    click.echo("\nneeded to train")
    _show((package.distribution, package.version, "") for package in NEEDED)
    absent = missing()
    if absent:
        click.echo(f"  what is absent: {GET_NEEDED}")
    click.echo("\noptional, and what needs it")
    _show((package.distribution, package.version, package.without) for package in (*TOOLS, *OPTIONAL))
    click.echo()
    if "torch" not in absent:
        _show_device()
    folder = find_neox()
    _show_neox(folder)
    if absent:
        raise KislError(f"missing: {', '.join(absent)}; {GET_NEEDED}")
    failure = import_failure(folder)
    _row("imports", "fail" if failure else "work")
    if failure is not None:
        raise KislError(f"GPT-NeoX cannot be imported here: {failure}")
    if why_unusable(folder) is not None:
        raise KislError(f"the data helpers are {why_unusable(folder)}: {INSTALL}")


def _show_neox(folder: Path) -> None:
    from kisl_plugin.neox.home import TESTED_COMMIT, VARIABLE, changed_files, commit_of, named_folder, why_unusable

    _row("GPT-NeoX", str(folder))
    _row("found by", f"${VARIABLE}" if named_folder() else "kisl neox install")
    commit, changed = commit_of(folder), changed_files(folder)
    if commit == TESTED_COMMIT:
        _row("commit", f"{commit} (the tested one)")
    else:
        _row("commit", commit or "unknown: the folder is no git clone")
        _row("", f"not the tested {TESTED_COMMIT}")
    if changed:
        _row("changed", f"{', '.join(changed[:3])}{' …' if changed[3:] else ''} (differs from that commit)")
    reason = why_unusable(folder)
    _row("helpers", reason or "compiled for this Python")


def _show_device() -> None:
    try:
        import torch
    except (ImportError, OSError) as error:  # a CUDA build without CUDA's libraries
        raise KislError(f"torch cannot be imported: {' '.join(str(error).split())}") from None
    count = torch.cuda.device_count()
    gpus = f"{count} GPU{'s' if count > 1 else ''}: {torch.cuda.get_device_name(0)}" if count else ""
    _row("trains on", gpus or "the CPU: no GPU is seen")
    _row("torch for", f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone")


def _show(rows: Iterable[tuple[str, str | None, str]]) -> None:
    for name, version, note in rows:
        click.echo(f"  {name:<20}{version or 'absent':<15}{note}".rstrip())


def _row(name: str, value: str) -> None:
    click.echo(f"{name:<11}{value}".rstrip())


def _tell(text: str) -> None:
    click.echo(click.wrap_text(text, width=WIDTH, subsequent_indent="  "))


# `kisl configs`: the grid of YAMLs.


@click.group()
def configs() -> None:
    """Show or write the grid of GPT-NeoX YAMLs: sizes 137m to 3b, F = 0 to 5000.

    Example: kisl configs write
    """


@configs.command("list", cls=Command)
def list_runs() -> None:
    """Print every run with its parameters, tokens, compute and injected share.

    Example: kisl configs list
    """
    from kisl_plugin.grid import listing

    click.echo(listing())


@configs.command(cls=Command)
@click.option("--out", default="neox_configs", show_default=True, type=click.Path(path_type=Path), help="Folder.")
def write(out: Path) -> None:
    """Write the YAMLs and their README from the tables; files of the same names are replaced.

    Example: kisl configs write
    """
    from kisl_plugin.grid import write_configs

    total, changed = write_configs(out)
    click.echo(f"{out} · {total} files, {changed} of them new or changed")
