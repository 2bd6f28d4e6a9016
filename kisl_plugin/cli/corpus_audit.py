"""`kisl corpus audit`: how often facts stand in a tokenised corpus, and whether a run's rows hold what is planned."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kisl_plugin.cli.corpus_executors import cores
from kisl_plugin.cli.errors import Command
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.matching.rules import DOCUMENT, PAIR, MatchRules

if TYPE_CHECKING:
    from kisl_plugin.corpus.audit import Audit
    from kisl_plugin.corpus.audit_rows import RowAudit
    from kisl_plugin.corpus.audit_run import Run

_path = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("prefixes", nargs=-1, metavar="[PREFIX]...", type=_path)
@click.option("--triples", help="The facts: a file, a bundled name such as wikidata_six.")
@click.option("--tokenizer", type=_path, help="The corpus's tokenizer.json; kisl corpus build notes it in PREFIX.json.")
@click.option(
    "--run", "runs", multiple=True, metavar="YAML", type=_path, help="Check a run's rows too; its corpus is audited."
)
@click.option("--rows", type=click.IntRange(min=1), help="Of the run look at so many rows, spread evenly.")
@click.option(
    "--sample", type=click.IntRange(min=0), help="Look at so many documents, spread evenly; with --run 0 looks at none."
)
@click.option("--match", default=PAIR, show_default=True, help="pair, subject, or a matcher that a plugin adds.")
@click.option(
    "--scope", default=DOCUMENT, show_default=True, help="document, paragraph, sentence or a number of characters."
)
@click.option("--tasks", type=click.IntRange(min=1), help="Into how many parts the work is cut.  [default: by size]")
@click.option("--workers", type=click.IntRange(min=1), help="Parts worked on at a time.  [default: the cores]")
@click.option("--output", type=_path, help="A CSV with a row for each triple.")
def audit(
    prefixes: tuple[Path, ...],
    triples: str | None,
    tokenizer: Path | None,
    runs: tuple[Path, ...],
    rows: int | None,
    sample: int | None,
    match: str,
    scope: str,
    tasks: int | None,
    workers: int | None,
    output: Path | None,
) -> None:
    """Count how often each fact still stands in a tokenised corpus: the natural frequency beside the injected one.

    PREFIX is the common beginning of a .bin and an .idx file, or a YAML with train_data_paths. Counted are a fact's
    statements and questions, word for word, by every template, and the documents that name its subject and its object.

    With --run the rows that the run will train on are laid and looked through: each statement must stand in them
    exactly as often as planned, else the exit status is 1.

    Example: kisl corpus audit data/fineweb_edu --triples wikidata_six --output audit.csv

    Example: kisl corpus audit --run neox_configs/1b_f200.yml --rows 10000 --sample 100000
    """
    from kisl_plugin.corpus.audit_report import corpus_page, rows_page, write_csv
    from kisl_plugin.corpus.outputs import check_writable

    asked = Asked(prefixes, triples, tokenizer, MatchRules(match=match, scope=scope), sample, tasks, workers or cores())
    if not runs and rows is not None:
        raise InputError("--rows counts the rows of a run; give its YAML with --run")
    if not runs and sample == 0:
        raise InputError("--sample 0 looks at no document, which is for --run alone; give 1 or more")
    if output:
        check_writable(output)
    run = _lay(asked, runs) if runs else None
    found_rows = _rows(run, rows) if run else None
    found = _counts(asked, run) if sample != 0 else None
    click.echo(
        "\n\n".join([*([rows_page(found_rows)] if found_rows else []), *([corpus_page(found)] if found else [])])
    )
    if output:
        write_csv(output, found, found_rows)
        click.echo(f"\n{output}")
    if found_rows and not found_rows.holds:
        raise KislError(found_rows.what_is_wrong())


@dataclass(frozen=True)
class Asked:
    """What the caller said of the corpus."""

    prefixes: tuple[Path, ...]
    triples: str | None
    tokenizer: Path | None
    rules: MatchRules
    sample: int | None
    tasks: int | None
    workers: int


def _lay(asked: Asked, runs: tuple[Path, ...]) -> "Run":
    for name, value in (("PREFIX", asked.prefixes), ("--triples", asked.triples), ("--tokenizer", asked.tokenizer)):
        if value:
            raise InputError(
                f"{name} and --run: the run's YAML names its corpus, its triples and its tokenizer; leave one"
            )
    try:
        from kisl_plugin.corpus.audit_run import read_run
    except ImportError:
        raise InputError("the tokenizers library is missing; pip install 'kisl-plugin[corpus]'") from None
    run = read_run(runs)
    if run.on_one_device:
        click.echo(run.on_one_device)
    return run


def _rows(run: "Run", rows: int | None) -> "RowAudit":
    from kisl_plugin.corpus.audit_rows import audit_rows

    return audit_rows(run, rows)


def _counts(asked: Asked, run: "Run | None") -> "Audit":
    from kisl_plugin.corpus.audit import audit_corpus
    from kisl_plugin.corpus.audit_wordings import FORMS
    from kisl_plugin.triples import read_triples

    count = partial(audit_corpus, rules=asked.rules, sample=asked.sample, tasks=asked.tasks, workers=asked.workers)
    if run:
        forms = (*FORMS, run.plan.settings.form)
        return count([run.corpus], run.plan.triples, run.tokenizer, forms=forms)
    if not asked.prefixes or not asked.triples:
        raise InputError("give PREFIX and --triples, or --run YAML; see kisl corpus audit --help")
    return count(asked.prefixes, read_triples(asked.triples), asked.tokenizer)
