"""The shape of the infusion law: log F* relative to that at the largest measured C.

Written in alpha and the mean slope s of log F* on log C over the measured range, 0 ≤ s ≤ alpha ≤ 3. The slope is
what data tell best and alpha is the bend, so the two are far less correlated than alpha and E. s = alpha is E = 0,
s = 0 is an F* that does not fall (A = 0).
"""

from dataclasses import dataclass

import numpy as np

from kisl_plugin.fit.laws.points import FloatArray

LARGEST_ALPHA = 3.0
SMALLEST_ALPHA = 1e-3
TINY = 1e-12


@dataclass(frozen=True)
class Range:
    """Measured C [M] as `depth` [M] = log(largest C / C); `width` is the largest depth."""

    largest: float
    depth: FloatArray

    @classmethod
    def of(cls, compute: FloatArray) -> "Range":
        """The range of C [M]."""
        return cls(float(compute.max()), np.log(compute.max() / compute))

    @property
    def width(self) -> float:
        """log(largest C / smallest C)."""
        return float(self.depth.max())


def bend(span: Range, alpha: FloatArray, slope: FloatArray) -> FloatArray:
    """Log F*(C) - log F*(largest C) [..., M] of shapes alpha, slope [...]."""
    return np.asarray(np.log1p(np.expm1(slope * span.width)[..., None] * _lift(span, alpha)))


def bend_and_slopes(span: Range, alpha: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`bend` and its derivatives by alpha and by slope, each [..., M]."""
    lift, rise = _lift(span, alpha), np.expm1(slope * span.width)[..., None]
    height = 1 + rise * lift
    depth = np.maximum(span.depth, TINY)
    by_alpha = lift * (
        depth / -np.expm1(-alpha[..., None] * depth) - (span.width / -np.expm1(-alpha * span.width))[..., None]
    )
    return np.log(height), rise * by_alpha / height, span.width * (rise + 1) * lift / height


def _lift(span: Range, alpha: FloatArray) -> FloatArray:
    """(C^-alpha - largest^-alpha) / (smallest^-alpha - largest^-alpha) [..., M]."""
    return np.asarray(np.expm1(alpha[..., None] * span.depth) / np.expm1(alpha * span.width)[..., None])


def log_shares(span: Range, alpha: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log of the shares of A/C^alpha and of E in F*(largest C), each [...]; -inf where a share is 0."""
    alpha, slope = np.asarray(alpha), np.minimum(slope, alpha)
    with np.errstate(divide="ignore"):
        whole = np.log(np.expm1(alpha * span.width))
        falling = np.log(np.expm1(slope * span.width)) - whole
        constant = slope * span.width + np.log(np.expm1((alpha - slope) * span.width)) - whole
    return np.asarray(falling), np.asarray(constant)


def log_relative(span: Range, alpha: FloatArray, slope: FloatArray, compute: FloatArray) -> FloatArray:
    """Log F*(C) - log F*(largest measured C) [..., P] at any C [P]."""
    falling, constant = log_shares(span, alpha, slope)
    decline = np.asarray(alpha)[..., None] * np.log(compute / span.largest)
    return np.asarray(np.logaddexp(falling[..., None] - decline, constant[..., None]))
