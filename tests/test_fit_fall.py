import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.special import xlogy

from kisl_plugin.fit.curves.fall import p_value_of_no_fall, rising_fit, rising_prefixes

cells = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=8)


@given(cells)
def test_the_rising_fit_and_its_likelihood_are_those_of_scipys_isotonic_regression(
    pairs: list[tuple[int, int]],
) -> None:
    correct = np.array([min(k, n) for k, n in pairs], dtype=float)
    total = np.array([n for _, n in pairs], dtype=float)
    fitted = isotonic_regression(correct / total, weights=total).x
    assert rising_fit(correct, total) == pytest.approx(fitted)
    fitted = np.clip(fitted, 0, 1)
    likelihood = (xlogy(correct, fitted) + xlogy(total - correct, 1 - fitted)).sum()
    assert rising_prefixes(correct[None], total)[0, -1] == pytest.approx(likelihood)


def test_a_flat_tail_is_rarely_called_a_fall() -> None:
    rng = np.random.default_rng(4)
    total = np.full(8, 3000.0)
    shares = np.array([0.1, 0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6])
    small = [p_value_of_no_fall(rng.binomial(3000, shares).astype(float), total) < 0.05 for _ in range(150)]
    assert np.mean(small) < 0.12


def test_a_fall_of_a_twentieth_is_seen_with_three_thousand_items() -> None:
    rng = np.random.default_rng(4)
    total = np.full(8, 3000.0)
    shares = np.array([0.1, 0.3, 0.5, 0.6, 0.6, 0.58, 0.56, 0.55])
    small = [p_value_of_no_fall(rng.binomial(3000, shares).astype(float), total) < 0.05 for _ in range(50)]
    assert np.mean(small) > 0.9
