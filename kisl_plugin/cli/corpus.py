"""The commands of `kisl corpus`: train a tokenizer, build the background text, and audit it."""

import csv
import io
import os
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from kisl_plugin.cli import Group
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import no_formula, write_atomically
from kisl_plugin.hookspecs import IntArray
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import PAIR, MatchRules
from kisl_plugin.progress import text_table
from kisl_plugin.triples import Triple, read_triples

if TYPE_CHECKING:
    from kisl_plugin.corpus.audit import CorpusAudit
    from kisl_plugin.corpus.audit_run import RowAudit
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

_IDENTITY = ("subject_id", "subject", "relation_id", "object_id", "object", "group")
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


@corpus.command(epilog=_FORMATS)
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


@corpus.command()
@click.argument("prefixes", nargs=-1, metavar="[PREFIX]...", type=_path)
@click.option("--triples", help="The triples: a file, or a bundled name such as wikidata_six.")
@click.option("--skip-bad-rows", is_flag=True, help="Leave out rows of --triples that are wrong, and list them.")
@click.option("--tokenizer", type=_path, help="The corpus's tokenizer.json.  [default: the one named in PREFIX.json]")
@click.option("--workers", type=_count, help="Processes.  [default: the cores of this machine]")
@click.option("--run", "runs", multiple=True, metavar="YAML", type=_path, help="Check the rows of this run instead.")
@click.option("--rows", type=_count, help="Number of rows to check, evenly spaced.  [default: all]")
@click.option("--output", type=_path, help="A CSV with a row for each triple.")
def audit(
    prefixes: tuple[Path, ...],
    triples: str | None,
    skip_bad_rows: bool,
    tokenizer: Path | None,
    workers: int | None,
    runs: tuple[Path, ...],
    rows: int | None,
    output: Path | None,
) -> None:
    """Count triples in a tokenised corpus, or check a run's rows.

    PREFIX is the common beginning of a .bin and an .idx file, or a YAML with data_path or train_data_paths. Counted are
    a triple's statements and questions, word for word in every template, and the documents that contain its subject and
    its object.

    With --run the rows that the run trains on are laid out and read: each statement must be in them exactly as often as
    planned, else the exit status is 1.

    Example: kisl corpus audit data/fineweb_edu --triples wikidata_six --output audit.csv

    Example: kisl corpus audit --run neox_configs/1b_f200.yml --rows 10000
    """
    from kisl_plugin.corpus.inputs import check_writable

    counting = {"PREFIX": prefixes, "--triples": triples, "--tokenizer": tokenizer, "--workers": workers}
    counting["--skip-bad-rows"] = skip_bad_rows
    for name, value in counting.items():
        if runs and value:
            raise InputError(
                f"{name} and --run: {name} is for counting in a corpus, not in a run's rows; leave one out"
            )
    if not runs and rows is not None:
        raise InputError("--rows needs a run; give its YAML with --run")
    if not runs and not (prefixes and triples):
        raise InputError("give PREFIX and --triples, or --run YAML; see kisl corpus audit --help")
    if output:
        check_writable(output)
    error = ""
    if runs:
        with needs_extra("corpus", "kisl corpus audit --run"):
            from kisl_plugin.corpus.audit_run import audit_rows
            from kisl_plugin.local.config import read_row_config
            from kisl_plugin.local.data import read_data

        config = read_row_config(runs)
        if config["train_batch_size"] is None:
            click.echo(f"train_batch_size is not given: {config.batch} rows a step, those of one device")
        checked = audit_rows(config, read_data(config), rows)
        click.echo(_rows_report(checked))
        error = checked.error
        audited = checked.triples
        columns = {"planned": checked.planned, "found": checked.actual, "natural_in_rows": checked.natural}
        unknown: dict[str, Container[int]] = {}
    else:
        from kisl_plugin.corpus.audit import audit_corpus

        counted = audit_corpus(
            prefixes, read_triples(triples or "", skip_bad_rows), tokenizer, workers=workers or _cores()
        )
        click.echo(_corpus_report(counted))
        audited = counted.triples
        statements = {
            "statement_documents": counted.statement_documents,
            "statement_occurrences": counted.statement_occurrences,
        }
        columns = {**statements, "pair_documents": counted.pair_documents}
        wordless = {k for k, triple in enumerate(audited) if triple.relation_id in counted.without_templates}
        unknown = {**dict.fromkeys(statements, wordless), "pair_documents": counted.unsearchable}
    if output:
        _write_csv(output, audited, columns, unknown)
        click.echo(f"\n{output}")
    if error:
        raise KislError(error)


def _corpus_report(audit: "CorpusAudit") -> str:
    """Totals, and a table of the relations."""
    stated, matched = (int((counts > 0).sum()) for counts in (audit.statement_documents, audit.pair_documents))
    lines = [
        f"{', '.join(map(str, audit.prefixes))} · {audit.documents:,} documents · {audit.tokens:,} tokens",
        f"{len(audit.triples):,} triples · {stated:,} with a statement in the text · "
        f"{matched:,} with subject and object in one document",
    ]
    if audit.without_templates:
        lines.append(f"no templates, so no statements to search for: {', '.join(sorted(audit.without_templates))}")
    if audit.unsearchable:
        first = next(iter(audit.unsearchable.values()))
        lines.append(f"{len(audit.unsearchable):,} triples cannot be found, or not everywhere, such as: {first}")
    relation_of = np.array([triple.relation_id for triple in audit.triples])
    relations = [["relation", "triples", "stated", "statements", "pair", "pair documents"]]
    for relation in np.unique(relation_of):
        own = relation_of == relation
        documents, occurrences = audit.pair_documents[own], audit.statement_occurrences[own]
        counts = (own, occurrences > 0, occurrences, documents > 0, documents)
        relations.append([str(relation), *(f"{int(count.sum()):,}" for count in counts)])
    return "\n".join([*lines, "", *text_table(relations, "<>>>>>")])


def _rows_report(audit: "RowAudit") -> str:
    """What the rows of a run contain, beside the plan, and a table of the groups."""
    which = f"all {audit.rows:,} rows" if audit.checked == audit.rows else f"{audit.checked:,} of {audit.rows:,} rows"
    groups = [["group", "triples", "planned each", "found each", "natural"]]
    for group in sorted({triple.group for triple in audit.triples}):
        own = [k for k, triple in enumerate(audit.triples) if triple.group == group]
        ends = ((int(counts[own].min()), int(counts[own].max())) for counts in (audit.planned, audit.actual))
        ranges = (f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in ends)
        groups.append([group, f"{len(own):,}", *ranges, f"{int(audit.natural[own].sum()):,}"])
    planned, actual = int(audit.planned.sum()), int(audit.actual.sum())
    totals = f"{which} checked · {planned:,} exposures planned, {actual:,} found"
    return "\n".join([totals, "", *text_table(groups, "<>>>>")])


def _write_csv(
    path: Path, triples: Sequence[Triple], columns: Mapping[str, IntArray], unknown: Mapping[str, Container[int]]
) -> None:
    """A row for each triple: its ids and labels, then counts [K]; a 0 is left empty where its column is `unknown`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*_IDENTITY, *columns])
    for k, triple in enumerate(triples):
        counts = ("" if not array[k] and k in unknown.get(name, ()) else array[k] for name, array in columns.items())
        writer.writerow([*(no_formula(getattr(triple, name)) for name in _IDENTITY), *counts])
    try:
        write_atomically(path, text.getvalue())
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None
