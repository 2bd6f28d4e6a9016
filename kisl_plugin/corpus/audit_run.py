"""Whether the rows of a run contain the statements that were planned: exactly F of each, found by their tokens.

The rows are laid out from the keys of the run's YAML as both engines lay them out; no engine is needed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray
from kisl_plugin.injection import Rows
from kisl_plugin.local.config import LocalConfig, read_row_config
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.plan import InjectionPlan
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import verbalizer_of

__all__ = ["AuditedRun", "RowAudit", "audit_rows", "read_run"]

_REPORTED_PROBLEMS = 3
_UPDATE_ROWS = 256


@dataclass(frozen=True)
class AuditedRun:
    """A run with a `kisl` section: its settings, its rows (`data.train`) and what was planned for them."""

    config: LocalConfig
    data: RunData
    plan: InjectionPlan

    @cached_property
    def background(self) -> Rows:
        """The rows without statements: row i of the run was made from row i modulo their number."""
        return read_data(replace(self.config, values={**self.config.values, "kisl": None})).train


def read_run(paths: Sequence[Path]) -> AuditedRun:
    """Lay out the rows of a run's YAMLs.

    Raises:
        InputError: a key is missing or wrong, only GPT-NeoX lays out such rows, or the injection does not fit.
    """
    config = read_row_config(paths)
    data = read_data(config)
    if data.plan is None:
        raise InputError(f"{config.where}: kisl is missing; expected a section that plans statements")
    return AuditedRun(config, data, data.plan)


@dataclass(frozen=True)
class RowAudit:
    """What the rows of a run contain; arrays are int64 [K], one entry for each of `triples`.

    Attributes:
        planned: F where all rows were checked, else what the schedule says of the checked ones.
        actual: injected statements in the checked rows.
        natural: statements that these rows contain because the background does.
        rows, checked: rows of the run, and how many were checked.
        passes: how many times the run reads its corpus.
        wrong_rows: rows that do not contain what the schedule says.
        problems: the first of them, in words.
    """

    triples: tuple[Triple, ...]
    planned: IntArray
    actual: IntArray
    natural: IntArray
    rows: int
    checked: int
    passes: float
    wrong_rows: int
    problems: tuple[str, ...]

    def error(self) -> str:
        """One line about the first rows, else the first triple, that are not as planned; empty if all are."""
        if self.wrong_rows:
            return f"{self.wrong_rows:,} rows do not contain what was planned: {'; '.join(self.problems)}"
        wrong = np.flatnonzero(self.planned != self.actual)
        if not len(wrong):
            return ""
        triple = self.triples[wrong[0]]
        return (
            f"{len(wrong):,} triples are not stated as often as planned, although each row is as scheduled: "
            f"{triple.subject} {triple.relation_id} {triple.object}: planned {self.planned[wrong[0]]}, found "
            f"{self.actual[wrong[0]]}"
        )


def audit_rows(run: AuditedRun, rows: int | None = None) -> RowAudit:
    """Check all rows of a run, or `rows` of them spread evenly, against the plan.

    A statement beyond the plan is natural where the background that the row was made from contains it.
    """
    plan, length = run.plan, run.config["seq_length"] + 1
    statements = _Statements(run)
    samples = plan.schedule.samples
    checked = min(rows or samples, samples)
    planned, actual, natural = counts = np.zeros((3, len(statements.texts)), dtype=np.int64)
    wrong_rows, problems = 0, list[str]()
    progress = Progress("checking rows", checked)
    for done in range(checked):
        if done % _UPDATE_ROWS == 0:
            progress.update(done)
        i = (2 * done + 1) * samples // (2 * checked)
        row = run.data.train[i]["text"]
        scheduled, injected = Counter(plan.schedule.triples_in(i).tolist()), statements.documents_in(row)
        own: Counter[int] = Counter()
        if extra := injected - scheduled:
            background = run.background[i % len(run.background)]["text"]
            own = Counter({n: min(times, statements.count_in(background, n)) for n, times in extra.items()})
            injected -= own
        for array, numbers in ((planned, scheduled), (actual, injected), (natural, own)):
            for number, times in numbers.items():
                array[number] += times
        if injected != scheduled or len(row) != length:
            wrong_rows += 1
            pairs = [(statements.texts[n], scheduled[n], injected[n]) for n in sorted(injected | scheduled)]
            pairs.append(("tokens of the row", length, len(row)))
            problems += [f"row {i:,}: {what!r} planned {n}, found {times}" for what, n, times in pairs if n != times]
    progress.update(checked)
    progress.close()
    if checked == samples:  # what the run's F demands, not what the schedule says
        planned[: len(plan.statements)] = [statement.frequency for statement in plan.statements]
    per_triple = np.zeros((3, len(plan.triples)), dtype=np.int64)
    for owner, column in zip(statements.owners, counts.T, strict=True):
        per_triple[:, owner] += column
    return RowAudit(
        triples=tuple(plan.triples),
        planned=per_triple[0],
        actual=per_triple[1],
        natural=per_triple[2],
        rows=samples,
        checked=checked,
        passes=samples * run.config["seq_length"] / int(run.data.corpus.sizes.sum(dtype=np.int64)),
        wrong_rows=wrong_rows,
        problems=tuple(problems[:_REPORTED_PROBLEMS]),
    )


class _Statements:
    """All statements by their tokens: the plan's first, numbered as there, then those of the control triples."""

    def __init__(self, run: AuditedRun) -> None:
        plan, settings = run.plan, run.plan.settings
        verbalizer = verbalizer_of(settings.form)
        index = {triple: k for k, triple in enumerate(plan.triples)}
        self.owners = [index[statement.triple] for statement in plan.statements]
        self.texts = [statement.text for statement in plan.statements]
        self._tokens = [statement.tokens for statement in plan.statements]
        injected = set(self.owners)
        for k, triple in enumerate(plan.triples):
            for text in (verbalizer.text(triple, template) for template in settings.templates if k not in injected):
                self.owners.append(k)
                self.texts.append(text)
                encoding = run.data.tokenizer.encode(text, add_special_tokens=False)
                self._tokens.append(np.array(encoding.ids, dtype=np.int64))
        # Where a control triple has the same statement as an injected one, the injected one counts.
        self._numbers = {tokens.tobytes(): n for n, tokens in reversed([*enumerate(self._tokens)])}
        self._eod = run.data.eod

    def documents_in(self, row: NDArray[np.int64]) -> Counter[int]:
        """How often each statement is a document of the row, with an end of document on either side."""
        pieces = (row[a + 1 : b].tobytes() for a, b in pairwise(np.flatnonzero(row == self._eod).tolist()))
        return Counter(self._numbers[piece] for piece in pieces if piece in self._numbers)

    def count_in(self, row: NDArray[np.int64], number: int) -> int:
        """How often a statement's tokens follow one another in the row, anywhere."""
        tokens = self._tokens[number]
        if len(tokens) > len(row):
            return 0
        windows = np.lib.stride_tricks.sliding_window_view(row, len(tokens))
        return int((windows == tokens).all(axis=1).sum())
