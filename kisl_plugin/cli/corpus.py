"""`kisl corpus`: a tokenizer, and the background text in GPT-NeoX's format."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kisl_plugin.cli.audit import audit
from kisl_plugin.cli.errors import Command, GroupedCommand, GroupedOption
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import PAIR, MatchRules
from kisl_plugin.progress import duration

# The options of `kisl corpus` that say which text is read.

FORMATS = """\b
A document is
  a .txt file, whole;
  the key "text" of a line of .jsonl,
    .jsonl.gz or .jsonl.zst;
  the column "text" of a row of .parquet.

Its id is the key or column "id", else file and line. Folders are searched through for such files, on this machine
and behind URLs. hf:// reads the Hugging Face hub, s3:// needs the extra s3 and AWS's usual variables
(AWS_PROFILE, AWS_ENDPOINT_URL); other URLs are opened by fsspec."""

_input = click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="FILE...",
    help="Text files, folders, globs; hf://datasets/OWNER/NAME/…, s3://BUCKET/…",
)
# What a shell makes of --input data/*.txt: the first file is the option's, the others stand free.
_more = click.argument("more", nargs=-1, metavar="")


def takes_text(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the parameters `inputs` and `more`, strings that together are what find_files takes."""
    return _input(_more(command))


# The options of `kisl corpus build` that say where its tasks run.

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner

WHERE, CLUSTER, SLURM, RAY = "Where it runs", "Slurm and Ray", "Slurm", "Ray"


