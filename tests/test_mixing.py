import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.schedule import draws, key_of, mix, permute

GOLDEN_MIX = [6238072747940578789, 2720858781877447050]
GOLDEN_KEY = 6065534995876963493
GOLDEN_DRAWS = [13225839796362995591, 8409816773569330625, 2793451718224172893]
GOLDEN_ORDER = [4, 7, 6, 2, 9, 3, 1, 0, 8, 5]


def test_the_numbers_are_the_same_for_ever() -> None:
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
