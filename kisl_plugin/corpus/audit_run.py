"""Whether the rows of a run contain the statements that were planned: exactly F of each, found by their tokens.

The rows are laid out from the keys of the run's YAML as both engines lay them out; no engine is needed.
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import IntArray
from kisl_plugin.injection import Rows
from kisl_plugin.local.config import LocalConfig
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import verbalizer_of

__all__ = ["RowAudit", "audit_rows"]

_REPORTED_PROBLEMS = 3
_UPDATE_ROWS = 256


@dataclass(frozen=True)
class RowAudit:
    """What the rows of a run contain; arrays are int64 [K], one entry for each of `triples`.

    Attributes:
        planned: F where all rows were checked, else what the schedule says of the checked ones.
        actual: injected statements in the checked rows.
        natural: statements that these rows contain because the background does.
        rows, checked: rows of the run, and how many were checked.
        wrong_rows: rows that do not contain what the schedule says.
        error: the first rows, else the first triple, that are not as planned, in one line; empty if all are.
    """

    triples: tuple[Triple, ...]
    planned: IntArray
    actual: IntArray
    natural: IntArray
    rows: int
    checked: int
    wrong_rows: int
    error: str


def audit_rows(config: LocalConfig, data: RunData, rows: int | None = None) -> RowAudit:
    """Check all rows of a run, `data` of `config`, or `rows` of them spread evenly, against the plan.

    A statement beyond the plan is natural where the background that the row was made from contains it.

    Raises:
        InputError: the run has no section `kisl`.
    """
    if data.plan is None:
        raise InputError(f"{config.where}: kisl is missing; expected a section that plans statements")
    plan, length, eod = data.plan, config["seq_length"] + 1, data.eod
    # Owner (a triple's index), text and tokens: the plan's statements, numbered as there, then those of the control.
    index = {triple: k for k, triple in enumerate(plan.triples)}
    statements = [(index[one.triple], one.text, one.tokens) for one in plan.statements]
    verbalizer, injected_triples = verbalizer_of(plan.settings.form), {owner for owner, _, _ in statements}
    for k in sorted(set(index.values()) - injected_triples):
        for template in plan.settings.templates:
            text = verbalizer.text(plan.triples[k], template)
            ids = data.tokenizer.encode(text, add_special_tokens=False).ids
            statements.append((k, text, np.array(ids, dtype=np.int64)))
    # Where a control triple has the same statement as an injected one, the injected one counts.
    numbers = {tokens.tobytes(): n for n, (_, _, tokens) in reversed([*enumerate(statements)])}

    def natural_in(row: NDArray[np.int64], number: int) -> int:
        """How often a statement's tokens follow one another in a row of the background, anywhere."""
        tokens = statements[number][2]
        if len(tokens) > len(row):
            return 0
        windows = np.lib.stride_tricks.sliding_window_view(row, len(tokens))
        return int((windows == tokens).all(axis=1).sum())

    samples = plan.schedule.samples
    checked = min(rows or samples, samples)
    planned, actual, natural = counts = np.zeros((3, len(statements)), dtype=np.int64)
    wrong_rows, problems = 0, list[str]()
    background: Rows | None = None  # row i of the run was made from its row i modulo their number
    progress = Progress("checking rows", checked)
    for done in range(checked):
        if done % _UPDATE_ROWS == 0:
            progress.update(done)
        i = (2 * done + 1) * samples // (2 * checked)
        row = data.train[i]["text"]
        scheduled = Counter(plan.schedule.triples_in(i).tolist())
        # A statement is a document of its own: an end of document on either side.
        pieces = (row[a + 1 : b].tobytes() for a, b in pairwise(np.flatnonzero(row == eod).tolist()))
        injected = Counter(numbers[piece] for piece in pieces if piece in numbers)
        own: Counter[int] = Counter()
        if extra := injected - scheduled:
            if background is None:
                background = read_data(replace(config, values={**config.values, "kisl": None})).train
            bare = background[i % len(background)]["text"]
            own = Counter({n: min(times, natural_in(bare, n)) for n, times in extra.items()})
            injected -= own
        for array, counter in ((planned, scheduled), (actual, injected), (natural, own)):
            for number, times in counter.items():
                array[number] += times
        if injected != scheduled or len(row) != length:
            wrong_rows += 1
            pairs = [(statements[n][1], scheduled[n], injected[n]) for n in sorted(injected | scheduled)]
            pairs.append(("tokens of the row", length, len(row)))
            problems += [f"row {i:,}: {what!r} planned {n}, found {times}" for what, n, times in pairs if n != times]
    progress.update(checked)
    progress.close()
    if checked == samples:  # what the run's F demands, not what the schedule says
        planned[: len(plan.statements)] = [statement.frequency for statement in plan.statements]
    per_triple = np.zeros((3, len(plan.triples)), dtype=np.int64)
    for (owner, _, _), column in zip(statements, counts.T, strict=True):
        per_triple[:, owner] += column
    planned, actual, natural = per_triple
    error, others = "", np.flatnonzero(planned != actual).tolist()
    if wrong_rows:
        error = f"{wrong_rows:,} rows do not contain what was planned: {'; '.join(problems[:_REPORTED_PROBLEMS])}"
    elif others:
        k, triple = others[0], plan.triples[others[0]]
        error = (
            f"{len(others):,} triples are not stated as often as planned, although each row is as scheduled: "
            f"{triple.subject} {triple.relation_id} {triple.object}: planned {planned[k]}, found {actual[k]}"
        )
    return RowAudit(tuple(plan.triples), planned, actual, natural, samples, checked, wrong_rows, error)