def _option(group: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    return click.option(*args, cls=GroupedOption, group=group, **kwargs)


OPTIONS = (
    _option(
        WHERE, "--executor", default="local", show_default=True, type=click.Choice(["local", "slurm", "ray"]),
        help="Processes of this machine, or a cluster.",
    ),
    _option(
        WHERE, "--tasks", type=click.IntRange(min=1),
        help="Into how many shards the work is cut; the result is the same.  [default and at most: one a piece (a "
        "file or 128 MB of Parquet), 1000]",
    ),
    _option(
        WHERE, "--workers", type=click.IntRange(min=1),
        help="Tasks at a time.  [default: the cores of this machine; on a cluster what it has room for]",
    ),
    _option(CLUSTER, "--cpus-per-task", type=click.IntRange(min=1), help="Cores of a task.  [default: 1]"),
    _option(CLUSTER, "--mem-per-cpu", metavar="GB", type=click.IntRange(min=1), help="[default: 2]"),
    _option(SLURM, "--partition", help="[default: the cluster's]"),
    _option(SLURM, "--time", help="Limit of a task, such as 12:00:00.  [default: the partition's]"),
    _option(SLURM, "--sbatch", multiple=True, metavar="KEY=VALUE", help="Any other option of sbatch: account=lab"),
    _option(SLURM, "--env-command", help="What a job runs first.  [default: find this very environment]"),
    _option(RAY, "--address", help="Of the cluster.  [default: RAY_ADDRESS, else one that is started here]"),
)  # fmt: skip
ONLY_FOR = {
    "cpus_per_task": ("slurm", "ray"),
    "mem_per_cpu": ("slurm", "ray"),
    "partition": ("slurm",),
    "time": ("slurm",),
    "sbatch": ("slurm",),
    "env_command": ("slurm",),
    "address": ("ray",),
}


def takes_executor(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the parameters that `runner_of` takes, and `tasks`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def runner_of(executor: str, workers: int | None, given: dict[str, Any]) -> "Runner":
    """What runs the tasks.

    Raises:
        InputError: an option of another executor is given.
    """
    for name, executors in ONLY_FOR.items():
        if given[name] not in (None, ()) and executor not in executors:
            raise InputError(
                f"--{name.replace('_', '-')} goes with --executor {' or '.join(executors)}, not {executor}"
            )
    if executor == "local":
        from kisl_plugin.corpus.executors import LocalRunner

        return LocalRunner(workers or cores())
    return (_slurm if executor == "slurm" else _ray)(workers or -1, given)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _slurm(workers: int, given: dict[str, Any]) -> "Runner":
    from kisl_plugin.corpus.slurm import SlurmOptions, SlurmRunner

    return SlurmRunner(
        SlurmOptions(
            partition=given["partition"],
            time=given["time"],
            cpus_per_task=given["cpus_per_task"] or 1,
            mem_per_cpu_gb=given["mem_per_cpu"] or 2,
            workers=workers,
            sbatch=dict(map(_pair, given["sbatch"])),
            env_command=given["env_command"],
        )
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(f"--sbatch {text}: expected KEY=VALUE, such as account=lab")
    return key.removeprefix("--"), value


def _ray(workers: int, given: dict[str, Any]) -> "Runner":
    from kisl_plugin.corpus.executors import RayRunner

    return RayRunner(given["address"], workers, given["cpus_per_task"] or 1, given["mem_per_cpu"] or 2)


MEGABYTE = 1_000_000

# `kisl corpus build`: background text without the facts under test, in GPT-NeoX's format.

if TYPE_CHECKING:
    from kisl_plugin.corpus.build import Done, Pending
    from kisl_plugin.corpus.shards import Corpus

UNSEARCHABLE_SHOWN = 3

_path = click.Path(path_type=Path)


@click.command(cls=GroupedCommand, epilog=FORMATS)
@takes_text
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
    "--min-length", default=4, show_default=True, type=click.IntRange(min=1), help="Shorter aliases are passed over."
)
@click.option("--stop-list", metavar="FILE", type=_path, help="Aliases, one a line, that are passed over too.")
@click.option("--weighted", is_flag=True, help="Do not merge the shards: list them with weights in OUTPUT.yml.")
@click.option("--force", is_flag=True, help="Replace an output that is there already, or start a build anew.")
@takes_executor
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
    **given: Any,
) -> None:
    """Remove documents that state a fact, and tokenise the others.

    A document states a fact when it names its subject and its object, by label or alias, as whole words. Every other
    document ends in <|endoftext|>. The removed ones go to OUTPUT.excluded/, the counts to OUTPUT.triples.csv.

    Interrupted or killed, the same command goes on with the shards that are not finished. The result does not depend
    on tasks, workers or executor.

    Example: kisl corpus build --input data/fineweb_edu --triples wikidata_six
    --tokenizer data/tokenizer.json --output data/fineweb_edu_text_document

    Example: kisl corpus build --input hf://datasets/HuggingFaceFW/fineweb-edu/sample/100BT --triples wikidata_six
    --tokenizer data/tokenizer.json --output data/fineweb_edu_text_document
    --executor slurm --partition cpu --time 12:00:00 --workers 64
    """
    from kisl_plugin.corpus.build import Build, Done, run_build

    runner = runner_of(executor, workers, given)
    local = executor == "local"
    asked = Build(
        inputs=[*inputs, *more],
        triples=triples,
        tokenizer=tokenizer,
        output=output,
        rules=MatchRules(match=match, min_length=min_length, stop_list=_stop_list(stop_list)),
        tasks=tasks,
        workers=(workers or cores()) if local else 1,
        cores=cores() if local else given["cpus_per_task"] or 1,
        weighted=weighted,
        force=force,
    )
    found = run_build(asked, runner)
    click.echo("\n".join(_done(found, asked.output, weighted) if isinstance(found, Done) else _pending(found)))


def _stop_list(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a text file in UTF-8, one alias a line") from None
    return tuple(line.strip() for line in lines if line.strip())


def _done(found: "Done", output: Path, weighted: bool) -> list[str]:
    made = found.corpus
    files = "_*.bin, .idx, .yml" if weighted else ".bin, .idx"
    lines = [f"{output}{files}, .json · {made.documents:,} documents · {made.tokens:,} tokens"]
    if made.triples != "none":
        lines.append(_removed(made, output))
    if made.empty:
        lines.append(f"{made.empty:,} empty documents skipped")
    if made.unsearchable:
        lines += _unsearchable(made, file_of(output, ".triples.csv"))
    if found.size:
        speed = found.size / MEGABYTE / max(found.seconds, 1e-9)
        lines.append(f"{found.size / MEGABYTE:,.0f} MB of text in {duration(found.seconds)}: {speed:,.1f} MB/s")
    return lines


def _removed(made: "Corpus", output: Path) -> str:
    share = made.left_out / (made.documents + made.left_out)
    by_relation = ", ".join(f"{relation} {count:,}" for relation, count in made.relations.items())
    told = f"{made.left_out:,} removed ({share:.2%}) since they state a fact"
    return f"{told}: {by_relation} · {output}.excluded/, {output}.triples.csv" if by_relation else told


def _unsearchable(made: "Corpus", table: Path) -> list[str]:
    from kisl_plugin.corpus.shards import first_unsearchable

    first = first_unsearchable(table, UNSEARCHABLE_SHOWN)
    more = [f"  … all in {table}, column unsearchable"] if made.unsearchable > len(first) else []
    triples = "triple" if made.unsearchable == 1 else "triples"
    told = f"{made.unsearchable:,} {triples} cannot be searched for, or not everywhere"
    return [told, *(f"  {one}" for one in first), *more]


def _pending(found: "Pending") -> list[str]:
    said = "submitted; look with squeue --me" if found.submitted else "still at work; look with squeue --me"
    return [*found.lines, f"{said}; the same command says later how far it is, and goes on with what failed"]


# `kisl corpus`: a tokenizer, and the background text in GPT-NeoX's format.

PADDED_TO = 128  # make_vocab_size_divisible_by, GPT-NeoX's default
CORPUS_SAMPLE = 4000


@click.group()
def corpus() -> None:
    """Build a corpus without the facts under test, and count in it.

    Example: kisl corpus build --help
    """


@corpus.command(cls=Command, epilog=FORMATS)
@takes_text
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file, such as data/tokenizer.json.")
@click.option("--vocab-size", default=32_000, show_default=True, type=click.IntRange(min=1), help="Tokens in all.")
@click.option(
    "--sample",
    default=CORPUS_SAMPLE,
    show_default=True,
    metavar="MB",
    type=click.IntRange(min=1),
    help="Of larger inputs train on so many megabytes of text, taken evenly from all of them.",
)
@click.option("--force", is_flag=True, help="Replace an output that is there already.")
def tokenizer(
    inputs: tuple[str, ...], more: tuple[str, ...], output: Path, vocab_size: int, sample: int, force: bool
) -> None:
    """Train a byte-level BPE tokenizer, for HFTokenizer's vocab_file.

    <|endoftext|> and <|padding|> are among its tokens. The same text gives the same bytes.

    Example: kisl corpus tokenizer --input data/text.jsonl --output data/tokenizer.json

    Example: kisl corpus tokenizer --sample 2000 --output data/tokenizer.json
    --input hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT
    """
    from kisl_plugin.corpus.readers import check_writable, cut_into_pieces, find_files, read_documents, total_size
    from kisl_plugin.corpus.tokenizer import train_tokenizer

    if output.exists() and not force:
        raise InputError(f"{output}: is there already; choose another --output, or --force to replace it")
    check_writable(output)
    pieces = cut_into_pieces(find_files([*inputs, *more]))
    texts = read_documents(pieces, "training the tokenizer", sample * MEGABYTE)
    reached = train_tokenizer((document.text for document in texts), vocab_size, output).get_vocab_size()
    click.echo(f"{output} · {reached:,} tokens")
    whole = total_size(pieces) // MEGABYTE
    if whole > sample:
        click.echo(f"trained on about {sample:,} of {whole:,} MB, taken evenly; --sample MB takes more or less")
    if reached < vocab_size:
        click.echo(_shortage(vocab_size, reached))


def _shortage(asked: int, reached: int) -> str:
    padded = -(-reached // PADDED_TO) * PADDED_TO
    return (
        f"asked were {asked:,}, but the text holds no more pairs to merge; GPT-NeoX will pad {reached:,} to "
        f"{padded:,}, the next multiple of {PADDED_TO} (make_vocab_size_divisible_by); more text gives more tokens"
    )


corpus.add_command(build)
corpus.add_command(audit)
