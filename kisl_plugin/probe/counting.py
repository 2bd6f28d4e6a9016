"""Counts an option's tokens with the evaluated model's own tokenizer.

lm_eval gives a task summed log-likelihoods and no handle on the model. It dispatches a request to the method of the
model that the request names; so a method of `LM` that counts is all that a perplexity per token needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from kisl_plugin.errors import InputError
from kisl_plugin.runcard import CARD_NAME

REQUEST = "kisl_token_counts"


@dataclass
class CountRequest(Instance):  # type: ignore[misc]
    """Asks for the token counts of (context, options); its arguments are one such pair.

    `by_default`: the task was not told which model it asks.
    """

    by_default: bool = False


def token_counts(lm: Any, requests: Sequence[CountRequest]) -> list[list[int]]:
    """Tokens of each option as lm_eval scores it after the context: one list per request.

    Raises:
        InputError: the backend cannot count, the tokenizer merges the context's end into an option, or the model has
            a run card that the task was not told of.
    """
    _check_can_count(lm)
    _check_told(lm, requests)
    answers, merged = [], []
    for request in requests:
        context, options = request.args[:2]
        counted = [_count(lm, context, option) for option in options]
        merged += [(context, option) for option, n in zip(options, counted, strict=True) if n is None]
        answers.append([n or 0 for n in counted])
    if merged:
        raise InputError(_says_merged(merged, len(requests)))
    return answers


def teach_models_to_count() -> None:
    """Add `token_counts` to every model class of lm_eval, under the name that `CountRequest`s carry."""
    setattr(LM, REQUEST, token_counts)


def _count(lm: Any, context: str, option: str) -> int | None:
    """Tokens of `option`, or None if the context's tokens are not the first tokens of the whole."""
    if not context:
        ids = lm.tok_encode(option, add_special_tokens=False)
        # lm_eval conditions on BOS, and does not score a BOS that the tokenizer has put there already.
        return len(ids) - int(ids[0] == lm.prefix_token_id)
    before, after = lm._encode_pair(context, option)
    separate = getattr(lm, "backend", "causal") != "causal"
    whole = lm.tok_encode(context + option)
    _check_length(lm, context, len(before) + len(after))
    return len(after) if after and (separate or [*before, *after] == [*whole]) else None


def _check_length(lm: Any, context: str, tokens: int) -> None:
    # A causal model is fed all but the last token; beyond its length lm_eval cuts the context's beginning.
    longest = getattr(lm, "max_length", None)
    if isinstance(longest, int) and tokens - 1 > longest:
        raise InputError(
            f"kisl_wikidata: {context[:40]!r}… with an option has {tokens} tokens and the model takes {longest}; "
            "its question would be cut: ask a model with a longer context"
        )


def _check_can_count(lm: Any) -> None:
    if not hasattr(lm, "_encode_pair") or getattr(lm, "tokenizer", None) is None:
        raise InputError(
            f"kisl_wikidata: the backend {type(lm).__name__} has no tokenizer to count an option's tokens with; use hf "
            "or vllm, or with local-completions pass --model_args tokenizer_backend=huggingface,tokenizer=PATH_OR_NAME"
        )


def _check_told(lm: Any, requests: Sequence[CountRequest]) -> None:
    model = getattr(lm, "pretrained", None)
    if not isinstance(model, (str, Path)) or not any(request.by_default for request in requests):
        return
    if (Path(model) / CARD_NAME).is_file():
        raise InputError(
            f"{Path(model) / CARD_NAME}: this lm_eval did not tell the task which model it asks, so the bundled facts "
            f"would be asked; pass TaskManager(metadata={{'pretrained': {str(model)!r}}})"
        )


def _says_merged(merged: Sequence[tuple[str, str]], items: int) -> str:
    context, option = merged[0]
    return (
        f"kisl_wikidata: {len(merged)} of the {4 * items} options are not tokens of their own after their context; the "
        f"first is {option!r} after {context[-40:]!r}. A perplexity per token is not defined there: the tokenizer must "
        "start a new token at a space and add no token at the end"
    )
