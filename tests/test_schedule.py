"""The schedule: exact counts, pure functions, and numbers that never change."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.schedule import Schedule, draws, key_of, mix, permute

SPACINGS = ("shuffled", "even")
GOLDEN_SHUFFLED = [[0, 1], [2, 2], [1, 2], [1, 2], [0, 2], [1, 0]]
GOLDEN_PACKED = "e293188ca5edbe4fe12df70dcfaf5aaf540f368b682603b22a4ec69824651d61"
GOLDEN_EVEN = [[0, 1, 2], [], [0, 1, 2], [1, 2], [0, 2], [1, 2]]
GOLDEN_MIX = [6238072747940578789, 2720858781877447050]
GOLDEN_KEY = 6065534995876963493
GOLDEN_DRAWS = [13225839796362995591, 8409816773569330625, 2793451718224172893]
GOLDEN_ORDER = [4, 7, 6, 2, 9, 3, 1, 0, 8, 5]
frequencies_of_runs = st.lists(st.integers(0, 40), min_size=1, max_size=12)


def exposures_in_rows(schedule: Schedule) -> np.ndarray:
    rows = [schedule.triples_in(i) for i in range(schedule.samples)]
    return np.bincount(np.concatenate(rows), minlength=len(schedule.frequencies))


@given(
    frequencies=frequencies_of_runs,
    samples=st.integers(1, 700),
    seed=st.integers(0, 2**40),
    spacing=st.sampled_from(SPACINGS),
)
@settings(max_examples=150, deadline=None)
def test_every_triple_gets_exactly_its_exposures(frequencies: list[int], samples: int, seed: int, spacing: str) -> None:
    schedule = Schedule(frequencies, samples, seed, spacing)
    assert exposures_in_rows(schedule).tolist() == frequencies
    assert schedule.count_exposures().tolist() == frequencies
    assert max(len(schedule.triples_in(i)) for i in range(samples)) <= schedule.largest_row


@given(frequencies=frequencies_of_runs, samples=st.integers(1, 700), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_sample_does_not_depend_on_the_order_of_calls(
    frequencies: list[int], samples: int, seed: int, data: st.DataObject
) -> None:
    spacing = data.draw(st.sampled_from(SPACINGS))
    order = data.draw(st.permutations(range(min(samples, 30))))
    forward = Schedule(frequencies, samples, seed, spacing)
    expected = [forward.triples_in(i).tolist() for i in range(samples)]
    jumping = Schedule(frequencies, samples, seed, spacing)
    for i in order:
        assert jumping.triples_in(i).tolist() == expected[i]


@given(
    frequency=st.integers(2, 60),
    triples=st.integers(1, 80),
    others=st.lists(st.integers(1, 90), max_size=4),
    samples=st.integers(60, 2000),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_even_spacing_leaves_no_gap_above_two_periods(
    frequency: int, triples: int, others: list[int], samples: int, seed: int
) -> None:
    schedule = Schedule([frequency] * triples + others, samples, seed, "even")
    places: dict[int, list[int]] = {}
    for i in range(samples):
        for triple in schedule.triples_in(i):
            places.setdefault(int(triple), []).append(i)
    for triple in range(triples):
        assert np.diff(places[triple]).max() <= 2 * samples / frequency
        assert places[triple][0] <= 2 * samples / frequency
        assert samples - places[triple][-1] <= 2 * samples / frequency


@given(
    low=st.floats(0, 0.9),
    width=st.floats(0.1, 1.0),
    frequencies=frequencies_of_runs,
    spacing=st.sampled_from(SPACINGS),
)
@settings(max_examples=60, deadline=None)
def test_a_window_holds_all_exposures_and_the_rest_of_the_run_none(
    low: float, width: float, frequencies: list[int], spacing: str
) -> None:
    high, samples = min(1.0, low + width), 300
    schedule = Schedule(frequencies, samples, 3, spacing, window=(low, high))
    assert exposures_in_rows(schedule).tolist() == frequencies
    outside = [i for i in range(samples) if i < int(low * samples) or i >= int(high * samples)]
    assert all(len(schedule.triples_in(i)) == 0 for i in outside)


@given(
    lengths=st.lists(st.integers(6, 30), min_size=5, max_size=60),
    seq_length=st.sampled_from([64, 128, 512]),
    samples=st.integers(60, 900),
    seed=st.integers(0, 2**32),
    spacing=st.sampled_from(SPACINGS),
)
@settings(max_examples=60, deadline=None)
def test_dense_rows_hold_every_exposure_and_never_overflow(
    lengths: list[int], seq_length: int, samples: int, seed: int, spacing: str
) -> None:
    # Equal long statements cannot fill a short row by 0.8 however they are packed: add short ones.
    costs = np.array([*lengths, 6, 8, 10]) + 1
    occupancy = 0.80 if seq_length < 512 else 0.90
    frequency = int(occupancy * samples * (seq_length + 1) / costs.sum())
    frequencies = np.full(len(costs), frequency)
    schedule = Schedule(frequencies, samples, seed, spacing, lengths=costs - 1, capacity=seq_length + 1)
    assert np.array_equal(exposures_in_rows(schedule), frequencies)
    assert max(costs[schedule.triples_in(i)].sum() for i in range(samples)) <= seq_length


@pytest.mark.parametrize(("seq_length", "occupancy"), [(64, 0.88), (2048, 0.97)])
def test_dense_rows_fill_beyond_what_the_contract_asks(seq_length: int, occupancy: float) -> None:
    lengths = np.random.default_rng(0).integers(6, 31, 300)
    samples = 2000
    frequency = int(occupancy * samples * (seq_length + 1) / (lengths + 1).sum())
    frequencies = np.full(300, frequency)
    schedule = Schedule(frequencies, samples, 5, lengths=lengths, capacity=seq_length + 1)
    assert schedule.by_tokens
    assert np.array_equal(schedule.count_exposures(), frequencies)


def test_a_dense_row_is_never_ahead_of_its_share() -> None:
    lengths = np.random.default_rng(1).integers(6, 31, 100)
    samples = 700
    frequencies = np.full(100, int(0.9 * samples * 129 / (lengths + 1).sum()))
    schedule = Schedule(frequencies, samples, 5, lengths=lengths, capacity=129)
    placed = np.cumsum([len(schedule.triples_in(i)) for i in range(samples)])
    share = np.arange(1, samples + 1) * frequencies.sum() / samples
    assert (placed <= np.ceil(share)).all()


@pytest.mark.parametrize(
    ("seq_length", "occupancy", "samples"), [(64, 0.80, 2987), (128, 0.80, 426), (2048, 0.90, 426)]
)
def test_even_spacing_keeps_its_gaps_in_rows_packed_by_tokens(seq_length: int, occupancy: float, samples: int) -> None:
    lengths = np.random.default_rng(seq_length + samples).integers(6, 31, 200)
    frequency = int(occupancy * samples * (seq_length + 1) / (lengths + 1).sum())
    schedule = Schedule([frequency] * 200, samples, 3, "even", lengths=lengths, capacity=seq_length + 1)
    assert schedule.by_tokens
    places: dict[int, list[int]] = {}
    for i in range(samples):
        for triple in schedule.triples_in(i).tolist():
            places.setdefault(triple, []).append(i)
    assert max(np.diff(rows).max() for rows in places.values()) <= 2 * samples / frequency
    assert schedule.repacked_rows <= 64


def test_blocks_of_a_packed_tail_join_the_rest_seamlessly() -> None:
    lengths = np.random.default_rng(8).integers(6, 31, 150)
    frequency = int(0.94 * 3000 * 65 / (lengths + 1).sum())
    schedule = Schedule([frequency] * 150, 3000, 1, lengths=lengths, capacity=65)
    assert 0 < schedule.repacked_rows < 3000
    assert exposures_in_rows(schedule).tolist() == [frequency] * 150
    backwards = Schedule([frequency] * 150, 3000, 1, lengths=lengths, capacity=65)
    for i in range(2999, 0, -97):
        assert np.array_equal(backwards.triples_in(i), schedule.triples_in(i))


@pytest.mark.parametrize("triples", [15, 16, 17, 8 * 125 + 1])
def test_even_rounds_hold_every_triple_once_whatever_their_number(triples: int) -> None:
    schedule = Schedule([4] * triples, triples * 4, 2, "even")
    assert exposures_in_rows(schedule).tolist() == [4] * triples


def test_sparse_rows_are_not_changed_by_lengths() -> None:
    plain = Schedule([9] * 20, 400, 1)
    measured = Schedule([9] * 20, 400, 1, lengths=[20] * 20, capacity=2049)
    assert not measured.by_tokens
    assert all(np.array_equal(plain.triples_in(i), measured.triples_in(i)) for i in range(400))


def test_what_does_not_fit_is_refused_with_the_figures() -> None:
    with pytest.raises(InputError, match=r"take 23,100 of 12,800 tokens .*lower the frequency"):
        Schedule([110] * 10, 100, 1, lengths=[20] * 10, capacity=129)
    with pytest.raises(InputError, match="statement of 128 tokens and its two separators"):
        Schedule([1], 100, 1, lengths=[128], capacity=129)


def test_shuffled_exposures_are_uniform_over_the_run() -> None:
    schedule = Schedule([1000] * 50, 5000, 11)
    tenths = np.zeros((50, 10))
    for i in range(5000):
        for triple in schedule.triples_in(i):
            tenths[triple, i // 500] += 1
    chi_square = ((tenths - 100) ** 2 / 100).sum()
    assert abs(chi_square - 450) < 5 * np.sqrt(900)


def test_seeds_and_spacings_give_different_plans() -> None:
    plans = {
        (seed, spacing): tuple(tuple(Schedule([5] * 9, 40, seed, spacing).triples_in(i)) for i in range(40))
        for seed in (1, 2)
        for spacing in SPACINGS
    }
    assert len(set(plans.values())) == 4


def test_the_plan_of_a_seed_never_changes() -> None:
    shuffled = Schedule([3, 4, 5], 6, 1234)
    even = Schedule([3, 4, 5], 6, 1234, "even")
    assert [shuffled.triples_in(i).tolist() for i in range(6)] == GOLDEN_SHUFFLED
    assert [even.triples_in(i).tolist() for i in range(6)] == GOLDEN_EVEN
    packed = Schedule([95] * 30, 300, 1234, "even", lengths=list(range(6, 36)), capacity=220)
    assert packed.by_tokens
    rows = [packed.triples_in(i).tolist() for i in range(300)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest() == GOLDEN_PACKED


def test_a_hundred_million_samples_start_at_once_in_little_memory() -> None:
    program = (
        "import resource, numpy as np\n"
        "from kisl_plugin.schedule import Schedule\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "Schedule(np.full(10**6, 1000), 10**8, 1).triples_in(99_999_999)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-1], 10, 1), "frequencies: -1 at index 0"),
        (([1.5], 10, 1), "frequencies: expected a list of whole numbers"),
        (([1], 0, 1), "samples: 0"),
        ((np.array([2**63], dtype=np.uint64), 10, 1), "frequencies: 9223372036854775808 at index 0"),
        (([2**61, 2**61, 1], 10, 1), "exposures in total; expected at most"),
        (([1], 10, 1, "bunched"), "spacing: 'bunched' is unknown"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(*arguments)


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"window: \[0.5, 0.51\] contains none of the 10 samples"):
        Schedule([1], 10, 1, window=(0.5, 0.51))
    with pytest.raises(InputError, match=r"window: \[0.5, 0.2\]"):
        Schedule([1], 10, 1, window=(0.5, 0.2))


def test_numpy_numbers_are_numbers() -> None:
    plain, numpy = Schedule([3, 4], 50, 7), Schedule(np.array([3, 4], np.uint16), np.int64(50), np.int64(7))
    assert all(np.array_equal(plain.triples_in(i), numpy.triples_in(np.int64(i))) for i in range(50))


def test_a_sample_outside_the_run_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        Schedule([1], 10, 1).triples_in(10)


def test_the_numbers_of_a_key_never_change() -> None:
    assert mix(np.array([1, 2**63], dtype=np.uint64)).tolist() == GOLDEN_MIX
    assert key_of(1234, 1) == GOLDEN_KEY
    assert draws(7, np.arange(3)).tolist() == GOLDEN_DRAWS
    assert permute(np.arange(10), 10, key_of(1, 0)).tolist() == GOLDEN_ORDER


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_a_permutation_meets_every_place_once(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=10), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_permutations_of_several_sizes_at_once_are_each_a_permutation(sizes: list[int], seed: int) -> None:
    indices = np.concatenate([np.arange(size) for size in sizes])
    size_of = np.repeat(sizes, sizes)
    out = permute(indices, size_of, draws(seed, size_of))
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        assert sorted(out[end - size : end].tolist()) == list(range(size))


def test_a_huge_permutation_is_evaluated_without_being_stored() -> None:
    places = np.arange(10**12, 10**12 + 1000)
    out = permute(places, 2 * 10**12, 5)
    assert len(set(out.tolist())) == 1000
    assert out.min() >= 0
    assert out.max() < 2 * 10**12


def test_a_permutation_moves_items_uniformly() -> None:
    size, seeds = 50, 2000
    hits = np.zeros((size, size))
    for seed in range(seeds):
        hits[np.arange(size), permute(np.arange(size), size, key_of(seed, 9))] += 1
    chi_square = ((hits - seeds / size) ** 2 / (seeds / size)).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.integers(30, 900),
    st.sampled_from(["shuffled", "even"]),
    st.booleans(),
    st.tuples(st.integers(0, 900), st.integers(0, 900)),
)
def test_exposures_are_counted_over_any_part_of_a_run(
    frequencies: list[int], samples: int, spacing: str, dense: bool, part: tuple[int, int]
) -> None:
    packed = {"lengths": [3 + k for k in range(len(frequencies))], "capacity": 12} if dense else {}
    try:
        schedule = Schedule(frequencies, samples, 5, spacing, window=(0.1, 0.9), **packed)
    except InputError:
        return
    start, stop = sorted(min(i, samples) for i in part)
    assert schedule.exposures_in(start, stop) == sum(len(schedule.triples_in(i)) for i in range(start, stop))
    assert schedule.exposures_in(0, samples) == schedule.exposures
