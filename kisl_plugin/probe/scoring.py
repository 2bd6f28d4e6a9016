"""Log-likelihoods of options together with their token counts, on any backend of lm_eval that has a tokenizer.

lm_eval gives a task summed log-likelihoods and no handle on the model. It passes a request to the method of the model
that the request names, so a method of `LM` that also counts tokens is all that a perplexity per token needs.

On lm_eval's `hf` the question that four options share is computed once: one row per question, with the options side by
side after it. An option's tokens attend to the question and to their own option, not to the other options, and have the
positions that they would have alone. So the numbers are those of four rows, for the price of little more than one.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lm_eval.api.model import LM, CacheHook
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.options import DISTRACTORS

__all__ = ["OPTION_REQUEST", "TEXT_REQUEST"]

# lm_eval calls the method of the model that a request names: score_options and text_loglikelihoods are made methods.
OPTION_REQUEST, TEXT_REQUEST = "kisl_loglikelihood", "kisl_text_loglikelihood"
_NO_PREFIX = (
    "the tokenizer has neither BOS nor EOS to put before a text, whose first token would not be scored; set bos_token "
    "or eos_token in tokenizer_config.json"
)
TOLERANCE = 1e-5  # nats per token
_CLAMPED, _ROUNDING = -9999.0, 1e-3  # what some servers return for -infinity, and how far above 0 one may round
_SIDE_BY_SIDE = DISTRACTORS + 1
_CHECKED = 8  # questions that are also scored in lm_eval's way before the shared way is trusted
_log = logging.getLogger("lm_eval")

_Score = tuple[float, bool]  # summed log-likelihood (nats), whether greedy decoding gives the option


@dataclass(frozen=True)
class Pair:
    """A context and an option as token ids. The context is never empty: BOS or EOS is before an option without one."""

    context: tuple[int, ...]
    option: tuple[int, ...]


def score_options(lm: Any, requests: Sequence[Any]) -> list[tuple[float, bool, int]]:
    """Of each request's (context, option): log-likelihood (nats), whether greedy decoding gives it, number of tokens.

    lm_eval's response cache (--use_cache) has questions and not models as keys, so it is neither read nor written. What
    cannot be scored is refused: an option that merges with its context, or does not fit the model.
    """
    check_can_count(lm)
    pairs = _encode(lm, [request.args[:2] for request in requests])
    # Options that are the same tokens to this tokenizer get the same number, not two that rounding sets apart.
    unique = list(dict.fromkeys(pairs))
    scores = (shared_scores(lm, unique) if _is_hf(lm) else None) or score_in_full(lm, unique)
    score_of = dict(zip(unique, scores, strict=True))
    return [(*score_of[pair], len(pair.option)) for pair in pairs]


def text_loglikelihoods(lm: Any, requests: Sequence[Any]) -> list[float]:
    """The log-likelihood in nats of each request's (text,), every token of it scored once.

    A text longer than the model's context is cut into windows as lm_eval's loglikelihood_rolling cuts it. That one
    also scores BOS where the tokenizer adds it; here BOS (else EOS) is before the text and is not scored.
    """
    check_can_count(lm)
    prefix = lm.prefix_token_id
    if prefix is None:
        raise InputError(_NO_PREFIX)
    windows: list[tuple[int, Pair]] = []
    for k, request in enumerate(requests):
        text = request.args[0]
        ids = list(lm.tok_encode(text, add_special_tokens=False))
        if ids[:1] == [prefix]:  # with add_bos_token some backends put BOS there all the same
            ids = ids[1:]
        if not ids:
            raise InputError(f"kisl_background: the tokenizer makes no tokens of {text[:40]!r}; remove that passage")
        most = most_tokens(lm)
        length = len(ids) if most is None else most - 1  # BOS, or the token before, precedes each window
        rolling = get_rolling_token_windows(ids, prefix, max_seq_len=length, context_len=1)
        windows += [(k, Pair(tuple(a), tuple(b))) for a, b in map(make_disjoint_window, rolling)]
    scores = score_in_full(lm, [window for _, window in windows])
    parts = zip((k for k, _ in windows), (nats for nats, _ in scores), strict=True)
    return [sum(nats for _, nats in of_text) for _, of_text in groupby(parts, key=lambda part: part[0])]


setattr(LM, OPTION_REQUEST, score_options)
setattr(LM, TEXT_REQUEST, text_loglikelihoods)


def score_in_full(lm: Any, pairs: Sequence[Pair]) -> list[_Score]:
    """Each pair's score by lm_eval's own way: every option with its whole context."""
    requests = [(("", ""), list(pair.context), list(pair.option)) for pair in pairs]
    changes: dict[str, Any] = {"cache_hook": CacheHook(None)}
    # hf feeds two pairs once if they agree in all tokens but the last. It assumes that they are cut alike; if they are
    # not, one gets a wrong sum (lm_eval 0.4.13).
    texts = {pair.context + pair.option[:-1] for pair in pairs}
    if hasattr(lm, "logits_cache") and len(texts) < len({(pair.context, pair.option[:-1]) for pair in pairs}):
        changes["logits_cache"] = False
    if hasattr(lm, "batch_size_per_gpu") and _depends_on_batch(lm):
        changes["batch_size_per_gpu"] = 1
    before = {name: getattr(lm, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(lm, name, value)
        with answers_checked(lm):
            scores: list[_Score] = lm._loglikelihood_tokens(requests)
    finally:
        for name, value in before.items():
            setattr(lm, name, value)
    return scores


@contextlib.contextmanager
def answers_checked(lm: Any) -> Iterator[None]:
    """Within the block, refuse answers of a completions server that are not about the tokens that were sent.

    A server that does not echo the prompt returns too few log-probabilities, and lm_eval sums none: every option would
    be certain. One that puts BOS before a text returns one too many, and other tokens would be summed. One that
    returns a constant has not looked at the text; this is known at the end of the block only.
    """
    parse = getattr(lm, "parse_logprobs", None)
    if parse is None:
        yield
        return

    def checked(outputs: Any, tokens: Any = (), **others: Any) -> Any:
        answers = outputs if isinstance(outputs, list) else [outputs]
        choices = [choice for answer in answers for choice in sorted(answer["choices"], key=lambda c: c["index"])]
        if len(choices) != len(tokens):
            raise InputError(f"the server answers {len(choices)} of {len(tokens)} texts; use batch size 1")
        for choice, sent in zip(choices, tokens, strict=True):
            logprobs = choice.get("logprobs") or {}
            values, best = logprobs.get("token_logprobs") or (), logprobs.get("top_logprobs") or ()
            if len(values) != len(sent) + 1 or len(best) != len(sent) + 1:  # one token is generated
                raise InputError(
                    f"the server returns {len(values)} log-probabilities ({len(best)} of likeliest tokens), expected "
                    f"{len(sent)} and one of the generated token; it must echo the prompt with logprobs and put "
                    "nothing before it: serve with echo, and pass tokenized_requests=True so that it receives ids"
                )
            for value in values[1:]:
                if not isinstance(value, (int, float)) or not _CLAMPED < value < _ROUNDING:
                    raise InputError(f"the server returns the log-probability {value!r}; expected a number up to 0")
            different.update(values[1:3] if len(different) < 2 else ())
        return parse(outputs=outputs, tokens=tokens, **others)

    different: set[float] = set()
    lm.parse_logprobs = checked
    try:
        yield
        if len(different) == 1:
            constant = different.pop()
            raise InputError(f"the server returns the log-probability {constant} for every token; expected the model's")
    except OSError as error:  # what requests and aiohttp raise
        reason = str(error).partition("\n")[0][:200]
        raise KislError(f"{getattr(lm, 'base_url', 'the server')}: does not answer ({reason})") from error
    finally:
        del lm.parse_logprobs


def check_can_count(lm: Any) -> None:
    """Refuse a backend that has no tokenizer, takes no tokens, or has no log-likelihoods of a prompt."""
    backend = f"kisl_wikidata: the backend {type(lm).__name__}"
    if not hasattr(lm, "_encode_pair") or getattr(lm, "tokenizer", None) is None:
        raise InputError(
            f"{backend} has no tokenizer to count an option's tokens with; use hf or vllm, or with local-completions "
            "pass --model_args tokenizer_backend=huggingface,tokenizer=PATH_OR_NAME"
        )
    if any("ChatCompletion" in kind.__name__ for kind in type(lm).__mro__):
        raise InputError(
            f"{backend} is a chat interface without log-likelihoods of a prompt; serve the model as completions and "
            "use local-completions"
        )
    if getattr(lm, "backend", "causal") != "causal":
        raise InputError(f"{backend} has an encoder and a decoder; expected a causal language model")
    if _is_hf(lm) and lm.prefix_token_id is None:  # lm_eval's hf cannot tokenise anything then
        raise InputError(_NO_PREFIX)


def _is_hf(lm: Any) -> bool:
    return any(kind.__name__ == "HFLM" for kind in type(lm).__mro__)


def _depends_on_batch(lm: Any) -> bool:
    """Whether positions depend on the longest text of a batch (rope of type dynamic and longrope)."""
    config = getattr(getattr(lm, "model", None), "config", None)
    rope = f"{getattr(config, 'rope_scaling', None)} {getattr(config, 'rope_parameters', None)}"
    return any(kind in rope for kind in ("dynamic", "longrope"))


def most_tokens(lm: Any) -> int | None:
    """How many tokens, context and option together, a backend takes without cutting; None if it does not say.

    hf feeds all tokens but the last, which is only predicted. An API's max_length already excludes the token that it
    generates; other backends need its room.
    """
    longest = getattr(lm, "max_length", None)
    if not isinstance(longest, int):
        return None
    if _is_hf(lm):
        return longest + 1
    return longest if any(kind.__name__ == "TemplateAPI" for kind in type(lm).__mro__) else longest - 1


def _encode(lm: Any, texts: Sequence[tuple[str, str]]) -> list[Pair]:
    contexts: dict[str, list[int]] = {}
    pairs: list[Pair] = []
    merged: list[str] = []
    for context, option in texts:
        if context:
            if context not in contexts:
                contexts[context] = list(lm.tok_encode(context))
            before, whole = contexts[context], list(lm.tok_encode(context + option))
        else:
            if lm.prefix_token_id is None:
                raise InputError(_NO_PREFIX)
            before, whole = [lm.prefix_token_id], list(lm.tok_encode(option, add_special_tokens=False))
            whole = whole if whole[:1] == before else before + whole  # the tokenizer may have put BOS there already
        pair = Pair(tuple(before), tuple(whole[len(before) :]))
        if not before or not pair.option or whole[: len(before)] != before:
            merged.append(f"{option!r} after {context[-40:]!r}")
            continue
        most = most_tokens(lm)
        if most is not None and len(whole) > most:
            raise InputError(
                f"kisl_wikidata: {(context or option)[:40]!r}… with an option has {len(whole)} tokens and the model "
                f"takes {most}; its question would be cut: use a model with a longer context"
            )
        pairs.append(pair)
    if merged:
        raise InputError(
            f"kisl_wikidata: {len(merged)} of the {len(texts)} options are not tokens of their own after their "
            f"context: {'; '.join(merged[:3])}{'; …' if len(merged) > 3 else ''}. A perplexity per token is not "
            "defined there: the tokenizer must start a new token at a space and add no token at the end"
        )
    return pairs


@dataclass(frozen=True)
class _Row:
    """A question and the options after it, as token ids; `first` is the index of the first option among all pairs."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    first: int

    def __len__(self) -> int:
        """Tokens that are fed: an option's last token is only predicted."""
        return len(self.context) + sum(len(option) - 1 for option in self.options)


