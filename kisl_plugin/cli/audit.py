"""`kisl corpus audit`: how often triples occur in a tokenised corpus, or whether a run's rows contain the plan."""

import csv
import io
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from kisl_plugin.cli import Command
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import no_formula, write_atomically
from kisl_plugin.hookspecs import IntArray
from kisl_plugin.progress import text_table
from kisl_plugin.triples import Triple, read_triples

if TYPE_CHECKING:
    from kisl_plugin.corpus.audit import CorpusAudit
    from kisl_plugin.corpus.audit_run import RowAudit

__all__ = ["audit"]

_IDENTITY = ("subject_id", "subject", "relation_id", "object_id", "object", "group")
_path = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("prefixes", nargs=-1, metavar="[PREFIX]...", type=_path)
@click.option("--triples", help="The triples: a file, or a bundled name such as wikidata_six.")
@click.option("--skip-bad-rows", is_flag=True, help="Leave out rows of --triples that are wrong, and list them.")
@click.option("--tokenizer", type=_path, help="The corpus's tokenizer.json.  [default: the one named in PREFIX.json]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: the cores of this machine]")
@click.option("--run", "runs", multiple=True, metavar="YAML", type=_path, help="Check the rows of this run instead.")
@click.option("--rows", type=click.IntRange(min=1), help="Number of rows to check, evenly spaced.  [default: all]")
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

        workers = workers or len(os.sched_getaffinity(0))
        counted = audit_corpus(prefixes, read_triples(triples or "", skip_bad_rows), tokenizer, workers=workers)
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
