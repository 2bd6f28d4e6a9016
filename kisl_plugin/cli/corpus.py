"""The commands of `kisl corpus`: train a tokenizer, build the background text, and audit it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kisl_plugin.cli import Command, Group
from kisl_plugin.cli.audit import audit
from kisl_plugin.errors import InputError, needs_extra
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import PAIR, MatchRules

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner

__all__ = ["corpus"]

_FORMATS = """\b
A document is
  a .txt file, whole;
  the key "text" of a line of .jsonl or .ndjson, or of
    .jsonl.gz, .ndjson.gz, .json.gz, or .zst of these;
  the column "text" of a row of .parquet.

Its id is the key or column "id", else file and line. Folders are searched for such files, on this machine and behind
URLs. hf:// reads the Hugging Face hub, s3:// needs the extra s3 and AWS's usual variables (AWS_PROFILE,
AWS_ENDPOINT_URL); other URLs are opened by fsspec."""

_path = click.Path(path_type=Path)
_count = click.IntRange(min=1)
_text_column = click.option(
    "--text-column", default="text", show_default=True, metavar="NAME", help="Key or column of the texts."
)
_SLURM_OR_RAY, _SLURM, _RAY = ("slurm", "ray"), ("slurm",), ("ray",)
_EXECUTORS_OF = {
    "cpus_per_task": _SLURM_OR_RAY, "mem_per_cpu": _SLURM_OR_RAY, "partition": _SLURM, "time": _SLURM,
    "sbatch": _SLURM, "address": _RAY,
}  # fmt: skip


def _takes_text(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameters `inputs` and `more`, strings that together are what find_files takes."""
    inputs = click.option(
        "--input", "inputs", multiple=True, required=True, metavar="FILE...",
        help="Text files, folders, patterns; hf://datasets/OWNER/NAME/…, s3://BUCKET/…",
    )  # fmt: skip
    # A shell expands --input data/*.txt: the first file is the option's value, the others are arguments.
    return inputs(click.argument("more", nargs=-1, metavar="")(command))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _runner_of(executor: str, workers: int | None, options: dict[str, Any]) -> "Runner":
    """What runs the tasks; `options` are those that belong to one executor.

    Raises:
        InputError: an option of another executor was passed, or a library is missing.
    """
    for name, value in options.items():
        if value and executor not in _EXECUTORS_OF[name]:
            option, executors = f"--{name.replace('_', '-')}", " or ".join(_EXECUTORS_OF[name])
            raise InputError(f"{option} is an option of --executor {executors}, not of {executor}")
    with needs_extra("corpus", "kisl corpus build"):
        from kisl_plugin.corpus.executors import LocalRunner, RayRunner, SlurmRunner
    cpus, memory = options["cpus_per_task"] or 1, options["mem_per_cpu"] or 2
    if executor == "local":
        return LocalRunner(workers or _cores())
    if executor == "ray":
        return RayRunner(options["address"], workers or -1, cpus, memory)
    sbatch = {}
    for item in options["sbatch"]:
        key, separator, value = item.partition("=")
        if not key or not separator:
            raise InputError(f"--sbatch {item}: expected KEY=VALUE, such as account=lab")
        sbatch[key.removeprefix("--")] = value
    return SlurmRunner(options["partition"], options["time"], cpus, memory, workers or -1, sbatch)


