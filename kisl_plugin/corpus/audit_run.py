"""The rows of a run, from the keys of its YAML that lay them, whichever engine trains it."""

from collections import Counter
from collections.abc import Iterator, Sequence
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

# The rows of a run, from the keys of its YAML that lay them, whichever engine trains it.


@dataclass(frozen=True)
class Run:
    """A run with a `kisl` section, laid out."""

    config: LocalConfig
    data: RunData
    plan: InjectionPlan

    @property
    def corpus(self) -> Path:
        """Common beginning of the background's .bin and .idx."""
        return Path(self.config["data_path"])

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json."""
        return Path(self.config["vocab_file"])

    @property
    def on_one_device(self) -> str:
        """What is to be known where train_batch_size is not given; else empty."""
        if self.config["train_batch_size"] is not None:
            return ""
        return f"train_batch_size is not given: {self.config.batch} rows a step are taken, those of one device"

    @property
    def rows(self) -> Rows:
        """Row i is what sample i is trained on."""
        return self.data.train

    @cached_property
    def background(self) -> Rows:
        """The rows without statements; row i of the run is made of row i modulo their number. Laid when asked for."""
        return read_data(replace(self.config, values={**self.config.values, "kisl": None})).train


def read_run(paths: Sequence[Path]) -> Run:
    """Lay the rows of a run's YAMLs.

    Raises:
        InputError: a key is missing or wrong, the rows are such as only GPT-NeoX lays, or the injection does not fit.
    """
    config = read_row_config(paths)
    data = read_data(config)
    if data.plan is None:
        raise InputError(f"{config.where}: kisl is missing; without it no row holds a statement that was planned")
    return Run(config, data, data.plan)


# Whether the rows of a run hold the statements that were planned: found by looking at tokens, not by asking.

NAMED = 3
UPDATE_ROWS = 256


@dataclass(frozen=True)
class Mismatch:
    """A row that does not hold a statement as often as planned."""

    row: int
    text: str
    planned: int
    found: int

    def __str__(self) -> str:
        return f"row {self.row:,}: {self.text!r} planned {self.planned}, found {self.found}"


@dataclass(frozen=True)
class RowAudit:
    """What the rows of a run hold; arrays are int64 [K], one entry for each of `triples`.

    `planned` is F where all rows were looked at, else what the schedule says of `looked` of them. `found` counts the
    statements that were injected, `natural` those that the background itself holds in these rows. The run reads
    `passes` times as many tokens as its corpus has.
    """

    triples: tuple[Triple, ...]
    planned: IntArray
    found: IntArray
    natural: IntArray
    rows: int
    looked: int
    passes: float
    wrong_rows: int
    mismatches: tuple[Mismatch, ...]

    @property
    def wrong_triples(self) -> list[int]:
        """Triples that the rows do not hold as often as planned."""
        return [int(k) for k in np.flatnonzero(self.planned != self.found)]

    @property
    def holds(self) -> bool:
        """Whether every row and every triple is as planned."""
        return not self.wrong_rows and not self.wrong_triples

    def what_is_wrong(self) -> str:
        """One line: the first rows that are not as planned, else the first triples."""
        if self.wrong_rows:
            return f"{self.wrong_rows:,} rows do not hold what is planned: {'; '.join(map(str, self.mismatches))}"
        first = self.wrong_triples[0]
        return (
            f"{len(self.wrong_triples):,} triples are not stated as often as planned, though each row is as scheduled: "
            f"{self.triples[first].subject} {self.triples[first].relation_id} {self.triples[first].object}: planned "
            f"{self.planned[first]}, found {self.found[first]}"
        )


class _Statements:
    """All statements by their tokens: the plan's first, numbered as there, then those of the control triples."""

    def __init__(self, run: Run) -> None:
        plan, settings = run.plan, run.plan.settings
        verbalizer = verbalizer_of(settings.form)
        number = {triple: k for k, triple in enumerate(plan.triples)}
        injected = [(number[s.triple], s.text, s.tokens) for s in plan.statements]
        states = {k for k, _, _ in injected}
        others = [
            (k, text, np.array(run.data.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64))
            for k, triple in enumerate(plan.triples)
            if k not in states
            for text in (verbalizer.text(triple, template) for template in settings.templates)
        ]
        self.owner = [k for k, _, _ in (*injected, *others)]
        self.texts = [text for _, text, _ in (*injected, *others)]
        self.tokens = [tokens for _, _, tokens in (*injected, *others)]
        self._numbers = {tokens.tobytes(): n for n, tokens in reversed([*enumerate(self.tokens)])}
        self._eod = run.data.eod

    def standing_in(self, row: NDArray[np.int64]) -> Counter[int]:
        """How often each statement stands in the row as a document of its own, an end of document on either side."""
        pieces = (row[a + 1 : b].tobytes() for a, b in pairwise(np.flatnonzero(row == self._eod).tolist()))
        return Counter(self._numbers[piece] for piece in pieces if piece in self._numbers)

    def anywhere_in(self, row: NDArray[np.int64], number: int) -> int:
        """How often a statement's tokens follow one another in the row, wherever."""
        tokens = self.tokens[number]
        if len(tokens) > len(row):
            return 0
        windows = np.lib.stride_tricks.sliding_window_view(row, len(tokens))
        return int((windows == tokens).all(axis=1).sum())


