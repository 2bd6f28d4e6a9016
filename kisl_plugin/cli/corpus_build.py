"""`kisl corpus build`: background text without the facts under test, in GPT-NeoX's format."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kisl_plugin.cli.corpus_executors import cores, runner_of, takes_executor
from kisl_plugin.cli.corpus_inputs import FORMATS, takes_text
from kisl_plugin.cli.corpus_preview import preview_page
from kisl_plugin.cli.option_groups import GroupedCommand
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import file_of
from kisl_plugin.matching.rules import DOCUMENT, PAIR, MatchRules
from kisl_plugin.progress import duration

if TYPE_CHECKING:
    from kisl_plugin.corpus.build import Done, Pending
    from kisl_plugin.corpus.merge import Corpus

SAMPLE = 10_000
MEGABYTE = 1e6
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
    "--scope",
    default=DOCUMENT,
    show_default=True,
    help="How near a pair must be: document, paragraph, sentence, or within a number of characters, such as 200.",
)
@click.option(
    "--min-length", default=4, show_default=True, type=click.IntRange(min=1), help="Shorter aliases are passed over."
)
@click.option("--stop-list", metavar="FILE", type=_path, help="Aliases, one a line, that are passed over too.")
@click.option(
    "--preview",
    is_flag=False,
    flag_value=SAMPLE,
    metavar="[N]",
    type=click.IntRange(min=1),
    help=f"Look at N documents [{SAMPLE}] and tell what would be lost; nothing is written.",
)
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
    scope: str,
    min_length: int,
    stop_list: Path | None,
    preview: int | None,
    weighted: bool,
    force: bool,
    executor: str,
    tasks: int | None,
    workers: int | None,
    **given: Any,
) -> None:
    """Remove the documents that state a fact under test, and tokenise the others into .bin/.idx.

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
    from kisl_plugin.corpus.build import Done, run_build
    from kisl_plugin.corpus.planning import Build

    runner = runner_of(executor, workers, given)
    local = executor == "local"
    asked = Build(
        inputs=[*inputs, *more],
        triples=triples,
        tokenizer=tokenizer,
        output=output,
        rules=MatchRules(match, scope, min_length, _stop_list(stop_list)),
        tasks=tasks,
        workers=(workers or cores()) if local else 1,
        cores=cores() if local else given["cpus_per_task"] or 1,
        weighted=weighted,
        force=force,
    )
    if preview:
        from kisl_plugin.corpus.preview import preview as look

        click.echo(preview_page(look(asked, preview), workers or cores(), output))
        return
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
    from kisl_plugin.corpus.statistics import first_unsearchable

    first = first_unsearchable(table, UNSEARCHABLE_SHOWN)
    more = [f"  … all in {table}, column unsearchable"] if made.unsearchable > len(first) else []
    triples = "triple" if made.unsearchable == 1 else "triples"
    told = f"{made.unsearchable:,} {triples} cannot be searched for, or not everywhere"
    return [told, *(f"  {one}" for one in first), *more]


def _pending(found: "Pending") -> list[str]:
    said = "submitted; look with squeue --me" if found.submitted else "still at work; look with squeue --me"
    return [*found.lines, f"{said}; the same command says later how far it is, and goes on with what failed"]
