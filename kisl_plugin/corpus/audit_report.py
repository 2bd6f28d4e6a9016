"""What an audit found: a CSV with a row per triple, and a page for the terminal."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kisl_plugin.corpus.audit_reading import LONG_TOKENS
from kisl_plugin.errors import KislError
from kisl_plugin.roles import IntArray
from kisl_plugin.runcard import write_atomically
from kisl_plugin.triples import Triple

if TYPE_CHECKING:
    from kisl_plugin.corpus.audit import Audit
    from kisl_plugin.corpus.audit_rows import RowAudit

HIGHEST = 10
FACT_WIDTH = 48
IDENTITY = ("subject_id", "subject", "relation_id", "object_id", "object", "group")
_NAMED = {"pair": "with subject and object in one text", "subject": "with the subject in a text"}
Column = tuple[str, Sequence[int | None]]


def write_csv(path: Path, audit: "Audit | None", rows: "RowAudit | None") -> None:
    """Write a row per triple: who it is, then what was counted; empty where nothing could be looked for.

    Raises:
        KislError: it cannot be written.
    """
    triples = _triples(audit, rows)
    columns = [*(_corpus_columns(audit) if audit else ()), *(_row_columns(rows) if rows else ())]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*IDENTITY, *(name for name, _ in columns)])
    for k, triple in enumerate(triples):
        writer.writerow([*(getattr(triple, name) for name in IDENTITY), *(values[k] for _, values in columns)])
    try:
        write_atomically(path, text.getvalue())
    except OSError as error:
        raise KislError(f"{path}: cannot be written ({error.strerror or error})") from None


def _triples(audit: "Audit | None", rows: "RowAudit | None") -> Sequence[Triple]:
    return audit.triples if audit else rows.triples if rows else ()


def _corpus_columns(audit: "Audit") -> list[Column]:
    counts = audit.counts
    columns: list[Column] = []
    for name, values, unknown in (
        ("statement_documents", counts.statement_documents, audit.without_wording),
        ("statement_occurrences", counts.statement_occurrences, audit.without_wording),
        (f"{audit.rules.match}_documents", counts.match_documents, audit.unsearchable),
    ):
        shown = [(name, audit.scaled(values))]
        if audit.sampled and name != "statement_occurrences":
            low, high = audit.interval(values)
            shown += [(f"{name}_low", low), (f"{name}_high", high)]
        columns += [
            (title, [None if k in unknown and not values[k] else int(n) for k, n in enumerate(column)])
            for title, column in shown
        ]
    return columns


def _row_columns(rows: "RowAudit") -> list[Column]:
    named = (("planned", rows.planned), ("found", rows.found), ("natural_in_rows", rows.natural))
    return [(name, values.tolist()) for name, values in named]


def corpus_page(audit: "Audit") -> str:
    """Totals, a table of the relations, and the triples with the highest counts."""
    return "\n\n".join(part for part in ("\n".join(_totals(audit)), _relations(audit), _highest(audit)) if part)


def rows_page(rows: "RowAudit") -> str:
    """What the rows of a run hold, beside the plan; a table of the groups."""
    what = f"all {rows.rows:,} rows" if rows.looked == rows.rows else f"{rows.looked:,} of {rows.rows:,} rows"
    total = f"{what} looked at · {int(rows.planned.sum()):,} exposures planned, {int(rows.found.sum()):,} found"
    passes = f"the run reads {rows.passes:,.2f} times its corpus: so often it meets what stands there naturally"
    table: list[tuple[str, ...]] = [("group", "triples", "planned each", "found each", "natural")]
    for group in sorted({triple.group for triple in rows.triples}):
        members = [k for k, triple in enumerate(rows.triples) if triple.group == group]
        spans = (_span(counts[members]) for counts in (rows.planned, rows.found))
        table.append((group, f"{len(members):,}", *spans, f"{int(rows.natural[members].sum()):,}"))
    return f"{total}\n{passes}\n\n{_aligned(table)}"


def _span(counts: IntArray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _totals(audit: "Audit") -> Iterable[str]:
    counts = audit.counts
    documents = audit.total if audit.sampled else counts.documents
    yield f"{_listed(audit.prefixes)} · {documents:,} documents · {audit.tokens:,} tokens"
    if audit.sampled:
        none = int(audit.interval(np.zeros(1, dtype=np.int64))[1][0])
        yield f"a sample: {audit.looked:,} of {audit.total:,} documents were looked at; counts are scaled to all (≈)"
        yield f"the CSV has 95 % intervals; what was not found may still stand in up to {none:,} documents"
    stated = int((counts.statement_documents > 0).sum())
    matched = int((counts.match_documents > 0).sum())
    yield (
        f"{len(audit.triples):,} triples · {stated:,} with a statement, word for word, in the text · {matched:,} "
        f"{_NAMED.get(audit.rules.match, f'found by {audit.rules.match}')} ({audit.rules.name})"
    )
    if audit.without_wording:
        relations = sorted({audit.triples[k].relation_id for k in audit.without_wording})
        yield f"without templates, so no statement to look for: {', '.join(relations)}"
    if audit.unsearchable:
        first = min(audit.unsearchable)
        yield (
            f"{len(audit.unsearchable):,} triples cannot be found, such as {_fact(audit.triples[first])}: "
            + (audit.unsearchable[first])
        )
    if audit.altered:
        yield (
            f"the tokenizer gives {audit.altered.count:,} of {audit.altered.tried:,} statements back changed "
            f"({audit.altered.text!r} as {audit.altered.back!r}): those are not found"
        )
    if counts.long_documents:
        yield f"{counts.long_documents:,} documents of more than {LONG_TOKENS:,} tokens were looked at in parts"


def _listed(prefixes: Sequence[Path], shown: int = 3) -> str:
    return ", ".join(map(str, prefixes[:shown])) + (f" … ({len(prefixes):,})" if len(prefixes) > shown else "")


def _number(audit: "Audit", count: int) -> str:
    return f"≈ {round(count * audit.total / audit.looked):,}" if audit.sampled else f"{count:,}"


def _relations(audit: "Audit") -> str:
    counts, match = audit.counts, audit.rules.match
    table: list[tuple[str, ...]] = [("relation", "triples", "stated", "statements", match, f"{match} documents")]
    members: dict[str, list[int]] = {}
    for k, triple in enumerate(audit.triples):
        members.setdefault(triple.relation_id, []).append(k)
    for relation, own in sorted(members.items()):
        some = (int((found[own] > 0).sum()) for found in (counts.statement_documents, counts.match_documents))
        sums = (int(found[own].sum()) for found in (counts.statement_occurrences, counts.match_documents))
        cells = [text for n, total in zip(some, sums, strict=True) for text in (f"{n:,}", _number(audit, total))]
        table.append((relation, f"{len(own):,}", *cells))
    return _aligned(table)


def _highest(audit: "Audit") -> str:
    counts = audit.counts
    order = np.lexsort((-counts.match_documents, -counts.statement_occurrences))[:HIGHEST]
    found = [k for k in order.tolist() if counts.statement_occurrences[k] or counts.match_documents[k]]
    if not found:
        return ""
    table: list[tuple[str, ...]] = [("most often", "statements", f"{audit.rules.match} documents")]
    for k in found:
        numbers = (_number(audit, int(values[k])) for values in (counts.statement_occurrences, counts.match_documents))
        table.append((_fact(audit.triples[k]), *numbers))
    return _aligned(table)


def _fact(triple: Triple) -> str:
    fact = " · ".join((triple.subject, triple.relation_id, triple.object))
    printable = "".join(char if char.isprintable() else " " for char in fact)
    return printable if len(printable) <= FACT_WIDTH else printable[: FACT_WIDTH - 1] + "…"


def _aligned(table: Sequence[tuple[str, ...]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)
