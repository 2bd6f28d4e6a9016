import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize
from scipy.special import xlogy

from kisl_plugin.fit.curve import fall_ratio, rising_fit, rising_prefixes, second_peak_ratio, unimodal_fit
from kisl_plugin.fit.curve_estimate import FloatArray

cells = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=8)


def as_counts(pairs: list[tuple[int, int]]) -> tuple[FloatArray, FloatArray]:
    correct = np.array([[min(k, n) for k, n in pairs]], dtype=float)
    return correct, np.array([[n for _, n in pairs]], dtype=float)


def log_likelihood(correct: FloatArray, total: FloatArray, share: FloatArray) -> float:
    share = np.clip(share, 0, 1)
    return float((xlogy(correct, share) + xlogy(total - correct, 1 - share)).sum())


@given(cells)
def test_the_rising_fit_and_its_likelihood_are_those_of_scipys_isotonic_regression(
    pairs: list[tuple[int, int]],
) -> None:
    correct, total = as_counts(pairs)
    fitted = isotonic_regression(correct[0] / total[0], weights=total[0]).x
    assert rising_fit(correct, total)[0] == pytest.approx(fitted)
    assert rising_prefixes(correct, total)[0, -1] == pytest.approx(log_likelihood(correct, total, fitted))


@given(cells)
def test_the_unimodal_fit_is_the_best_of_all_peaks_and_its_ratios_are_those_of_its_likelihood(
    pairs: list[tuple[int, int]],
) -> None:
    correct, total = as_counts(pairs)
    share, weight = correct[0] / total[0], total[0]
    fits = []
    for top in range(len(share) + 1):
        up = isotonic_regression(share[:top], weights=weight[:top]).x if top else share[:0]
        down = isotonic_regression(share[top:], weights=weight[top:], increasing=False).x if top < len(share) else []
        fits.append(log_likelihood(correct, total, np.concatenate([up, down])))
    best = max(fits)
    assert log_likelihood(correct, total, unimodal_fit(correct, total)[0]) == pytest.approx(best)
    rising = log_likelihood(correct, total, rising_fit(correct, total)[0])
    assert fall_ratio(correct, total)[0] == pytest.approx(2 * (best - rising), abs=1e-9)
    saturated = log_likelihood(correct, total, share)
    assert second_peak_ratio(correct, total)[0] == pytest.approx(2 * (saturated - best), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(cells.filter(lambda pairs: len(pairs) == 5), min_size=1, max_size=4))
def test_many_sweeps_at_once_are_each_as_alone(sweeps: list[list[tuple[int, int]]]) -> None:
    correct, total = (np.concatenate(parts) for parts in zip(*map(as_counts, sweeps), strict=True))
    for together in (fall_ratio, second_peak_ratio, unimodal_fit, rising_fit):
        alone = [together(*as_counts(pairs))[0] for pairs in sweeps]
        assert together(correct, total) == pytest.approx(np.array(alone))


def test_no_rising_shares_found_by_a_general_optimiser_are_likelier() -> None:
    rng = np.random.default_rng(1)
    total = np.full((1, 6), 40.0)
    correct = rng.binomial(40, [0.2, 0.5, 0.4, 0.6, 0.55, 0.5])[None].astype(float)
    steps = minimize(
        lambda x: -log_likelihood(correct, total, np.cumsum(x)),
        np.full(6, 0.1),
        bounds=[(1e-6, 1)] * 6,
        constraints={"type": "ineq", "fun": lambda x: 1 - 1e-6 - x.sum()},
    )
    assert log_likelihood(correct, total, rising_fit(correct, total)[0]) >= -steps.fun - 1e-6
