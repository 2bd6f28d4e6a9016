"""Log-likelihoods of options together with their token counts, on any backend of lm_eval that has a tokenizer.

lm_eval gives a task summed log-likelihoods and no handle on the model. It dispatches a request to the method of the
model that the request names, so a method of `LM` that also counts tokens is all that a perplexity per token needs.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.model import LM, CacheHook

from kisl_plugin.errors import InputError
from kisl_plugin.probe.served import answers_checked
from kisl_plugin.probe.shared import minds_its_batch, shared_scores

REQUEST = "kisl_loglikelihood"
# hf feeds all tokens but the last, which is only predicted; an API takes them all, and has set the token that it
# generates aside already; others have not.
RESERVED = {"HFLM": 0, "TemplateAPI": 1}
RESERVED_ELSEWHERE = 2
NO_PREFIX = (
    "the tokenizer has neither BOS nor EOS, so nothing can stand before a text, whose first token would go unscored; "
    "set bos_token or eos_token in tokenizer_config.json"
)


@dataclass(frozen=True)
class Pair:
    """A context and an option as token ids. The context is never empty: BOS or EOS stands for no text."""

    context: tuple[int, ...]
    option: tuple[int, ...]


def score_options(lm: Any, requests: Sequence[Any]) -> list[tuple[float, bool, int]]:
    """Score each request's (context, option), tokenised as lm_eval tokenises them.

    lm_eval's response cache (--use_cache) knows questions and not models, so nothing is read from it or written to it.

    Returns:
        The fields of `kisl_plugin.probe.metrics.Scored`, for each request.

    Raises:
        InputError: the backend cannot count tokens, an option merges with its context, or does not fit the model.
    """
    check_can_count(lm)
    pairs = _encode(lm, [request.args[:2] for request in requests])
    scored = (shared_scores(lm, pairs, in_full) if is_hf(lm) else None) or in_full(lm, pairs)
    return [(*score, len(pair.option)) for score, pair in zip(scored, pairs, strict=True)]


def in_full(lm: Any, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
    """(summed log-likelihood, is_greedy) of each pair by lm_eval's own way: every option with its whole context."""
    requests = [(("", ""), list(pair.context), list(pair.option)) for pair in pairs]
    with _without_cache(lm), _logits_shared(lm, _is_cut_alike(pairs)), _batched(lm), answers_checked(lm):
        scored: list[tuple[float, bool]] = lm._loglikelihood_tokens(requests)
    return scored


def teach_models_to_score() -> None:
    """Add `score_options` to every model class of lm_eval, under the name that the requests carry."""
    setattr(LM, REQUEST, score_options)


@contextlib.contextmanager
def _without_cache(lm: Any) -> Iterator[None]:
    hook = lm.cache_hook
    lm.set_cache_hook(CacheHook(None))
    try:
        yield
    finally:
        lm.set_cache_hook(hook)


@contextlib.contextmanager
def _logits_shared(lm: Any, may_share: bool) -> Iterator[None]:
    """Let hf feed pairs once that agree in all tokens but the last (its `logits_cache`) only if it may.

    It takes it that they are cut alike; of two that are not, one would get a wrong sum (lm_eval 0.4.13).
    """
    shares = getattr(lm, "logits_cache", None)
    if shares is None:
        yield
        return
    lm.logits_cache = shares and may_share
    try:
        yield
    finally:
        lm.logits_cache = shares


@contextlib.contextmanager
def _batched(lm: Any) -> Iterator[None]:
    """As the user asked, but one text at a time where a text's numbers would depend on those beside it."""
    size = getattr(lm, "batch_size_per_gpu", None)
    if size is None or not minds_its_batch(lm):
        yield
        return
    lm.batch_size_per_gpu = 1
    try:
        yield
    finally:
        lm.batch_size_per_gpu = size


def _is_cut_alike(pairs: Sequence[Pair]) -> bool:
    cuts: dict[tuple[int, ...], int] = {}
    return all(
        cuts.setdefault(pair.context + pair.option[:-1], len(pair.context)) == len(pair.context) for pair in pairs
    )


