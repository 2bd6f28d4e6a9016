"""The collapse curve of one model: P(F) = g + (1-g)·a·F^b·exp(-c·F), collapse point F* = b/c (arXiv 2509.19371)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from kisl_plugin.fit.curves.checks import Counts, check_counts, check_floor, check_loss
from kisl_plugin.fit.curves.fitting import fit_sweeps
from kisl_plugin.fit.curves.judge import Verdicts, explain, judge
from kisl_plugin.fit.curves.likelihood import (
    LOG_F_STAR,
    LOG_HEIGHT,
    STEEPNESS,
    FloatArray,
    rate,
    saturated,
    slopes,
)
from kisl_plugin.fit.curves.losses import BINOMIAL, minimise
from kisl_plugin.fit.curves.noise import LACK_OF_FIT, SEEDS
from kisl_plugin.fit.curves.profile import height_interval
from kisl_plugin.fit.curves.status import NO_COLLAPSE, OK, TOO_FEW_POINTS
from kisl_plugin.fit.curves.sweeps import Sweeps, pair, pool

FEWEST_FREQUENCIES = 4
FLAT = 1e-6  # b below this is a flat curve, whose F* is any
NOISES = {
    SEEDS: "run-to-run noise from seeds",
    LACK_OF_FIT: "run-to-run noise from the lack of fit, which assumes the form",
}
Interval = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class CollapseCurve:
    """A fitted curve. Only where `status` is "ok" is F* a finding; else the numbers are mere estimates, NaN if none.

    Intervals are of 95 %; an open end is None. `peak` is P(F*), guessing included. `tau` is the standard deviation of
    log-odds between runs, estimated with `df` degrees of freedom (inf: it was found to be 0). `largest_fall` is the
    upper end of the interval of the fall between any two of the frequencies. `theta` is log height, b and log F*,
    with their `covariance`; they sink by `floor_moves` where the floor is higher by its standard error `floor_error`.
    """

    status: str
    message: str
    floor: float
    frequency_range: tuple[float, float]
    loss: str = BINOMIAL
    a: float = np.nan
    b: float = np.nan
    c: float = np.nan
    f_star: float = np.nan
    f_star_interval: Interval = (None, None)
    peak: float = np.nan
    peak_interval: tuple[float, float] = (np.nan, np.nan)
    log_likelihood: float = np.nan
    deviance: float = np.nan
    form_p: float = np.nan
    fall_p: float = np.nan
    unimodal_p: float = np.nan
    largest_fall: float = np.nan
    tau: float = np.nan
    tau_source: str = "none"
    df: float = np.inf
    interval_method: str = "none"
    paired: bool = False
    theta: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    quantile: float = np.nan
    floor_error: float = 0.0
    floor_moves: tuple[float, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a collapse point was found."""
        return self.status == OK

    def rate(self, frequency: ArrayLike) -> FloatArray:
        """P at frequencies of any shape (all > 0); NaN where no curve was fitted."""
        at = np.asarray(frequency, dtype=np.float64)
        if not self.theta:
            return np.full_like(at, np.nan)
        return np.asarray(rate(at.ravel(), np.array([self.theta]), self.floor)[0].reshape(at.shape))

    def band(self, frequency: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The 95 % band of P at frequencies of any shape, pointwise, by the delta method on log-odds."""
        at, middle = np.asarray(frequency, dtype=np.float64), self.rate(frequency)
        if not self.covariance:
            return np.full_like(at, np.nan), np.full_like(at, np.nan)
        share = np.clip(middle, 1e-9, 1 - 1e-9)
        slope = slopes(at.ravel(), np.array([self.theta]))[0] * (share.ravel() - self.floor).clip(0)
        by_floor = (1 - share.ravel()) / (1 - self.floor) * self.floor_error - np.array(self.floor_moves) @ slope
        variance = np.einsum("pk,pq,qk->k", slope, np.array(self.covariance), slope) + by_floor**2
        error = np.sqrt(variance).reshape(at.shape)
        reach = self.quantile * error / (share * (1 - share))
        return np.asarray(expit(logit(share) - reach)), np.asarray(expit(logit(share) + reach))


def fit_collapse_curve(
    frequency: ArrayLike,
    correct: ArrayLike,
    total: ArrayLike,
    floor: float = 0.0,
    *,
    floor_error: float = 0.0,
    outcomes: ArrayLike | None = None,
    loss: str = BINOMIAL,
) -> CollapseCurve:
    """Binomial maximum likelihood of the collapse curve, peak ≤ 1, with a status that says what it is worth.

    One entry for each training run [R]: `correct` of `total` items were right at `frequency` (> 0, any order); runs
    of equal frequency are taken for other seeds and show the run-to-run noise. `floor` is the share that guessing gets
    right, 0 for the paper's form, and `floor_error` its standard error. `outcomes` [T, R] (1 right, 0 wrong, NaN not
    asked) tell which triples were right in which run: what the runs share by asking the same triples then counts.
    `loss` "huber-log" or "least-squares" gives such estimates, without intervals, in the place of the likelihood's.

    Raises:
        InputError: the lengths differ, a value is outside its range, or the outcomes are not those of the counts.
    """
    check_floor(floor, floor_error)
    check_loss(loss)
    counts = check_counts(frequency, correct, total, outcomes)
    sweep = _sweep(counts, float(floor))
    distinct = sweep.cells.frequency
    reach = (float(distinct[0]), float(distinct[-1]))
    if len(distinct) < FEWEST_FREQUENCIES:
        many = "1 distinct frequency" if len(distinct) == 1 else f"{len(distinct)} distinct frequencies"
        message = f"{many}; at least {FEWEST_FREQUENCIES} are needed"
        return CollapseCurve(status=TOO_FEW_POINTS, message=message, floor=floor, frequency_range=reach, loss=loss)
    found = judge(fit_sweeps(sweep, floor_error))
    curve = replace(_estimates(found, reach), floor_error=floor_error)
    return curve if loss == BINOMIAL else _with_loss(curve, sweep, loss)


def _sweep(counts: Counts, floor: float) -> Sweeps:
    sweep = pool(counts.frequency, counts.correct[None], counts.total[None], floor)
    return sweep if counts.outcomes is None else pair(sweep, counts.frequency, counts.outcomes)


def _estimates(found: Verdicts, reach: tuple[float, float]) -> CollapseCurve:
    fits, tests, status = found.fits, found.tests, str(found.status[0])
    sure, land = fits.uncertainty, fits.land
    low, high = (None if np.isnan(end[0]) else float(np.exp(end[0])) for end in (found.low, found.high))
    curve = CollapseCurve(
        status=f"{NO_COLLAPSE}{reach[1]:g}" if status == NO_COLLAPSE else status,
        message=explain(found),
        floor=land.cells.floor,
        frequency_range=reach,
        f_star_interval=(low, high),
        peak_interval=_peak_interval(found),
        log_likelihood=float(fits.plain.log_likelihood[0]),
        deviance=max(0.0, float(2 * (saturated(fits.plain.cells) - fits.plain.log_likelihood)[0])),
        form_p=float(tests.form[0]),
        fall_p=float(tests.fall[0]),
        unimodal_p=float(tests.unimodal[0]),
        largest_fall=float(tests.largest_fall[0]),
        tau=float(np.sqrt(fits.noise.tau2[0])),
        tau_source=fits.noise.source,
        df=float(sure.df[0]),
        interval_method=_method(fits.sweeps, fits.noise.source),
        paired=fits.sweeps.items is not None,
        covariance=tuple(map(tuple, sure.covariance[0].tolist())),
        quantile=float(sure.quantile[0]),
        floor_moves=tuple(sure.moved[0].tolist()),
    )
    return _with_theta(curve, fits.theta[0])


def _with_theta(curve: CollapseCurve, theta: FloatArray) -> CollapseCurve:
    """a, b, c, F* and the peak of log height, b and log F*."""
    height, b = float(np.exp(theta[LOG_HEIGHT])), float(theta[STEEPNESS])
    peaked = b > FLAT
    f_star = float(np.exp(theta[LOG_F_STAR])) if peaked else np.nan
    return replace(
        curve,
        theta=tuple(theta.tolist()),
        a=height * float(np.exp(b * (1 - theta[LOG_F_STAR]))) if peaked else height,
        b=b,
        c=b / f_star if peaked else 0.0,
        f_star=f_star,
        peak=curve.floor + (1 - curve.floor) * height,
    )


def _with_loss(curve: CollapseCurve, sweep: Sweeps, loss: str) -> CollapseCurve:
    """The estimates of another loss; the tests need none, so the status stays."""
    bare = replace(
        curve, loss=loss, f_star_interval=(None, None), peak_interval=(np.nan, np.nan), covariance=(), quantile=np.nan
    )
    return _with_theta(replace(bare, interval_method=f"none ({loss})"), minimise(sweep.cells, loss))


def _peak_interval(found: Verdicts) -> tuple[float, float]:
    land = found.fits.land
    low, high = height_interval(land, found.fits.uncertainty.drop(LOG_HEIGHT))
    floor = land.cells.floor
    return (
        floor if np.isnan(low[0]) else floor + (1 - floor) * float(np.exp(low[0])),
        1.0 if np.isnan(high[0]) else floor + (1 - floor) * float(np.exp(high[0])),
    )


def _method(sweep: Sweeps, source: str) -> str:
    items = "items paired by triple" if sweep.items is not None else "binomial items"
    scale = "profile likelihood, scaled to the sandwich variance, against Student's t with df degrees of freedom"
    return f"{scale}: {items}, {NOISES[source]}"
