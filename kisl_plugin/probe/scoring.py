"""Log-likelihoods of options together with their token counts, on any backend of lm_eval that has a tokenizer.

lm_eval gives a task summed log-likelihoods and no handle on the model. It dispatches a request to the method of the
model that the request names, so a method of `LM` that also counts tokens is all that a perplexity per token needs.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM, CacheHook

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.options import DISTRACTORS
from kisl_plugin.progress import Progress

# A served model's answers, checked: lm_eval takes them as they come.

CLAMPED = -9999.0  # what some servers answer for -infinity
ROUNDING = 1e-3


@contextlib.contextmanager
def answers_checked(lm: Any) -> Iterator[None]:
    """Meanwhile refuse answers of a completions server that are not about the tokens that were asked.

    A server that does not echo the prompt answers too few log-probabilities, and lm_eval sums none: every option would
    be certain. One that puts BOS before a text answers one too many, and other tokens would be summed.

    Raises:
        InputError: from within the block, on the first such answer.
        KislError: the server cannot be reached or refuses to answer.
    """
    parse = getattr(lm, "parse_logprobs", None)
    if parse is None:
        yield
        return

    def checked(outputs: Any, tokens: Any = None, **others: Any) -> Any:
        _check(outputs, tokens or [])
        return parse(outputs=outputs, tokens=tokens, **others)

    lm.parse_logprobs = checked
    try:
        yield
    except OSError as error:  # what requests and aiohttp raise
        says = str(error).partition("\n")[0][:200]
        raise KislError(f"{getattr(lm, 'base_url', 'the server')}: does not answer ({says})") from error
    finally:
        del lm.parse_logprobs


def _check(outputs: Any, tokens: Sequence[Sequence[int]]) -> None:
    answers = outputs if isinstance(outputs, list) else [outputs]
    choices = [choice for answer in answers for choice in sorted(answer["choices"], key=lambda c: c["index"])]
    if len(choices) != len(tokens):
        raise InputError(f"the server answers {len(choices)} of {len(tokens)} texts; ask with batch size 1")
    for choice, asked in zip(choices, tokens, strict=True):
        _check_choice(choice.get("logprobs") or {}, len(asked))


def _check_choice(logprobs: Mapping[str, Any], asked: int) -> None:
    values, best = logprobs.get("token_logprobs") or (), logprobs.get("top_logprobs") or ()
    if len(values) != asked + 1 or len(best) != asked + 1:  # one token is generated
        raise InputError(
            f"the server answers {len(values)} log-probabilities ({len(best)} of likeliest tokens) where {asked} "
            "tokens and one generated were asked; it must echo the prompt with logprobs and put nothing before it: "
            "serve with echo, and pass tokenized_requests=True so that it is sent ids"
        )
    for value in values[1:]:
        if not isinstance(value, (int, float)) or not CLAMPED < value < ROUNDING:
            raise InputError(f"the server answers the log-probability {value!r}; expected a number up to 0")


# Log-likelihoods of options together with their token counts, on any backend of lm_eval that has a tokenizer.
#
# lm_eval gives a task summed log-likelihoods and no handle on the model. It dispatches a request to the method of the
# model that the request names, so a method of `LM` that also counts tokens is all that a perplexity per token needs.

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
        The fields of `kisl_plugin.probe.items.Scored`, for each request.

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


# The question that four options share, computed once: one row per question, the options side by side after it.
#
# An option's tokens see the question and their own option, not the other options, and stand at the places at which they
# would stand alone. So the numbers are those of four rows, for the price of little more than one.

if TYPE_CHECKING:
    import torch


Score = tuple[float, bool]
TOLERANCE = 1e-5  # nats per token
SIDE_BY_SIDE = DISTRACTORS + 1
CHECKED = 8  # questions that lm_eval scores too, in its own way, before the shared way is trusted

log = logging.getLogger("lm_eval")


@dataclass(frozen=True)
class Row:
    """A question and the options that follow it, as token ids; `first` is the first option's place among all pairs."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    first: int

    def __len__(self) -> int:
        """Tokens that are fed: an option's last token is only predicted."""
        return len(self.context) + sum(len(option) - 1 for option in self.options)


