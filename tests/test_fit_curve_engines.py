"""The new engine of the collapse curve gives the results of the old one."""

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from kisl_plugin.fit import curve as old
from kisl_plugin.fit import curve_new as new

GRIDS = (
    (10, 50, 200, 1000),
    (10, 50, 200, 500, 5000),
    (10, 50, 200, 500, 1000, 5000),
    (1, 5, 20, 80, 300, 1000, 4000),
    (10, 50, 100, 200, 500, 1000, 2000, 5000),
    (10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    F = np.array(draw(st.sampled_from(GRIDS)), dtype=float)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    floor = draw(st.sampled_from([0.0, 0.0, 0.05, 0.25, 0.5]))
    items = draw(st.sampled_from([20, 50, 200, 500, 1000, 3000, 10000]))
    shape = draw(st.sampled_from(["form", "form", "form", "saturates", "random", "constant"]))
    if shape == "form":
        f_star = np.exp(rng.uniform(np.log(F[0] / 5), np.log(F[-1] * 5)))
        b, height = rng.choice([0.02, 0.15, 0.3, 0.6, 1.5, 4]), rng.choice([0.02, 0.1, 0.3, 0.7, 0.98, 1.0])
        P = floor + (1 - floor) * height * np.exp(b * (np.log(F / f_star) - F / f_star + 1))
    elif shape == "saturates":
        P = floor + (1 - floor) * 0.8 * F / (F + rng.choice([10, 80, 500]))
    elif shape == "random":
        P = rng.uniform(0, 1, len(F))
    else:
        P = np.full(len(F), rng.choice([0, 1e-3, 1]))
    seeds, tau = draw(st.sampled_from([1, 1, 1, 2, 3, 5])), draw(st.sampled_from([0, 0, 0.05, 0.1, 0.3, 0.8]))
    odds = logit(np.clip(np.repeat(P, seeds), 1e-12, 1 - 1e-12)) + tau * rng.standard_normal(seeds * len(F))
    study = {"frequency": np.repeat(F, seeds), "floor": floor}
    if floor:
        study["floor_error"] = draw(st.sampled_from([0.0, 0.01, 0.03]))
    if items <= 3000 and draw(st.booleans()):
        right = (rng.random((items, len(odds))) < expit(odds + rng.standard_normal((items, 1)))).astype(float)
        if draw(st.booleans()):
            right[: items // 3, rng.integers(len(odds))] = np.nan
        return {**study, "correct": np.nansum(right, 0), "total": np.isfinite(right).sum(0), "outcomes": right}
    total = rng.integers(items // 10, items, len(odds), endpoint=True)
    return {**study, "correct": rng.binomial(total, expit(odds)), "total": total}


@settings(max_examples=int(os.environ.get("EXAMPLES", "25")), deadline=None)
@given(studies())
def test_both_engines_agree(study: dict[str, Any]) -> None:
    """Where F* is not identified, the maximum is flat and only the likelihoods can agree."""
    before, after = old.fit_collapse_curve(**study), new.fit_collapse_curve(**study)
    thresholds = ((before.fall_p, 0.05), (before.unimodal_p, 0.05), (before.form_p, 0.01))
    if all(abs(p - threshold) > 0.01 for p, threshold in thresholds):
        assert after.status == before.status
    assert after.log_likelihood == pytest.approx(before.log_likelihood, abs=1e-6)
    assert after.tau == pytest.approx(before.tau, abs=1e-5)
    assert after.df == before.df
    assert (after.fall_p, after.unimodal_p) == pytest.approx((before.fall_p, before.unimodal_p), abs=0.002)
    assert after.largest_fall == pytest.approx(before.largest_fall, abs=1e-9)
    if before.ok:
        assert (after.f_star, after.peak) == pytest.approx((before.f_star, before.peak), rel=2e-5)
        assert after.f_star_interval == pytest.approx(before.f_star_interval, rel=2e-5)
        assert after.peak_interval == pytest.approx(before.peak_interval, rel=2e-5)
        assert np.ravel(after.covariance) == pytest.approx(np.ravel(before.covariance), rel=1e-3, abs=1e-9)