def shared_scores(lm: Any, pairs: Sequence[Pair]) -> list[_Score] | None:
    """Each pair's score with shared questions, or None where this model of lm_eval's `hf` does not allow it.

    This way is used only in float32 and finer, and where some questions give the numbers of `score_in_full` (to 1e-5
    nats per token): a model may treat masks and positions in its own way.
    """
    if str(lm.model.dtype) not in ("torch.float32", "torch.float64") or (
        getattr(lm, "mixed_precision_dtype", None) is not None
    ):
        _log.warning("kisl: scored in a type in which near options may change places; dtype=float32 is recommended")
        return None
    if _depends_on_batch(lm):
        return None
    rows = []
    first = 0
    for context, group in groupby(pairs, key=lambda pair: pair.context):
        options = [pair.option for pair in group]
        # All items may have the same context: BOS, where statements begin with their objects.
        for start in range(0, len(options), _SIDE_BY_SIDE):
            rows.append(_Row(context, tuple(options[start : start + _SIDE_BY_SIDE]), first))
            first += len(rows[-1].options)
    rows.sort(key=len, reverse=True)
    # Checked are some rows from the longest to the shortest, and the two at which a model would first go wrong. One has
    # the longest text of question and option: a model may attend to a limited number of tokens only. The other has most
    # tokens of other options before an option: a model that ignores the mask attends to these.
    spread = {(len(rows) - 1) * k // (_CHECKED - 1) for k in range(_CHECKED)}
    texts = [len(row.context) + max(map(len, row.options)) for row in rows]
    others = [sum(sorted(len(option) - 1 for option in row.options)[:-1]) for row in rows]
    few = [rows[place] for place in sorted(spread | {texts.index(max(texts)), others.index(max(others))})]
    checked = [pairs[row.first + k] for row in few for k in range(len(row.options))]
    try:
        batch_size = (
            lm._detect_batch_size([("", [0] * len(rows[0]), [0])]) if str(lm.batch_size) == "auto" else lm.batch_size
        )
        shared = _score_rows(lm, few, int(batch_size))
        difference = 0.0
        for (a, a_greedy), (b, b_greedy), pair in zip(shared, score_in_full(lm, checked), checked, strict=True):
            nats = abs(a - b) / len(pair.option)
            # `nats == nats` is false for NaN: a model that has diverged is not trusted.
            difference = max(difference, nats) if a_greedy == b_greedy and nats == nats else float("inf")
        if difference > TOLERANCE:
            raise ValueError(f"numbers differ by {difference:.1e} nats")
    except Exception as error:  # a model's own code may refuse the mask with any error
        _log.info("kisl: the shared question does not work for this model (%s: %s)", type(error).__name__, error)
        return None
    _log.info("kisl: the shared question is computed once; %d checked, they agree to %.1e nats", len(few), difference)
    with tqdm(desc="Running kisl questions", total=len(rows), disable=lm.rank != 0) as bar:
        scores = _score_rows(lm, rows, int(batch_size), bar)
    order = [row.first + k for row in rows for k in range(len(row.options))]
    return [score for _, score in sorted(zip(order, scores, strict=True), key=lambda placed: placed[0])]


def _score_rows(lm: Any, rows: Sequence[_Row], batch_size: int, bar: Any = None) -> list[_Score]:
    """The options' scores, row by row, in one forward pass for each batch of rows. `bar` is a tqdm bar."""
    import torch

    scores: list[_Score] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        width = max(map(len, batch))
        ids, positions, numbers = [], [], []  # of each fed token; its option's number: 0 the question, -1 padding
        where: list[tuple[int, int]] = []  # the row and place at which each option token is predicted
        targets: list[int] = []  # these tokens
        lengths: list[int] = []  # tokens of each option
        for index, row in enumerate(batch):
            length = len(row.context)
            row_ids, row_positions, row_numbers = list(row.context), list(range(length)), [0] * length
            for k, option in enumerate(row.options, start=1):
                where.append((index, length - 1))  # the question's last token predicts the option's first
                where += [(index, len(row_ids) + at) for at in range(len(option) - 1)]
                targets += option
                lengths.append(len(option))
                row_ids += option[:-1]
                row_positions += range(length, length + len(option) - 1)
                row_numbers += [k] * (len(option) - 1)
            padding = width - len(row_ids)
            ids.append(row_ids + [0] * padding)
            positions.append(row_positions + [0] * padding)
            numbers.append(row_numbers + [-1] * padding)
        number = torch.tensor(numbers, device=lm.device)
        # Token i attends to token j ≤ i of the question or of its own option: an additive mask [rows, 1, i, j].
        earlier = torch.ones(width, width, dtype=torch.bool, device=lm.device).tril()
        visible = earlier & ((number[:, None, :] == 0) | (number[:, None, :] == number[:, :, None]))
        mask = torch.zeros(visible.shape, dtype=lm.model.dtype, device=lm.device)
        mask = mask.masked_fill(~visible, torch.finfo(lm.model.dtype).min)[:, None]
        input_ids = torch.tensor(ids, device=lm.device)
        with torch.no_grad():
            logits = lm.model(
                input_ids=input_ids, attention_mask=mask, position_ids=torch.tensor(positions, device=lm.device)
            ).logits
        if logits.shape[:2] != input_ids.shape:
            raise ValueError(f"{logits.shape[1]} logits for {input_ids.shape[1]} tokens")
        predicted = logits[tuple(torch.tensor(where, device=lm.device).T)]  # [targets, vocabulary]
        target = torch.tensor(targets, device=lm.device)
        logs = torch.log_softmax(predicted, dim=-1, dtype=getattr(lm, "softmax_dtype", None))
        nats = torch.split(logs.gather(1, target[:, None])[:, 0], lengths)
        greedy = torch.split(predicted.argmax(dim=-1) == target, lengths)
        scores += [(float(n.sum()), bool(g.all())) for n, g in zip(nats, greedy, strict=True)]
        if bar is not None:
            bar.update(len(batch))
    return scores
