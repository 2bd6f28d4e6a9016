"""Accuracies → counts of right items."""

from collections.abc import Mapping
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.nested import number_in

WHOLE = 0.01  # acc × n may be off a whole number by this much: lm-eval may round, a wrong n is off by more
LARGEST = 1e12  # beyond it a standard error does not tell n
RELATION = "relation_acc_"

Metrics = Mapping[str, Any]


def share(metrics: Metrics, metric: str) -> float:
    """The accuracy `metric`.

    Raises:
        InputError: it is missing, or no number between 0 and 1.
    """
    key = f"{metric},none"
    if key not in metrics:
        raise InputError(f"no metric {key} among {', '.join(sorted(metrics))}")
    value = number_in(metrics[key])
    if not 0 <= value <= 1:
        raise InputError(f"{key} is {metrics[key]!r}; expected a share between 0 and 1")
    return value


def count_right(metrics: Metrics, metric: str, total: int, said_by: str) -> int:
    """How many of `total` items were right, from the accuracy; `said_by` names who counts `total`.

    Raises:
        InputError: the accuracy is none, or no whole number of `total` items.
    """
    value = share(metrics, metric)
    if total == 0:
        raise InputError(f"{metric},none: the {said_by} counts 0 triples for it")
    if abs(value * total - round(value * total)) > WHOLE:
        raise InputError(
            f"{metric},none is {value!r}, which is no whole number of the {total} triples that the {said_by} counts"
        )
    return round(value * total)


def items_by_error(metrics: Metrics, metric: str) -> int | None:
    """Over how many items a mean of 0s and 1s was taken, from its standard error s = √(p(1-p)/(n-1)).

    None where lm-eval gives none, or where all items were right or all wrong.
    """
    p, error = number_in(metrics.get(f"{metric},none")), number_in(metrics.get(f"{metric}_stderr,none"))
    if not (0 < p < 1 and error > 0):
        return None
    n = p * (1 - p) / error**2 + 1
    if not n < LARGEST or abs(n - round(n)) > WHOLE or abs(n * p - round(n * p)) > WHOLE:
        return None
    return round(n)


def count_relations(metrics: Metrics, correct: int, total: int) -> dict[str, tuple[int, int]]:
    """(correct, total) by relation id, which must sum to `correct` and `total`; empty where that cannot be told.

    A relation whose items were all right or all wrong has no standard error; one such relation is what is left.
    """
    names = [key.removesuffix(",none") for key in metrics if key.startswith(RELATION) and "_stderr" not in key]
    sizes = {name: items_by_error(metrics, name) for name in names}
    left = total - sum(size or 0 for size in sizes.values())
    unknown = [name for name, size in sizes.items() if size is None]
    if len(unknown) > 1 or (unknown and left < 1):
        return {}
    whole = {name: size or left for name, size in sizes.items()}
    shares = {name: number_in(metrics[f"{name},none"]) for name in whole}
    if not all(0 <= value <= 1 for value in shares.values()):
        return {}
    counts = {name.removeprefix(RELATION): (round(shares[name] * n), n) for name, n in whole.items()}
    sums = tuple(sum(part) for part in zip(*counts.values(), strict=True))
    return counts if sums == (correct, total) else {}
