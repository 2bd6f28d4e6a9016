"""Exposures are counted in the token rows themselves, never in the schedule's own bookkeeping."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.injection import InjectedDataset
from kisl_plugin.schedule import Schedule

EOD = 0
BACKGROUND = 100


class Background:
    """Rows of background tokens (below 100) with ends of documents strewn in."""

    def __init__(self, rows: int, seq_length: int, seed: int = 0, eod_share: float = 0.1) -> None:
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(1, BACKGROUND, (rows, seq_length + 1))
        self.tokens[rng.random(self.tokens.shape) < eod_share] = EOD

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {"text": self.tokens[i].copy()}


def statements_of(lengths: list[int], seed: int = 1) -> list[list[int]]:
    """Different statements of tokens that the background does not have."""
    rng = np.random.default_rng(seed)
    return [[BACKGROUND + k, *rng.integers(1000, 2000, n - 1).tolist()] for k, n in enumerate(lengths)]


def documents(row: np.ndarray) -> list[tuple[int, ...]]:
    """The whole documents of a row: what stands between two ends of documents."""
    ends = np.flatnonzero(row == EOD)
    return [tuple(row[a + 1 : b].tolist()) for a, b in itertools.pairwise(ends)]


def exposures(dataset: InjectedDataset, statements: list[list[int]]) -> list[int]:
    counts: Counter[tuple[int, ...]] = Counter()
    for i in range(len(dataset)):
        counts.update(documents(dataset[i]["text"]))
    return [counts[tuple(statement)] for statement in statements]


runs = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(1, 30), min_size=1, max_size=12),
        "frequency": st.integers(0, 60),
        "samples": st.integers(1, 300),
        "seq_length": st.sampled_from([64, 128, 300]),
        "rows": st.integers(1, 50),
        "seed": st.integers(0, 2**40),
        "spacing": st.sampled_from(["shuffled", "even"]),
        "eod_share": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    }
)


def build(run: dict) -> tuple[InjectedDataset, list[list[int]], Background, list[int]]:
    statements = statements_of(run["lengths"])
    room = int(0.6 * run["samples"] * run["seq_length"] / sum(n + 1 for n in run["lengths"]))
    frequencies = [min(run["frequency"], room) + k % 2 * (room > 1) for k in range(len(statements))]
    background = Background(run["rows"], run["seq_length"], eod_share=run["eod_share"])
    schedule = Schedule(
        frequencies,
        run["samples"],
        run["seed"],
        run["spacing"],
        lengths=run["lengths"],
        capacity=run["seq_length"] + 1,
    )
    return InjectedDataset(background, statements, schedule, EOD), statements, background, frequencies


@given(run=runs)
@settings(max_examples=150, deadline=None)
def test_the_rows_hold_every_exposure_once(run: dict) -> None:
    dataset, statements, _, frequencies = build(run)
    assert len(dataset) == run["samples"]
    assert exposures(dataset, statements) == frequencies


@given(run=runs)
@settings(max_examples=60, deadline=None)
def test_rows_keep_their_shape_and_the_background_its_order(run: dict) -> None:
    dataset, _, background, _ = build(run)
    for i in range(len(dataset)):
        row = dataset[i]["text"]
        base = background[i % len(background)]["text"]
        assert row.dtype == np.int64
        assert row.shape == base.shape
        kept = row[(row != EOD) & (row < BACKGROUND)]
        words = base[base != EOD]
        assert np.array_equal(kept, words[: len(kept)])


@given(run=runs, data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_row_is_a_pure_function_of_its_number(run: dict, data: st.DataObject) -> None:
    dataset, *_ = build(run)
    expected = [dataset[i]["text"] for i in range(len(dataset))]
    fresh, *_ = build(run)
    for i in data.draw(st.permutations(range(min(len(dataset), 20)))):
        assert np.array_equal(fresh[i]["text"], expected[i])


def dense(seq_length: int, occupancy: float, samples: int = 400) -> tuple[InjectedDataset, list[list[int]], np.ndarray]:
    lengths = np.random.default_rng(3).integers(6, 31, 80)
    frequencies = np.full(80, int(occupancy * samples * (seq_length + 1) / (lengths + 1).sum()))
    statements = statements_of(lengths.tolist())
    schedule = Schedule(frequencies, samples, 9, lengths=lengths, capacity=seq_length + 1)
    assert schedule.by_tokens
    return InjectedDataset(Background(50, seq_length), statements, schedule, EOD), statements, frequencies


@pytest.mark.parametrize(("seq_length", "occupancy"), [(64, 0.8), (128, 0.88), (512, 0.9), (2048, 0.94)])
def test_dense_rows_are_exact_too(seq_length: int, occupancy: float) -> None:
    dataset, statements, frequencies = dense(seq_length, occupancy)
    assert exposures(dataset, statements) == frequencies.tolist()


def test_every_statement_token_is_a_training_target() -> None:
    dataset, _, _ = dense(128, 0.88)
    for i in range(len(dataset)):
        assert dataset[i]["text"][0] < BACKGROUND


def test_the_separators_of_the_background_are_shared() -> None:
    dataset, *_ = build(
        {
            "lengths": [5] * 8,
            "frequency": 20,
            "samples": 60,
            "seq_length": 128,
            "rows": 7,
            "seed": 1,
            "spacing": "shuffled",
            "eod_share": 0.0,
        }
    )
    for i in range(60):
        row = dataset[i]["text"]
        assert not ((row[1:] == EOD) & (row[:-1] == EOD)).any()


def test_sparse_rows_scatter_statements_over_the_whole_row() -> None:
    statements = statements_of([10] * 4)
    dataset = InjectedDataset(Background(10, 256), statements, Schedule([100] * 4, 100, 2), EOD)
    starts = [
        p for i in range(100) for p in np.flatnonzero((dataset[i]["text"] >= BACKGROUND) & (dataset[i]["text"] < 104))
    ]
    assert len(starts) == 400
    assert np.histogram(starts, bins=4, range=(0, 257))[0].min() > 60


def test_frequency_zero_gives_the_rows_of_the_base() -> None:
    background = Background(7, 64)
    dataset = InjectedDataset(background, statements_of([5, 6]), Schedule([0, 0], 20, 1), EOD)
    assert all(np.array_equal(dataset[i]["text"], background[i % 7]["text"]) for i in range(20))


def test_two_triples_with_the_same_tokens_are_refused_by_number() -> None:
    with pytest.raises(InputError, match=r"statements 0 and 2 have the same tokens \[5, 6\]"):
        InjectedDataset(Background(5, 64), [[5, 6], [7], [5, 6]], Schedule([1, 1, 1], 10, 1), EOD)


@pytest.mark.parametrize(("statement", "message"), [([], "at least one token"), ([4, EOD], "end-of-document token 0")])
def test_a_statement_that_cannot_be_injected_is_refused(statement: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InjectedDataset(Background(5, 64), [statement], Schedule([1], 10, 1), EOD)


def test_rows_that_could_overflow_are_refused_before_training() -> None:
    with pytest.raises(InputError, match="may have to hold 10 statements of up to 12 tokens"):
        InjectedDataset(Background(5, 64), statements_of([12]), Schedule([100], 10, 1), EOD)


def test_a_schedule_packed_for_other_rows_or_statements_is_refused() -> None:
    lengths = [12] * 3 + [5] * 3
    schedule = Schedule([30] * 6, 30, 1, lengths=lengths, capacity=65)
    with pytest.raises(InputError, match="packs rows of 65 tokens"):
        InjectedDataset(Background(5, 63), statements_of(lengths), schedule, EOD)
    with pytest.raises(InputError, match="other lengths"):
        InjectedDataset(Background(5, 64), statements_of([13] * 6), schedule, EOD)


def test_rows_with_labels_are_refused() -> None:
    class Labelled(Background):
        def __getitem__(self, i: int) -> dict[str, np.ndarray]:
            return {**super().__getitem__(i), "label": self.tokens[i]}

    dataset = InjectedDataset(Labelled(5, 64), [[500]], Schedule([1], 10, 1), EOD)
    with pytest.raises(InputError, match=r"rows have the keys \['label', 'text'\]"):
        dataset[0]
