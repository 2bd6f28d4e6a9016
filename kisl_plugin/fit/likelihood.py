"""The binomial likelihood of collapse curves, maximised and profiled for many data sets at once.

With q the height of the curve at F* (without guessing), φ = log F* and x = F/F*,

    a·F^b·exp(-c·F) = q·exp(-b·h(x)),    h(x) = x - 1 - log x ≥ 0,    log a = log q + b·(1 - φ),    c = b/F*.

In theta = (log q, b, φ), "peak at most 1" and "b not negative" are plain bounds, and estimates are far less correlated
than those of log a, b and log c. Without a guessing floor the log-likelihood is concave in (log a, b, c) and has one
maximum; with a floor it may have several, so φ is searched on a grid and the maxima are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlog1py, xlogy

__all__ = ["LOG_F_STAR", "FloatArray", "collapse_rate", "log_share_slopes", "multistart"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

LOG_HEIGHT, STEEPNESS, LOG_F_STAR = range(3)  # the columns of theta
LARGEST_B = 12.0  # P rises as F^12: a narrower peak falls between two frequencies of a usual grid
SMALLEST_HEIGHT = 1e-9
F_STAR_MARGIN = np.log(30.0)  # F* is searched this far beyond the frequencies

_LOG_SMALLEST, _LOG_ONE = -700.0, -1e-12  # limits of log share: what exp can represent, and a share just below 1
_AT_BOUND = 1e-6  # a parameter this close to its bound is at it
_ITERATIONS, _HALVINGS, _LONGEST_STEP = 200, 25, 2.0
_FINE, _MEDIUM, _COARSE = 1e-10, 1e-4, 1e-3  # gains of log-likelihood that end an ascent
_NEAR, _NEAR_WITH_FLOOR, _FAR = 0.3, 0.12, 0.6  # grid spacing in φ: among the frequencies, and beyond them
_HEIGHTS = np.append(np.log(expit(np.linspace(-9, 9, 37))), 0.0)  # grid of log q
_PEAKS = 8  # of the grid over φ, from which the free ascents start where there is a floor
_SECTIONS, _ROUNDS = 6, 4  # of the search for an end of an interval


def _log_share(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """η = log(a·F^b·exp(-c·F)) [M, K] of curves theta [M, 3] at frequencies [K]."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    return np.asarray(theta[:, LOG_HEIGHT, None] - theta[:, STEEPNESS, None] * (np.expm1(log_x) - log_x))


def log_share_slopes(frequency: FloatArray, theta: FloatArray) -> FloatArray:
    """Derivatives [M, 3, K] of log(a·F^b·exp(-c·F)) with respect to theta [M, 3] at frequencies [K]."""
    log_x = np.log(frequency) - theta[:, LOG_F_STAR, None]
    excess = np.expm1(log_x)  # x - 1
    return np.stack([np.ones_like(log_x), log_x - excess, theta[:, STEEPNESS, None] * excess], axis=1)


def collapse_rate(frequency: FloatArray, theta: FloatArray, floor: float) -> FloatArray:
    """P(F) [M, K] of curves theta [M, 3] at frequencies [K], guessing included."""
    return np.asarray(floor + (1 - floor) * np.exp(np.clip(_log_share(frequency, theta), _LOG_SMALLEST, 0.0)))


def log_likelihood(correct: FloatArray, total: FloatArray, share: FloatArray) -> FloatArray:
    """The binomial log-likelihood of each share, without the binomial coefficient."""
    return np.asarray(xlogy(correct, share) + xlog1py(total - correct, -share))


