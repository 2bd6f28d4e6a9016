"""Numbers as people read them."""

import math
from collections.abc import Callable

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
BEYOND_UNITS = 1e15
LONG = 1e6  # frequencies from here on are written with a unit


def count(value: float) -> str:
    """A count to three digits, in six characters at most: 137M, 1.05B, 620K, 5e15."""
    rounded = float(f"{value:.3g}")
    if rounded >= BEYOND_UNITS:
        return f"{value:.0e}".replace("e+", "e")
    for size, unit in UNITS:
        if rounded >= size:
            return f"{rounded / size:.3g}{unit}"
    return f"{rounded:g}"


def frequency(value: float) -> str:
    """A frequency of a grid, as it was chosen; from a million on to three digits."""
    return f"{value:.10g}" if value < LONG else count(value)


def estimate(value: float) -> str:
    """An estimated frequency to three digits: 61.8, 45.0, 1230."""
    rounded = float(f"{value:.3g}")
    if rounded >= LONG:
        return count(value)
    if rounded >= 100:
        return f"{rounded:.0f}"
    return f"{rounded:#.3g}" if rounded >= 0.01 or rounded == 0 else f"{rounded:.2g}"


def one_line(text: str) -> str:
    """The name of a file, whose line breaks would look like the end of it."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def share(value: float) -> str:
    """A share to two digits."""
    return f"{value:.2f}"


def interval(low: float | None, high: float | None, number: Callable[[float], str] = estimate) -> str:
    """The ends of an interval; an open one (None, NaN) is left out: 350–440, ≥ 350, ≤ 440, or `no interval`."""
    ends = [None if end is None or math.isnan(end) else number(end) for end in (low, high)]
    if None not in ends:
        return "–".join(dict.fromkeys(filter(None, ends)))
    if ends[0] is not None:
        return f"≥ {ends[0]}"
    return f"≤ {ends[1]}" if ends[1] is not None else "no interval"


def probability(p: float) -> str:
    """A p-value: `p = 0.03`, `p ≤ 0.001` (the least that a thousand draws tell); empty where there is none."""
    if math.isnan(p):
        return ""
    return "p ≤ 0.001" if p <= 0.001 else f"p = {p:.2g}"


# What a collapse curve can be found to be: one code, and one sentence of help, each.
OK = "ok"
NO_COLLAPSE = "no collapse up to F="  # the largest frequency follows
NOT_UNIMODAL = "not unimodal"
FORM_REJECTED = "form rejected"
NOT_IDENTIFIED = "not identified"
TOO_FEW_POINTS = "too few points"
STATUS_HELP = {
    OK: "a fall is shown, the form fits, F*'s interval lies inside the frequencies",
    NO_COLLAPSE: "no fall is shown up to the largest frequency; the largest that the data allow is told",
    NOT_UNIMODAL: "the counts do not rise once and then fall, beyond chance",
    FORM_REJECTED: "counts scatter more about the curve than chance allows",
    NOT_IDENTIFIED: "very different collapse points fit the counts, or the guessing floor is 1",
    TOO_FEW_POINTS: "fewer than four distinct frequencies, for three parameters",
}
