"""Shares that only rise, or rise and then fall: order-restricted likelihoods of many sweeps at once.

No form of the curve is assumed: these are the fits against which a fall, or a second peak, is tested.
"""

import numpy as np

from kisl_plugin.fit.curves.likelihood import FloatArray, IntArray, block


def fall_ratio(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Twice the log-likelihood ratio [M] of "rises, then falls" over "only rises", of counts [M, K]."""
    rising, falling = _prefixes_and_suffixes(correct, total)
    return np.asarray(2 * ((rising + falling).max(axis=1) - rising[:, -1]))


def second_peak_ratio(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Twice the log-likelihood ratio [M] of "each cell its own share" over "rises, then falls", of counts [M, K]."""
    rising, falling = _prefixes_and_suffixes(correct, total)
    return np.asarray(2 * (block(correct, total).sum(axis=1) - (rising + falling).max(axis=1)))


def rising_fit(correct: FloatArray, total: FloatArray) -> FloatArray:
    """The shares [M, K] of highest likelihood among those that never fall (isotonic regression)."""
    return _rising_up_to(correct, total, np.full(len(correct), correct.shape[1]))


def unimodal_fit(correct: FloatArray, total: FloatArray) -> FloatArray:
    """The shares [M, K] of highest likelihood among those that rise, then fall."""
    rising, falling = _prefixes_and_suffixes(correct, total)
    top = (rising + falling).argmax(axis=1)
    cells = correct.shape[1]
    up = _rising_up_to(correct, total, top)
    down = _rising_up_to(correct[:, ::-1], total[:, ::-1], cells - top)[:, ::-1]
    return np.where(np.arange(cells) < top[:, None], up, down)


def rising_prefixes(correct: FloatArray, total: FloatArray) -> FloatArray:
    """Log-likelihoods [M, K + 1] of the isotonic fits of the first 0 … K cells (pool adjacent violators)."""
    sweeps, cells = correct.shape
    right, asked = np.zeros((sweeps, cells)), np.ones((sweeps, cells))
    sums = np.zeros((sweeps, cells + 1))  # of the blocks below, per height of the stack
    top = np.full(sweeps, -1)
    prefixes = np.zeros((sweeps, cells + 1))
    every = np.arange(sweeps)
    for cell in range(cells):
        top += 1
        right[every, top], asked[every, top] = correct[:, cell], total[:, cell]
        rows = every
        while len(rows := _violated(right, asked, top, rows)):
            at = top[rows]
            right[rows, at - 1] += right[rows, at]
            asked[rows, at - 1] += asked[rows, at]
            top[rows] -= 1
        sums[every, top + 1] = sums[every, top] + block(right[every, top], asked[every, top])
        prefixes[:, cell + 1] = sums[every, top + 1]
    return prefixes


def _prefixes_and_suffixes(correct: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    falling = rising_prefixes(correct[:, ::-1], total[:, ::-1])[:, ::-1]
    return rising_prefixes(correct, total), falling


def _violated(right: FloatArray, asked: FloatArray, top: IntArray, rows: IntArray) -> IntArray:
    """The rows whose topmost block's share is below that of the block under it."""
    at, under = top[rows], np.maximum(top[rows] - 1, 0)
    lower = right[rows, at] * asked[rows, under] < right[rows, under] * asked[rows, at]
    return np.asarray(rows[(at > 0) & lower])


def _rising_up_to(correct: FloatArray, total: FloatArray, ends: IntArray) -> FloatArray:
    """Isotonic shares [M, K] of the first `ends` [M] cells (beyond them without meaning), by the min-max formula."""
    right = np.pad(np.cumsum(correct, axis=1), ((0, 0), (1, 0)))
    asked = np.pad(np.cumsum(total, axis=1), ((0, 0), (1, 0)))
    starts, stops = np.arange(correct.shape[1]), np.arange(1, correct.shape[1] + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (right[:, None, stops] - right[:, starts, None]) / (asked[:, None, stops] - asked[:, starts, None])
    empty = starts[:, None] >= stops
    mean[empty[None] | (stops[None, None] > ends[:, None, None])] = np.inf
    least = np.minimum.accumulate(mean[:, :, ::-1], axis=2)[:, :, ::-1]  # over ends at or after
    least[np.broadcast_to(empty, least.shape)] = -np.inf
    return np.asarray(np.clip(least.max(axis=1), 0, 1))