def check_can_count(lm: Any) -> None:
    """Refuse a backend that has no tokenizer or takes no tokens.

    Raises:
        InputError: says what to pass instead.
    """
    if not hasattr(lm, "_encode_pair") or getattr(lm, "tokenizer", None) is None:
        raise InputError(
            f"kisl_wikidata: the backend {type(lm).__name__} has no tokenizer to count an option's tokens with; use hf "
            "or vllm, or with local-completions pass --model_args tokenizer_backend=huggingface,tokenizer=PATH_OR_NAME"
        )
    if any("ChatCompletion" in kind.__name__ for kind in type(lm).__mro__):
        raise InputError(
            f"kisl_wikidata: the backend {type(lm).__name__} chats and gives no log-likelihoods of a prompt; serve the "
            "model as completions and use local-completions"
        )
    if is_hf(lm) and lm.prefix_token_id is None:  # lm_eval's hf then tokenises nothing at all
        raise InputError(NO_PREFIX)


def is_hf(lm: Any) -> bool:
    """Whether the backend is lm_eval's `hf` or one made from it."""
    return any(kind.__name__ == "HFLM" for kind in type(lm).__mro__)


def _encode(lm: Any, texts: Sequence[tuple[str, str]]) -> list[Pair]:
    contexts: dict[str, list[int]] = {}
    pairs, merged = [], []
    for context, option in texts:
        if context and context not in contexts:
            contexts[context] = list(lm.tok_encode(context))
        pair = _pair(lm, context, option, contexts.get(context, []))
        if pair is None:
            merged.append((context, option))
        else:
            _check_length(lm, context or option, pair)
            pairs.append(pair)
    if merged:
        raise InputError(_says_merged(merged, len(texts)))
    return pairs


def _pair(lm: Any, context: str, option: str, before: Sequence[int]) -> Pair | None:
    """The pair's ids, or None if the context's ids are not the first ids of the whole or the option has none."""
    if not context:
        return _without_context(lm, option)
    if getattr(lm, "backend", "causal") != "causal":
        encoder, decoder = lm._encode_pair(context, option)
        return Pair(tuple(encoder), tuple(decoder)) if decoder else None
    whole = list(lm.tok_encode(context + option))
    if not before or len(whole) <= len(before) or whole[: len(before)] != list(before):
        return None
    return Pair(tuple(before), tuple(whole[len(before) :]))


def _without_context(lm: Any, option: str) -> Pair | None:
    ids = list(lm.tok_encode(option, add_special_tokens=False))
    prefix = lm.prefix_token_id
    if prefix is None:
        raise InputError(NO_PREFIX)
    if ids and ids[0] == prefix:  # lm_eval does not score a BOS that the tokenizer has put there already
        ids = ids[1:]
    return Pair((prefix,), tuple(ids)) if ids else None


def most_tokens(lm: Any) -> int | None:
    """How many tokens, context and scored ones together, a backend takes without cutting; None if it does not say."""
    longest = getattr(lm, "max_length", None)
    if not isinstance(longest, int):
        return None
    kinds = (kind.__name__ for kind in type(lm).__mro__)
    return longest + 1 - next((RESERVED[kind] for kind in kinds if kind in RESERVED), RESERVED_ELSEWHERE)


def _check_length(lm: Any, text: str, pair: Pair) -> None:
    tokens, most = len(pair.context) + len(pair.option), most_tokens(lm)
    if most is not None and tokens > most:
        raise InputError(
            f"kisl_wikidata: {text[:40]!r}… with an option has {tokens} tokens and the model takes {most}; its "
            "question would be cut: ask a model with a longer context"
        )


def _says_merged(merged: Sequence[tuple[str, str]], options: int) -> str:
    shown = "; ".join(f"{option!r} after {context[-40:]!r}" for context, option in merged[:3])
    return (
        f"kisl_wikidata: {len(merged)} of the {options} options are not tokens of their own after their context: "
        f"{shown}{'; …' if len(merged) > 3 else ''}. A perplexity per token is not defined there: the tokenizer must "
        "start a new token at a space and add no token at the end"
    )
