"""What is measured on one item from its four scored options."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kisl_plugin.triples import CONTROL

MEASURES = ("acc", "sum_acc", "byte_acc", "perplexity", "margin", "recall", "items")


class Scored(NamedTuple):
    """An option after its context: summed log-likelihood (nats), whether greedy decoding says it, its tokens."""

    logprob: float
    is_greedy: bool
    tokens: int


def nats_per_token(scored: Sequence[Scored]) -> list[float]:
    """The options' negative log-likelihoods per token; a perplexity is exp of one."""
    return [-option.logprob / option.tokens for option in scored]


def measures(options: Sequence[str], answer: int, scored: Sequence[Scored]) -> dict[str, float]:
    """Every measure of one item.

    acc, sum_acc, byte_acc: whether the right option has the highest log-likelihood per token (the lowest perplexity),
    in all, and per byte. perplexity: the right option's. margin: nats per token by which the best wrong option is worse
    than the right one (negative where a wrong one wins). recall: whether greedy decoding says the right option.
    items: 1, to be counted.
    """
    nats = nats_per_token(scored)
    sums = [option.logprob for option in scored]
    per_byte = [total / len(text.encode("utf-8")) for total, text in zip(sums, options, strict=True)]
    wrong = min(value for k, value in enumerate(nats) if k != answer)
    return {
        "acc": float(nats.index(min(nats)) == answer),
        "sum_acc": float(sums.index(max(sums)) == answer),
        "byte_acc": float(per_byte.index(max(per_byte)) == answer),
        "perplexity": exp(nats[answer]),
        "margin": wrong - nats[answer],
        "recall": float(scored[answer].is_greedy),
        "items": 1.0,
    }


def named_for(measured: Mapping[str, float], doc: Mapping[str, Any], groups: Sequence[str]) -> dict[str, float]:
    """The measures under the names they count for: control triples apart, `acc` also by relation and by group."""
    if doc["group"] == CONTROL:
        return {f"{name}_control": value for name, value in measured.items()}
    named = {**measured, f"relation_acc_{doc['relation_id']}": measured["acc"]}
    return {**named, f"acc_{doc['group']}": measured["acc"]} if doc["group"] in groups else named


def all_names(relations: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Every name that `named_for` may give."""
    both = [name for measure in MEASURES for name in (measure, f"{measure}_control")]
    return [*both, *(f"relation_acc_{relation}" for relation in relations), *(f"acc_{group}" for group in groups)]


def aggregation_of(name: str, mean: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], float]:
    """How the items' values become one: `mean` but for perplexities, which are averaged in nats, and the count."""
    special: dict[str, Callable[[Sequence[float]], float]] = {"perplexity": geometric_mean, "items": math.fsum}
    return special.get(name.removesuffix("_control"), mean)


def geometric_mean(values: Sequence[float]) -> float:
    """Average in nats: the perplexity of an average item."""
    return exp(math.fsum(map(math.log, values)) / len(values))


def exp(nats: float) -> float:
    """The exponential e^nats, at most the largest that a float holds: an infinite perplexity is no JSON."""
    return math.exp(min(nats, 709.0))