def audit_rows(run: Run, rows: int | None = None) -> RowAudit:
    """Look at all rows of a run, or at `rows` of them spread evenly, and compare each with the plan.

    A statement beyond the plan is natural where the background that the row is made of holds it.
    """
    statements = _Statements(run)
    samples = run.plan.schedule.samples
    looked = min(rows or samples, samples)
    planned, found, natural = (np.zeros(len(statements.texts), dtype=np.int64) for _ in range(3))
    mismatches: list[Mismatch] = []
    wrong_rows, length = 0, run.config["seq_length"] + 1
    for i in _spread(looked, samples):
        plan = Counter(run.plan.schedule.triples_in(i).tolist())
        row = run.rows[i]["text"]
        seen = statements.standing_in(row)
        own = _natural(run, statements, i, seen - plan) if seen != plan else Counter()
        seen -= own
        for counts, total in ((plan, planned), (seen, found), (own, natural)):
            for number, times in counts.items():
                total[number] += times
        wrong_rows += seen != plan or len(row) != length
        wrong = sorted(n for n in seen | plan if seen[n] != plan[n])[: NAMED - len(mismatches)]
        mismatches += [Mismatch(i, statements.texts[n], plan[n], seen[n]) for n in wrong]
        if seen == plan and len(row) != length:
            mismatches = [*mismatches, Mismatch(i, "tokens of the row", length, len(row))][:NAMED]
    if looked == samples:  # not what the schedule says, but what was asked for
        planned[: len(run.plan.statements)] = [s.frequency for s in run.plan.statements]
    per_triple = [_by_triple(statements, counts, len(run.plan.triples)) for counts in (planned, found, natural)]
    passes = samples * run.config["seq_length"] / int(run.data.corpus.sizes.sum(dtype=np.int64))
    of_rows = (samples, looked, passes, wrong_rows, tuple(mismatches))
    return RowAudit(tuple(run.plan.triples), per_triple[0], per_triple[1], per_triple[2], *of_rows)


def _natural(run: Run, statements: _Statements, i: int, extra: Counter[int]) -> Counter[int]:
    """Of statements beyond the plan, those that the row's background holds."""
    background = run.background[i % len(run.background)]["text"]
    return Counter({n: min(times, statements.anywhere_in(background, n)) for n, times in extra.items()})


def _by_triple(statements: _Statements, counts: IntArray, triples: int) -> IntArray:
    totals = np.zeros(triples, dtype=np.int64)
    np.add.at(totals, statements.owner, counts)
    return totals


def _spread(looked: int, rows: int) -> Iterator[int]:
    """So many row numbers of all, evenly, with progress."""
    progress = Progress("checking rows", looked)
    for done in range(looked):
        if done % UPDATE_ROWS == 0:
            progress.update(done)
        yield (2 * done + 1) * rows // (2 * looked)
    progress.update(looked)
    progress.close()
