"""The commands of `kisl corpus`: train a tokenizer, build the background text, and audit it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kisl_plugin.cli.audit import audit
from kisl_plugin.cli.errors import Command, GroupedCommand, GroupedOption
from kisl_plugin.errors import InputError, needs_extra
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import PAIR, MatchRules
from kisl_plugin.progress import duration

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner

__all__ = ["corpus"]

_MEGABYTE = 1_000_000
_VOCABULARY_MULTIPLE = 128  # make_vocab_size_divisible_by, GPT-NeoX's default
_FORMATS = """\b
A document is
  a .txt file, whole;
  the key "text" of a line of .jsonl,
    .jsonl.gz or .jsonl.zst;
  the column "text" of a row of .parquet.

Its id is the key or column "id", else file and line. Folders are searched for such files, on this machine and behind
URLs. hf:// reads the Hugging Face hub, s3:// needs the extra s3 and AWS's usual variables (AWS_PROFILE,
AWS_ENDPOINT_URL); other URLs are opened by fsspec."""

_path = click.Path(path_type=Path)


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


# Where the tasks of a build run: the executors that an option belongs to, its group in the help, and itself.
_EXECUTOR_OPTIONS: tuple[tuple[tuple[str, ...], str, str, dict[str, Any]], ...] = (
    ((), "Where it runs", "--executor", {
        "default": "local", "show_default": True, "type": click.Choice(["local", "slurm", "ray"]),
        "help": "Processes of this machine, or a cluster.",
    }),
    ((), "Where it runs", "--tasks", {
        "type": click.IntRange(min=1),
        "help": "Number of shards; the result is the same.  [default and at most: one a piece (a file or 128 MB of "
        "Parquet), 1000]",
    }),
    ((), "Where it runs", "--workers", {
        "type": click.IntRange(min=1),
        "help": "Tasks at a time.  [default: the cores of this machine; on a cluster no limit]",
    }),
    (("slurm", "ray"), "Slurm and Ray", "--cpus-per-task", {
        "type": click.IntRange(min=1), "help": "Cores of a task.  [default: 1]",
    }),
    (("slurm", "ray"), "Slurm and Ray", "--mem-per-cpu", {
        "type": click.IntRange(min=1), "metavar": "GB", "help": "[default: 2]",
    }),
    (("slurm",), "Slurm", "--partition", {"help": "[default: the cluster's]"}),
    (("slurm",), "Slurm", "--time", {"help": "Limit of a task, such as 12:00:00.  [default: the partition's]"}),
    (("slurm",), "Slurm", "--sbatch", {
        "multiple": True, "metavar": "KEY=VALUE", "help": "Any other option of sbatch: account=lab",
    }),
    (("slurm",), "Slurm", "--env-command", {
        "help": "Shell command that a job runs first.  [default: put this environment on the PATH]",
    }),
    (("ray",), "Ray", "--address", {"help": "HOST:PORT.  [default: RAY_ADDRESS, else a Ray started here]"}),
)  # fmt: skip


def _takes_executor(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options by which `_runner_of` chooses, and `tasks`."""
    for _, group, name, settings in reversed(_EXECUTOR_OPTIONS):
        command = click.option(name, cls=GroupedOption, group=group, **settings)(command)
    return command


def _runner_of(executor: str, workers: int | None, options: dict[str, Any]) -> "Runner":
    """What runs the tasks; `options` are those that belong to one executor.

    Raises:
        InputError: an option of another executor was passed, or a library is missing.
    """
    for executors, _, name, _ in _EXECUTOR_OPTIONS:
        value = options.get(name.removeprefix("--").replace("-", "_"))
        if executors and value not in (None, ()) and executor not in executors:
            raise InputError(f"{name} is an option of --executor {' or '.join(executors)}, not of {executor}")
    with needs_extra("corpus", "kisl corpus build"):
        from kisl_plugin.corpus.executors import LocalRunner, RayRunner, SlurmRunner
    if executor == "local":
        return LocalRunner(workers or _cores())
    cpus, memory = options["cpus_per_task"] or 1, options["mem_per_cpu"] or 2
    if executor == "ray":
        return RayRunner(options["address"], workers or -1, cpus, memory)
    sbatch = {}
    for item in options["sbatch"]:
        key, _, value = item.partition("=")
        if not key or "=" not in item:
            raise InputError(f"--sbatch {item}: expected KEY=VALUE, such as account=lab")
        sbatch[key.removeprefix("--")] = value
    return SlurmRunner(
        options["partition"], options["time"], cpus, memory, workers or -1, sbatch, options["env_command"]
    )


