"""The new estimator of the infusion law gives what the old one gave; this file goes with the old one."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kisl_plugin.fit import law as old
from kisl_plugin.fit import law_new as new
from kisl_plugin.fit.law_new import Interval

OF_LAWS = st.tuples(st.floats(0.05, 2.5), st.sampled_from([0.0, 0.2, 0.6, 0.95]), st.sampled_from([0.5, 1.0, 3.0]))


def same_ends(before: Interval, after: Interval, farther: float, log: bool = True) -> None:
    """The new interval is the old one, or a little wider.

    Both are the range over laws whose deviance was found to be within the threshold, so the wider one is the more exact
    (the old grid was coarse where E tends to 0). `farther`: by how much it may be wider, as a share of half its width.
    """
    assert [end is None for end in before] == [end is None for end in after]
    (low, high), (new_low, new_high) = (
        [np.log(end) if log and end else end or 0.0 for end in ends] for ends in (before, after)
    )
    half = abs(high - low) / 2
    assert -0.003 * half - 1e-5 <= (low - new_low) * bool(low) <= farther * half + 1e-4
    assert -0.003 * half - 1e-5 <= new_high - high <= farther * half + 1e-4


@settings(deadline=None, max_examples=60, phases=[Phase.generate])
@given(
    st.lists(st.floats(0.0, 7.0), min_size=3, max_size=8, unique_by=lambda x: round(x, 1)),
    OF_LAWS,
    st.sampled_from([0.005, 0.05, 0.1, 0.3]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_new_law_is_the_old_one(
    depths: list[float],
    truth: tuple[float, float, float],
    error: float,
    with_intervals: bool,
    is_law: bool,
    seed: int,
) -> None:
    rng, (alpha, rho, excess) = np.random.default_rng(seed), truth
    compute = 1e22 * np.exp(-np.sort(depths)[::-1])
    f_star = 100 * ((1 - rho) * (compute / compute.max()) ** -alpha + rho)
    f_star = (
        f_star * np.exp(rng.normal(0, error * excess, len(f_star)))
        if is_law
        else np.exp(rng.uniform(0, 4, len(f_star)))
    )
    ends = [(v * np.exp(-1.96 * error), v * np.exp(1.96 * error)) for v in f_star.tolist()] if with_intervals else None
    before, after = old.fit_infusion_law(compute, f_star, ends), new.fit_infusion_law(compute, f_star, ends)
    for one, two in ((before, after), (before.without_E, after.without_E)):
        assert one is not None and two is not None
        assert two.scatter == pytest.approx(one.scatter, rel=1e-4, abs=1e-5, nan_ok=True)
        assert two.df == pytest.approx(one.df, rel=1e-4)
        assert two.e_distinguishable == one.e_distinguishable
        assert (two.r2, two.r2_by_chance) == pytest.approx((one.r2, one.r2_by_chance), abs=2e-3, nan_ok=True)
        assert [words.split()[0] for words in two.caveats[:-1]] == [words.split()[0] for words in one.caveats[:-1]]
        assert (two.alpha, np.log(two.A)) == pytest.approx((one.alpha, np.log(one.A)), rel=2e-3, abs=2e-3)
        assert two.E == pytest.approx(one.E, abs=1e-3 * f_star.min())
        for at in (compute[0], compute[-1], 10 * compute[-1]):
            assert two.predict(at) == pytest.approx(one.predict(at), rel=2e-3)
            same_ends(one.interval(at), two.interval(at), 0.5 if at > compute[-1] else 0.03)
        same_ends(one.alpha_interval, two.alpha_interval, 0.01, log=False)
        same_ends(one.E_interval, two.E_interval, 0.1, log=False)
