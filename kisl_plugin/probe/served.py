"""A served model's answers, checked: lm_eval takes them as they come."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kisl_plugin.errors import InputError, KislError

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