def shared_scores(
    lm: Any, pairs: Sequence["Pair"], in_full: Callable[[Any, Sequence["Pair"]], list[Score]]
) -> list[Score] | None:
    """(summed log-likelihood, is_greedy) of each pair, or None where this model of lm_eval's `hf` does not allow it.

    The way is used only in float32 and finer, and where some questions give the same numbers as `in_full`, to 1e-5 nats
    per token: a model may have its own idea of masks and positions.
    """
    if not _may_share(lm):
        return None
    rows = sorted(_rows(pairs), key=len, reverse=True)
    few = _few(rows)
    checked = [pairs[row.first + k] for row in few for k in range(len(row.options))]
    try:
        batch_size = _batch_size(lm, rows[0])
        difference = _difference(_score(lm, few, batch_size), in_full(lm, checked), checked)
    except Exception as error:  # a model's own code may refuse the mask in any way it likes
        log.info("kisl: the shared question is not for this model (%s: %s)", type(error).__name__, error)
        return None
    if difference > TOLERANCE:
        log.info("kisl: the shared question is not for this model (numbers differ by %.1e nats)", difference)
        return None
    log.info("kisl: the shared question is computed once; %d checked, they agree to %.1e nats", len(few), difference)
    progress = Progress("questions", len(rows)) if lm.rank == 0 else None
    scored = _score(lm, rows, batch_size, progress)
    if progress is not None:
        progress.close()
    order = [row.first + k for row in rows for k in range(len(row.options))]
    return [score for _, score in sorted(zip(order, scored, strict=True), key=lambda placed: placed[0])]


def _may_share(lm: Any) -> bool:
    """Whether a text's numbers depend on the text alone: not on a coarse type, nor on the longest text of a batch."""
    mixed = getattr(lm, "mixed_precision_dtype", None) is not None
    exact = str(lm.model.dtype) in ("torch.float32", "torch.float64") and not mixed
    if not exact:
        log.warning("kisl: scored in a type in which near options may change places; dtype=float32 is recommended")
    return getattr(lm, "backend", None) == "causal" and exact and not minds_its_batch(lm)


def minds_its_batch(lm: Any) -> bool:
    """Whether the positions of an `hf` model depend on the longest text of a batch (rope dynamic and longrope)."""
    config = getattr(getattr(lm, "model", None), "config", None)
    positions = f"{getattr(config, 'rope_scaling', None)} {getattr(config, 'rope_parameters', None)}"
    return any(kind in positions for kind in ("dynamic", "longrope"))


def _rows(pairs: Sequence["Pair"]) -> list[Row]:
    rows, first = [], 0
    for context, group in groupby(pairs, key=lambda pair: pair.context):
        options = [pair.option for pair in group]
        # All items may have one context: BOS, where statements begin with their objects.
        for start in range(0, len(options), SIDE_BY_SIDE):
            side_by_side = tuple(options[start : start + SIDE_BY_SIDE])
            rows.append(Row(context, side_by_side, first))
            first += len(side_by_side)
    return rows


