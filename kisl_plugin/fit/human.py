"""Numbers as people read them."""

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def count(value: float) -> str:
    """A count to three digits: 137M, 1.05B, 620K."""
    rounded = float(f"{value:.3g}")
    for size, unit in UNITS:
        if rounded >= size:
            return f"{rounded / size:.3g}{unit}"
    return f"{rounded:g}"


def frequency(value: float) -> str:
    """A frequency of a grid, as it was chosen."""
    return f"{value:.10g}"


def estimate(value: float) -> str:
    """An estimated frequency to three digits: 61.8, 45.0, 1230."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:.0f}" if 100 <= rounded < 1e6 else f"{rounded:#.3g}"
