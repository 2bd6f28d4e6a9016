import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.special import xlogy

from kisl_plugin.fit.curve import bootstrap_p_values, order_restricted
from kisl_plugin.fit.likelihood import FloatArray

pairs_of_counts = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=8)


def as_counts(pairs: list[tuple[int, int]]) -> tuple[FloatArray, FloatArray]:
    correct = np.array([[min(k, n) for k, n in pairs]], dtype=float)
    return correct, np.array([[n for _, n in pairs]], dtype=float)


def log_likelihood(correct: FloatArray, total: FloatArray, share: FloatArray) -> float:
    share = np.clip(share, 0, 1)
    return float((xlogy(correct, share) + xlogy(total - correct, 1 - share)).sum())


@given(pairs_of_counts)
def test_fits_and_ratios_are_those_of_scipys_isotonic_regression(pairs: list[tuple[int, int]]) -> None:
    correct, total = as_counts(pairs)
    share, weight = correct[0] / total[0], total[0]
    rising, unimodal, fall, second_peak = (part[0] for part in order_restricted(correct, total))
    assert rising == pytest.approx(isotonic_regression(share, weights=weight).x)
    fits = []
    for top in range(len(share) + 1):
        up = isotonic_regression(share[:top], weights=weight[:top]).x if top else share[:0]
        down = isotonic_regression(share[top:], weights=weight[top:], increasing=False).x if top < len(share) else []
        fits.append(log_likelihood(correct, total, np.concatenate([up, down])))
    assert log_likelihood(correct, total, unimodal) == pytest.approx(max(fits))
    assert fall == pytest.approx(2 * (max(fits) - log_likelihood(correct, total, rising)), abs=1e-9)
    assert second_peak == pytest.approx(2 * (log_likelihood(correct, total, share) - max(fits)), abs=1e-9)


@settings(max_examples=20)
@given(st.lists(pairs_of_counts.filter(lambda pairs: len(pairs) == 5), min_size=1, max_size=4))
def test_many_data_sets_at_once_are_each_as_alone(sets: list[list[tuple[int, int]]]) -> None:
    correct, total = (np.concatenate(parts) for parts in zip(*map(as_counts, sets), strict=True))
    for part, together in enumerate(order_restricted(correct, total)):
        alone = [order_restricted(*as_counts(pairs))[part][0] for pairs in sets]
        assert together == pytest.approx(np.array(alone))


def p_of_falls(correct: FloatArray, total: FloatArray, noise_share: float = 0.0, df: float = 1.0) -> FloatArray:
    rising, _, fall, _ = order_restricted(correct, total)
    sets = len(correct)
    noise = np.full(sets, noise_share), np.full(sets, df)
    return bootstrap_p_values(fall, rising, total, *noise, lambda k, n, _: order_restricted(k, n)[2])


def test_flat_shares_are_rarely_said_to_fall_and_falling_ones_always() -> None:
    rng, total = np.random.default_rng(4), np.full((200, 6), 400.0)
    p = p_of_falls(rng.binomial(400, 0.5, total.shape).astype(float), total)
    assert 0.01 <= np.mean(p < 0.05) <= 0.1
    falling = np.round(400 * np.array([[0.3, 0.6, 0.7, 0.6, 0.4, 0.2]]))
    assert p_of_falls(falling, total[:1])[0] == pytest.approx(0.001, abs=1e-6)


def test_noise_estimated_from_few_degrees_of_freedom_makes_p_larger() -> None:
    correct, total = np.array([[150.0, 200, 230, 225, 195, 205]]), np.full((1, 6), 400.0)
    exact, estimated = p_of_falls(correct, total)[0], p_of_falls(correct, total, noise_share=0.9, df=3)[0]
    assert exact < 0.05 < estimated