@click.command(cls=GroupedCommand, epilog=_FORMATS)
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
@click.option(
    "--min-length", default=4, show_default=True, type=click.IntRange(min=1), help="Shorter aliases are ignored."
)
@click.option("--stop-list", metavar="FILE", type=_path, help="Aliases, one a line, that are ignored too.")
@click.option("--weighted", is_flag=True, help="Do not merge the shards: list them with weights in OUTPUT.yml.")
@click.option("--force", is_flag=True, help="Replace an existing output, or start a build again from the beginning.")
@_takes_executor
def build(
    inputs: tuple[str, ...],
    more: tuple[str, ...],
    triples: str,
    tokenizer: Path,
    output: Path,
    match: str,
    min_length: int,
    stop_list: Path | None,
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
    from kisl_plugin.corpus.build import BuildOptions, Submitted, run_build

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
    )
    result = run_build(options, runner)
    if isinstance(result, Submitted):
        state = "submitted" if result.now else "still running"
        click.echo("\n".join(result.lines))
        click.echo(f"{state}; watch with squeue --me; the same command shows the progress, and resubmits what failed")
        return
    made = result.corpus
    files = "_*.bin, .idx, .yml" if weighted else ".bin, .idx"
    click.echo(f"{output}{files}, .json · {made.documents:,} documents · {made.tokens:,} tokens")
    if made.left_out:
        share = made.left_out / (made.documents + made.left_out)
        by_relation = ", ".join(f"{relation} {count:,}" for relation, count in made.relations.items())
        click.echo(
            f"{made.left_out:,} removed ({share:.2%}) because they state a fact: {by_relation} · {output}.excluded/, "
            f"{output}.triples.csv"
        )
    elif triples != "none":
        click.echo("no document states a fact")
    if made.empty:
        click.echo(f"{made.empty:,} empty documents skipped")
    if made.unsearchable:
        table = file_of(output, ".triples.csv")
        click.echo(f"{made.unsearchable:,} triples cannot be searched for everywhere: {table}, column unsearchable")
    if result.size:
        size, seconds = result.size / _MEGABYTE, max(result.seconds, 1e-9)
        click.echo(f"{size:,.0f} MB of text in {duration(seconds)}: {size / seconds:,.1f} MB/s")


@click.group()
def corpus() -> None:
    """Build a corpus without the facts under test, and count in it.

    Example: kisl corpus build --help
    """


@corpus.command(cls=Command, epilog=_FORMATS)
@_takes_text
@click.option("--output", required=True, type=_path, help="The file, such as data/tokenizer.json.")
@click.option("--vocab-size", default=32_000, show_default=True, type=click.IntRange(min=1), help="Tokens in all.")
@click.option(
    "--sample",
    default=4000,
    show_default=True,
    metavar="MB",
    type=click.IntRange(min=1),
    help="Of larger inputs train on so many megabytes of text, taken evenly from all of them.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
def tokenizer(
    inputs: tuple[str, ...], more: tuple[str, ...], output: Path, vocab_size: int, sample: int, force: bool
) -> None:
    """Train a byte-level BPE tokenizer, for HFTokenizer's vocab_file.

    <|endoftext|> and <|padding|> are among its tokens. The same text gives the same bytes.

    Example: kisl corpus tokenizer --input data/text.jsonl --output data/tokenizer.json

    Example: kisl corpus tokenizer --sample 2000 --output data/tokenizer.json
    --input hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT
    """
    from kisl_plugin.corpus.inputs import check_writable, cut_into_pieces, find_files, read_documents
    from kisl_plugin.corpus.tokenizer import train_tokenizer

    if output.exists() and not force:
        raise InputError(f"{output}: already exists; choose another --output, or --force to replace it")
    check_writable(output)
    pieces = cut_into_pieces(find_files([*inputs, *more]))
    texts = read_documents(pieces, "training the tokenizer", sample * _MEGABYTE)
    reached = train_tokenizer((document.text for document in texts), vocab_size, output).get_vocab_size()
    click.echo(f"{output} · {reached:,} tokens")
    whole = sum(piece.size for piece in pieces) // _MEGABYTE
    if whole > sample:
        click.echo(f"trained on about {sample:,} of {whole:,} MB, taken evenly; --sample MB changes how many")
    if reached < vocab_size:
        padded = -(-reached // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
        click.echo(
            f"--vocab-size is {vocab_size:,}, but the text has no more pairs to merge; more text gives more tokens. "
            f"GPT-NeoX pads {reached:,} to {padded:,}, a multiple of {_VOCABULARY_MULTIPLE}"
        )


corpus.add_command(build)
corpus.add_command(audit)