@click.command(cls=Command, epilog=_FORMATS)
@_takes_text
@click.option("--triples", required=True, help="The facts under test: a file, a bundled name; none keeps everything.")
@click.option("--tokenizer", required=True, type=_path, help="A tokenizer.json.")
@click.option("--output", required=True, type=_path, help="Where .bin, .idx, … are appended: data_path in the YAML.")
@click.option(
    "--match",
    default=PAIR,
    show_default=True,
    help="pair: subject and object of a fact; subject: stricter, the subject alone; or a matcher that a plugin adds.",
)
@click.option("--min-length", default=4, show_default=True, type=_count, help="Shorter aliases are ignored.")
@click.option("--stop-list", metavar="FILE", type=_path, help="Aliases, one a line, that are ignored too.")
@_text_column
@click.option(
    "--skip-bad-documents", is_flag=True, help="Leave out documents that cannot be read; OUTPUT.bad.txt lists them."
)
@click.option("--skip-bad-rows", is_flag=True, help="Leave out rows of --triples that are wrong, and list them.")
@click.option("--weighted", is_flag=True, help="Do not merge the shards: list them with weights in OUTPUT.yml.")
@click.option("--force", is_flag=True, help="Replace an existing output, or start a build again from the beginning.")
@click.option(
    "--executor",
    default="local",
    show_default=True,
    type=click.Choice(["local", "slurm", "ray"]),
    help="Where it runs: processes of this machine, or a cluster.",
)
@click.option(
    "--tasks",
    type=_count,
    help="Number of shards; the result is the same.  [default and at most: one a piece (a file or 128 MB of Parquet), "
    "1000]",
)
@click.option(
    "--workers", type=_count, help="Tasks at a time.  [default: the cores of this machine; on a cluster no limit]"
)
@click.option("--cpus-per-task", type=_count, help="Slurm, Ray: cores of a task.  [default: 1]")
@click.option("--mem-per-cpu", type=_count, metavar="GB", help="Slurm, Ray: memory.  [default: 2]")
@click.option("--partition", help="Slurm.  [default: the cluster's]")
@click.option("--time", help="Slurm: limit of a task, such as 12:00:00.  [default: the partition's]")
@click.option("--sbatch", multiple=True, metavar="KEY=VALUE", help="Slurm: any other option of sbatch: account=lab")
@click.option("--address", help="Ray: HOST:PORT.  [default: RAY_ADDRESS, else a Ray started here]")
def build(
    inputs: tuple[str, ...],
    more: tuple[str, ...],
    triples: str,
    tokenizer: Path,
    output: Path,
    match: str,
    min_length: int,
    stop_list: Path | None,
    text_column: str,
    skip_bad_documents: bool,
    skip_bad_rows: bool,
    weighted: bool,
    force: bool,
    executor: str,
    tasks: int | None,
    workers: int | None,
    **executor_options: Any,
) -> None:
    """Remove documents that state a fact, and tokenise the others.

    A document states a fact when it names its subject and its object, by label or alias, as whole words. Every other
    document ends in <|endoftext|>. The removed ones go to OUTPUT.excluded/, the counts to OUTPUT.triples.csv.

    After an interruption the same command continues with the shards that are not finished. The result does not depend
    on tasks, workers or executor.

    Example: kisl corpus build --input data/fineweb_edu --triples wikidata_six
    --tokenizer data/tokenizer.json --output data/fineweb_edu_text_document

    Example: kisl corpus build --input hf://datasets/HuggingFaceFW/fineweb-edu/sample/100BT --triples wikidata_six
    --tokenizer data/tokenizer.json --output data/fineweb_edu_text_document
    --executor slurm --partition cpu --time 12:00:00 --workers 64
    """
    from kisl_plugin.corpus.build import BuildOptions, build_corpus

    aliases: list[str] = []
    if stop_list:
        try:
            aliases = [line.strip() for line in stop_list.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{stop_list}: cannot be read ({error}); expected UTF-8 text, one alias a line") from None
    runner = _runner_of(executor, workers, executor_options)
    local = executor == "local"
    options = BuildOptions(
        inputs=[*inputs, *more],
        triples=triples,
        tokenizer=tokenizer,
        output=output,
        rules=MatchRules(match=match, min_length=min_length, stop_list=tuple(filter(None, aliases))),
        tasks=tasks,
        workers=(workers or _cores()) if local else 1,
        cores=_cores() if local else executor_options["cpus_per_task"] or 1,
        weighted=weighted,
        force=force,
        skip_bad_rows=skip_bad_rows,
        skip_bad_documents=skip_bad_documents,
        text_column=text_column,
    )
    result = build_corpus(options, runner)
    if isinstance(result, list):  # a cluster goes on with it
        click.echo("\n".join(result))
        return
    files = "_*.bin, .idx, .yml" if weighted else ".bin, .idx"
    click.echo(f"{output}{files}, .json · {result.documents:,} documents · {result.tokens:,} tokens")
    table = file_of(output, ".triples.csv")
    if result.left_out:
        share = result.left_out / (result.documents + result.left_out)
        by_relation = ", ".join(f"{relation} {count:,}" for relation, count in result.relations.items())
        click.echo(
            f"{result.left_out:,} removed ({share:.2%}) because they state a fact: {by_relation} · {output}.excluded/, "
            f"{table}"
        )
    elif triples != "none":
        click.echo("no document states a fact")
    if result.empty:
        click.echo(f"{result.empty:,} empty documents skipped")
    if result.bad:
        click.echo(f"{result.bad:,} documents left out that could not be read: {file_of(output, '.bad.txt')}")
    if result.unsearchable:
        click.echo(f"{result.unsearchable:,} triples cannot be searched for everywhere: {table}, column unsearchable")


@click.group(cls=Group)
def corpus() -> None:
    """Build a corpus without the facts under test, and count in it.

    Example: kisl corpus build --help
    """


@corpus.command(epilog=_FORMATS)
@_takes_text
@_text_column
@click.option("--skip-bad-documents", is_flag=True, help="Leave out documents that cannot be read, and count them.")
@click.option("--output", required=True, type=_path, help="The file, such as data/tokenizer.json.")
@click.option("--vocab-size", default=32_000, show_default=True, type=_count, help="Tokens in all.")
@click.option(
    "--sample",
    default=4000,
    show_default=True,
    metavar="MB",
    type=_count,
    help="Of larger inputs train on so many megabytes of text, taken evenly from all of them.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
def tokenizer(
    inputs: tuple[str, ...],
    more: tuple[str, ...],
    text_column: str,
    skip_bad_documents: bool,
    output: Path,
    vocab_size: int,
    sample: int,
    force: bool,
) -> None:
    """Train a byte-level BPE tokenizer, for HFTokenizer's vocab_file.

    <|endoftext|> and <|padding|> are among its tokens. The same text gives the same bytes.

    Example: kisl corpus tokenizer --input data/text.jsonl --output data/tokenizer.json

    Example: kisl corpus tokenizer --sample 2000 --output data/tokenizer.json
    --input hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT
    """
    from kisl_plugin.corpus.inputs import MEGABYTE, check_writable, cut_into_pieces, find_files
    from kisl_plugin.corpus.tokenizer import sample_texts, train_tokenizer

    if output.exists() and not force:
        raise InputError(f"{output}: already exists; choose another --output, or --force to replace it")
    check_writable(output)
    pieces = cut_into_pieces(find_files([*inputs, *more], text_column))
    bad: list[InputError] = []
    texts = sample_texts(pieces, sample * MEGABYTE, bad.append if skip_bad_documents else None)
    reached = train_tokenizer(texts, vocab_size, output).get_vocab_size()
    click.echo(f"{output} · {reached:,} tokens")
    if bad:
        click.echo(f"{len(bad):,} documents left out that could not be read, the first: {bad[0]}")
    whole = sum(piece.size for piece in pieces) // MEGABYTE
    if whole > sample:
        click.echo(f"trained on about {sample:,} of {whole:,} MB, taken evenly; --sample MB changes how many")
    if reached < vocab_size:
        click.echo(f"--vocab-size is {vocab_size:,}, but the text has no more pairs to merge; more text gives more")


corpus.add_command(build)
corpus.add_command(audit)