@dataclass(frozen=True)
class BinomialLikelihood:
    """The likelihood of M data sets: `correct` of `total` items [M, K] at the frequencies [K], with a guessing floor.

    Counts need not be whole numbers: run-to-run noise is expressed by a smaller, effective number of items.
    """

    frequency: FloatArray
    correct: FloatArray
    total: FloatArray
    floor: float

    @property
    def share(self) -> FloatArray:
        """The observed shares [M, K]."""
        return self.correct / self.total

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """The smallest and the largest theta [3]."""
        first, last = np.log(self.frequency.min()), np.log(self.frequency.max())
        smallest = np.array([np.log(SMALLEST_HEIGHT), 0.0, first - F_STAR_MARGIN])
        return smallest, np.array([0.0, LARGEST_B, last + F_STAR_MARGIN])

    def take(self, rows: IntArray | BoolArray) -> "BinomialLikelihood":
        """Some of the data sets; a row may be repeated."""
        return BinomialLikelihood(self.frequency, self.correct[rows], self.total[rows], self.floor)

    def with_total(self, total: FloatArray) -> "BinomialLikelihood":
        """The same shares of `total` [M, K] items."""
        return BinomialLikelihood(self.frequency, self.share * total, total, self.floor)

    def rate(self, theta: FloatArray) -> FloatArray:
        """P [M, K] of one curve per data set."""
        return collapse_rate(self.frequency, theta, self.floor)

    def value(self, theta: FloatArray) -> FloatArray:
        """Log-likelihoods [M] of one curve per data set, without the binomial coefficients."""
        eta = np.minimum(_log_share(self.frequency, theta), _LOG_ONE)
        log_right, log_wrong = eta, np.log(-np.expm1(eta))  # log P, log(1 - P)
        if self.floor:
            log_right = np.log(self.floor + (1 - self.floor) * np.exp(eta))
            log_wrong += np.log1p(-self.floor)
        return np.asarray((self.correct * (log_right - log_wrong) + self.total * log_wrong).sum(axis=1))

    def saturated(self) -> FloatArray:
        """The log-likelihoods [M] of the observed shares themselves: no curve reaches more."""
        return np.asarray(log_likelihood(self.correct, self.total, self.share).sum(axis=1))

    def derivatives(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The gradient [M, 3], the expected (Fisher) and the observed information [M, 3, 3]."""
        slope = log_share_slopes(self.frequency, theta)
        eta = np.clip(_log_share(self.frequency, theta), _LOG_SMALLEST, _LOG_ONE)
        rise = (1 - self.floor) * np.exp(eta)  # dP/dη
        right, wrong = self.floor + rise, (1 - self.floor) * -np.expm1(eta)  # P, and 1 - P without cancellation
        score = (self.correct - self.total * right) * (rise / right / wrong)  # dL/dη
        gradient = np.matmul(slope, score[:, :, None])[:, :, 0]
        weight = self.total * rise * (rise / right / wrong)  # the expectation of -d²L/dη²
        expected = np.matmul(slope * weight[:, None], slope.transpose(0, 2, 1))
        weight = (self.total - self.correct) * (1 - self.floor) * rise / wrong**2  # -d²L/dη² as observed
        weight -= self.correct * (rise / right) * (self.floor / right)
        observed = np.matmul(slope * weight[:, None], slope.transpose(0, 2, 1))
        # η itself is curved: d²η/db dφ = x - 1, d²η/dφ² = -b·x.
        excess = np.expm1(np.log(self.frequency) - theta[:, LOG_F_STAR, None])
        mixed = (score * excess).sum(axis=1)
        observed[:, STEEPNESS, LOG_F_STAR] -= mixed
        observed[:, LOG_F_STAR, STEEPNESS] -= mixed
        observed[:, LOG_F_STAR, LOG_F_STAR] += theta[:, STEEPNESS] * (score * (1 + excess)).sum(axis=1)
        return gradient, expected, observed

    def covariance(self, theta: FloatArray) -> FloatArray:
        """The inverse of the expected information [M, 3, 3]; 0 for a parameter at its bound, which does not move."""
        smallest, largest = self.bounds
        at_bound = (theta <= smallest + _AT_BOUND) | (theta >= largest - _AT_BOUND)
        inverse = np.linalg.inv(_without(self.derivatives(theta)[1], at_bound))
        return np.asarray(np.where(at_bound[:, :, None] | at_bound[:, None, :], 0.0, inverse))

    def maximise(
        self, start: FloatArray, fixed: int | None = None, tolerance: float = _FINE
    ) -> tuple[FloatArray, FloatArray]:
        """Ascend from start [M, 3] to theta [M, 3] and log-likelihoods [M], until a step gains at most `tolerance`.

        Steps are those of Newton's method where the surface is concave and of Fisher scoring elsewhere, within the
        bounds, halved until they do not lower the likelihood. theta[:, fixed] keeps its value.
        """
        smallest, largest = self.bounds
        theta = np.clip(start, smallest, largest)
        value = self.value(theta)
        active = np.arange(len(theta))
        for _ in range(_ITERATIONS):
            some, origin, before = self.take(active), theta[active], value[active]
            gradient, expected, observed = some.derivatives(origin)
            # A parameter at a bound that would leave it does not move, nor does the fixed one.
            still = (origin <= smallest + _AT_BOUND) & (gradient < 0) | (origin >= largest - _AT_BOUND) & (gradient > 0)
            if fixed is not None:
                still[:, fixed] = True
            expected, observed = _without(expected, still), _without(observed, still)
            # Positive definite by the leading minors, with a margin that keeps steps finite.
            a, b, c = (observed[:, i, i] for i in range(3))
            concave = (a > 0) & (a * b > (1 + 1e-9) * observed[:, 0, 1] ** 2)
            concave &= np.linalg.det(observed) > 1e-9 * a * b * c
            matrix = np.where(concave[:, None, None], observed, expected)
            matrix[:, range(3), range(3)] *= 1 + 1e-9
            step = np.linalg.solve(matrix, np.where(still, 0.0, gradient)[:, :, None])[:, :, 0]
            step *= np.minimum(1.0, _LONGEST_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
            gain = np.zeros(len(active))
            trying = np.arange(len(active))
            for _ in range(_HALVINGS):
                trial = np.clip(origin[trying] + step[trying], smallest, largest)
                reached = (some if len(trying) == len(active) else some.take(trying)).value(trial)
                up = reached >= before[trying]
                accepted = trying[up]
                theta[active[accepted]], value[active[accepted]] = trial[up], reached[up]
                gain[accepted] = reached[up] - before[accepted]
                trying = trying[~up]
                if not len(trying):
                    break
                step[trying] /= 2
            active = active[gain > tolerance]
            if not len(active):
                break
        return theta, value


def _without(information: FloatArray, still: BoolArray) -> FloatArray:
    """The matrices [M, 3, 3] with the rows and columns of still parameters replaced by those of the identity."""
    information = np.where(still[:, :, None] | still[:, None, :], 0.0, information)
    information[:, range(3), range(3)] += np.where(still, 1.0, 1e-10)
    return information


def maximise_from(
    likelihood: BinomialLikelihood, starts: Sequence[FloatArray], fixed: int | None = None, tolerance: float = _FINE
) -> tuple[FloatArray, FloatArray]:
    """The best of the ascents from several starts [M, 3] each: theta [M, 3] and log-likelihoods [M]."""
    sets = np.arange(len(starts[0]))
    every = likelihood.take(np.tile(sets, len(starts)))
    theta, value = every.maximise(np.concatenate(starts), fixed, tolerance)
    best = value.reshape(len(starts), -1).argmax(axis=0) * len(sets) + sets
    return theta[best], value[best]


@dataclass(frozen=True)
class ProfileLikelihood:
    """The best curves [M, 3] and their log-likelihoods [M]; the same for each φ of a grid, [M, G, 3] and [M, G]."""

    likelihood: BinomialLikelihood
    best: FloatArray
    maximum: FloatArray
    grid: FloatArray
    grid_values: FloatArray

    def interval(self, index: int, drop: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the profile of a parameter (LOG_F_STAR or LOG_HEIGHT) lies `drop` [M] below the maximum.

        The profile is the log-likelihood maximised over the other parameters. Where it has several maxima, the
        outermost crossings count. Returns the lower and the upper ends [M]; NaN where the profile does not fall so far.
        """
        sets, curves, values = len(self.best), self.grid, self.grid_values
        if index == LOG_HEIGHT:  # profile a grid of heights, starting from curves along the profile of φ
            every = np.repeat(np.arange(sets), len(_HEIGHTS))
            starts = [*self.grid[:, :: max(1, values.shape[1] // 8)].swapaxes(0, 1), self.best]
            starts = [np.column_stack([np.tile(_HEIGHTS, sets), start[every, 1:]]) for start in starts]
            curves, values = maximise_from(self.likelihood.take(every), starts, LOG_HEIGHT, _COARSE)
            curves, values = curves.reshape(sets, -1, 3), values.reshape(sets, -1)
        curves = np.concatenate([curves, self.best[:, None]], axis=1)
        values = np.concatenate([values, self.maximum[:, None]], axis=1)
        order = np.argsort(curves[:, :, index], axis=1, kind="stable")
        curves = np.take_along_axis(curves, order[:, :, None], axis=1)
        inside = np.take_along_axis(values, order, axis=1) >= (self.maximum - drop)[:, None]
        low = self._crossing(index, curves, inside, drop)
        return low, self._crossing(index, curves[:, ::-1], inside[:, ::-1], drop)

    def _crossing(self, index: int, curves: FloatArray, inside: BoolArray, drop: FloatArray) -> FloatArray:
        """Where the profile first rises above the threshold along the grid; NaN where it begins above it."""
        first, threshold = inside.argmax(axis=1), self.maximum - drop
        # A curve of the grid may be a local maximum: go on while its place, reached from inside, is inside too.
        rows = np.flatnonzero(first > 0)
        while len(rows):
            start = curves[rows, first[rows]]
            start[:, index] = curves[rows, first[rows] - 1, index]
            theta, value = self.likelihood.take(rows).maximise(start, index, _COARSE)
            rows, theta = rows[value >= threshold[rows]], theta[value >= threshold[rows]]
            first[rows] -= 1
            curves[rows, first[rows]] = theta
            rows = rows[first[rows] > 0]
        crossing, rows = np.full(len(curves), np.nan), np.flatnonzero(first > 0)
        if not len(rows):
            return crossing
        below, above = curves[rows, first[rows] - 1], curves[rows, first[rows]]
        threshold = threshold[rows]
        every = np.repeat(np.arange(len(rows)), _SECTIONS + 1)
        likelihood, best = self.likelihood.take(rows[every]), self.best[rows[every]]
        part = np.linspace(0, 1, _SECTIONS + 1)[:, None]
        concave = index == LOG_F_STAR and not likelihood.floor  # so that one start is enough
        # Divide the section in which the profile crosses the threshold, again and again, and interpolate in the last.
        for _ in range(_ROUNDS):
            between = (below[:, None] + part * (above - below)[:, None]).reshape(-1, 3)
            starts = [between] if concave else [below[every], above[every], best]
            starts = [np.where(np.arange(3) == index, between, start) for start in starts]
            points, values = maximise_from(likelihood, starts, index, 1e-9)
            points, values = points.reshape(len(rows), -1, 3), values.reshape(len(rows), -1)
            upper = np.maximum(1, (values >= threshold[:, None]).argmax(axis=1))
            places = np.arange(len(rows))
            below, above = points[places, upper - 1], points[places, upper]
            low, high = values[places, upper - 1], values[places, upper]
        weight = np.clip((threshold - low) / np.maximum(high - low, 1e-300), 0, 1)
        crossing[rows] = below[:, index] + weight * (above - below)[:, index]
        return crossing


def multistart(likelihood: BinomialLikelihood) -> ProfileLikelihood:
    """The best curves: profiled over a grid of φ, then ascended freely from the grid's local maxima."""
    sets, floor = len(likelihood.correct), likelihood.floor
    first, last = np.log(likelihood.frequency[[0, -1]])
    inner = np.linspace(first, last, int((last - first) / (_NEAR_WITH_FLOOR if floor else _NEAR)) + 2)
    outer = np.linspace(0, F_STAR_MARGIN, int(F_STAR_MARGIN / _FAR) + 2)[1:]
    phi = np.concatenate([first - outer[::-1], inner, last + outer])
    # With φ fixed, ascend from a broad, a usual and a narrow curve, whose heights predict as many right answers as were
    # counted. Without a floor this problem is concave, and the best of the three is enough.
    every = likelihood.take(np.repeat(np.arange(sets), len(phi)))
    starts = []
    for b in (0.1, 2.0, LARGEST_B):
        start = np.column_stack([np.zeros(len(every.total)), np.full(len(every.total), b), np.tile(phi, sets)])
        predicted = (every.total * (every.rate(start) - floor)).sum(axis=1)
        height = (every.correct - floor * every.total).sum(axis=1) / np.maximum(predicted, 1e-200)
        start[:, LOG_HEIGHT] = np.log(np.clip(height, 0.003, 0.997))
        starts.append(start)
    if not floor:
        best_start = np.argmax([every.value(start) for start in starts], axis=0)
        starts = [np.array(starts)[best_start, np.arange(len(best_start))]]
    grid, values = maximise_from(every, starts, LOG_F_STAR, _COARSE)
    grid, values = grid.reshape(sets, -1, 3), values.reshape(sets, -1)
    # The highest local maxima of the profile, at most _PEAKS.
    padded = np.pad(values, ((0, 0), (1, 1)), constant_values=-np.inf)
    is_peak = (values >= padded[:, :-2]) & (values >= padded[:, 2:])
    order = np.argsort(-np.where(is_peak, values, -np.inf), axis=1, kind="stable")[:, : _PEAKS if floor else 1]
    peaks = np.take_along_axis(grid, order[:, :, None], axis=1).swapaxes(0, 1)
    best, _ = maximise_from(likelihood, list(peaks), tolerance=_MEDIUM)
    best, maximum = likelihood.maximise(best)
    return ProfileLikelihood(likelihood, best, maximum, grid, values)
