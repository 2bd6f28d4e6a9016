"""The model and the budget that a prediction is asked for: `params=7e9,tokens=2e12`."""

import math
from dataclasses import dataclass

from kisl_plugin.errors import InputError
from kisl_plugin.fit.human import UNITS

EXAMPLE = "params=7e9,tokens=2e12 (or 7B, 2T)"
KEYS = ("params", "tokens")
LARGEST = 1e18  # beyond any model or corpus: a slip of the finger
_POWERS = {unit: round(math.log10(size)) for size, unit in UNITS}


@dataclass(frozen=True)
class Target:
    """A model of N = `params` parameters (all of them) to be trained on D = `tokens` tokens."""

    params: int
    tokens: int

    @property
    def compute(self) -> float:
        """C = 6·N·D floating-point operations."""
        return 6.0 * self.params * self.tokens


def parse_target(text: str) -> Target:
    """Read `params=N,tokens=D`; numbers as 7e9, 7B, 1.05b or 2T.

    Raises:
        InputError: a key is unknown, twice there or missing, or its value is no whole number of at least 1.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or key not in KEYS:
            raise InputError(
                f"--predict {text!r}: {part.strip()!r} is not one of params=… and tokens=…; give {EXAMPLE}"
            )
        if key in found:
            raise InputError(f"--predict {text!r}: {key} is given twice; give {EXAMPLE}")
        found[key] = _count(value, key, text)
    for key in KEYS:
        if key not in found:
            raise InputError(f"--predict {text!r}: {key} is missing; give {EXAMPLE}")
    return Target(found["params"], found["tokens"])


def parse_triples(text: str) -> int:
    """Read a number of triples: 100000, 1e5, 100K.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    return _whole(text, f"--triples {text!r}", "1e5 or 100K")


def parse_size(text: str) -> int:
    """Read a number of parameters: 3000000000, 1.05e9, 3B.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    return _whole(text, f"--hold-out {text!r}", "1.05e9 or 3B")


def _count(value: str, key: str, text: str) -> int:
    return _whole(value, f"--predict {text!r}: {key} is {value!r}", EXAMPLE)


def _whole(value: str, said: str, example: str) -> int:
    try:
        number = _number(value)
    except ValueError:
        raise InputError(f"{said}; expected a number such as {example}") from None
    if not (1 <= number <= LARGEST and number == int(number)):  # NaN is not
        raise InputError(f"{said}; expected a whole number from 1 to {LARGEST:g}, such as {example}")
    return int(number)


def _number(text: str) -> float:
    power = _POWERS.get(text[-1:].upper())
    # Not 1.05 × 1e9, which floating point makes 1,050,000,000.0000001
    return float(text) if power is None else float(f"{text[:-1].strip()}e{power}")