def _few(rows: Sequence[Row]) -> list[Row]:
    """Some of the rows, from the longest to the shortest, and the two at which a model would first go wrong.

    One has the longest text of question and option: a model may look back over so many tokens only. The other has most
    tokens of options beside another's: a model that does not heed the mask sees these.
    """

    def text(place: int) -> int:
        return len(rows[place].context) + max(map(len, rows[place].options))

    def beside(place: int) -> int:
        return sum(sorted(len(option) - 1 for option in rows[place].options)[:-1])

    places = range(len(rows))
    spread = {(len(rows) - 1) * k // (CHECKED - 1) for k in range(CHECKED)}
    return [rows[place] for place in sorted(spread | {max(places, key=text), max(places, key=beside)})]


def _difference(shared: Sequence[Score], full: Sequence[Score], pairs: Sequence["Pair"]) -> float:
    """The largest difference in nats per token; infinite where greedy decoding differs or a number is missing."""
    largest = 0.0
    for (a, a_greedy), (b, b_greedy), pair in zip(shared, full, pairs, strict=True):
        difference = abs(a - b) / len(pair.option)
        largest = max(largest, difference) if a_greedy == b_greedy and difference == difference else float("inf")
    return largest


def _batch_size(lm: Any, longest: Row) -> int:
    if str(lm.batch_size) != "auto":
        return int(lm.batch_size)
    return int(lm._detect_batch_size([("", [0] * len(longest), [0])]))


def _score(lm: Any, rows: Sequence[Row], batch_size: int, progress: Progress | None = None) -> list[Score]:
    scored: list[Score] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        scored += _score_batch(lm, batch)
        if progress is not None:
            progress.update(start + len(batch))
    return scored


def _score_batch(lm: Any, rows: Sequence[Row]) -> list[Score]:
    import torch

    ids, positions, options = _tensors(rows, lm.device)
    allowed = _mask(options, lm.model.dtype)
    with torch.no_grad():
        logits = lm.model(input_ids=ids, attention_mask=allowed, position_ids=positions).logits
    if logits.shape[:2] != ids.shape:
        raise ValueError(f"{logits.shape[1]} logits for {ids.shape[1]} tokens")
    where, targets, lengths = _targets(rows)
    predicted = logits[tuple(torch.tensor(where, device=lm.device).T)]  # [targets, vocabulary]
    wanted = torch.tensor(targets, device=lm.device)
    logs = torch.log_softmax(predicted, dim=-1, dtype=getattr(lm, "softmax_dtype", None))
    each = torch.split(logs.gather(1, wanted[:, None])[:, 0], lengths)
    greedy = torch.split(predicted.argmax(dim=-1) == wanted, lengths)
    return [(float(nats.sum()), bool(says.all())) for nats, says in zip(each, greedy, strict=True)]


def _tensors(rows: Sequence[Row], device: Any) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Ids, positions and option numbers (0 the question, -1 padding), each [rows, longest row]."""
    import torch

    width = max(map(len, rows))
    ids, positions, options = [], [], []
    for row in rows:
        length = len(row.context)
        own, place, number = list(row.context), list(range(length)), [0] * length
        for k, option in enumerate(row.options, start=1):
            own += option[:-1]
            place += range(length, length + len(option) - 1)
            number += [k] * (len(option) - 1)
        padding = width - len(own)
        ids.append(own + [0] * padding)
        positions.append(place + [0] * padding)
        options.append(number + [-1] * padding)
    tensor = [torch.tensor(value, device=device) for value in (ids, positions, options)]
    return tensor[0], tensor[1], tensor[2]


def _mask(options: "torch.Tensor", dtype: Any) -> "torch.Tensor":
    """What each token may see, [rows, 1, tokens, tokens]: 0, or the type's lowest value."""
    import torch

    asks, seen = options[:, :, None], options[:, None, :]
    earlier = torch.ones(options.shape[1], options.shape[1], dtype=torch.bool, device=options.device).tril()
    allowed = earlier & ((seen == 0) | (seen == asks))
    mask = torch.zeros(allowed.shape, dtype=dtype, device=options.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def _targets(rows: Sequence[Row]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Where each option's tokens are predicted (row, place), the tokens, and each option's number of tokens."""
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    lengths: list[int] = []
    for number, row in enumerate(rows):
        place = len(row.context)
        for option in row.options:
            where.append((number, len(row.context) - 1))
            where += [(number, place + k) for k in range(len(option) - 1)]
            place += len(option) - 1
            targets += option
            lengths.append(len(option))
    return where, targets, lengths
