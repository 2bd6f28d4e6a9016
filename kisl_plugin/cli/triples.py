"""`kisl triples`: what can be injected of a file, as a file of its own."""

from pathlib import Path

import click

from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE")
@click.argument("out", metavar="OUT.jsonl", type=click.Path(path_type=Path))
def triples(source: str, out: Path) -> None:
    """Write triples without the rows that are wrong.

    SOURCE is a file (JSONL, CSV, TSV, Parquet), a bundled name or a data set of the Hugging Face hub. What is left out
    is counted and listed. OUT.jsonl can be named wherever triples are: in a kisl section, as --triples.

    Example: kisl triples facts.csv facts.jsonl
    """
    from kisl_plugin.triples import read_triples, triples_to_jsonl

    if out.suffix != ".jsonl":
        raise InputError(f"{out}: expected a name that ends in .jsonl")
    if out.exists():
        raise InputError(f"{out}: exists already; give another name, or delete it")
    kept = read_triples(source, skip_bad_rows=True)
    try:
        write_atomically(out, triples_to_jsonl(kept))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    click.echo(f"{out}: {len(kept):,} triples")
