"""The lm_eval task kisl_background: bits per byte on held-out text, what remembering costs in general loss."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.probe.asked import KislTask
from kisl_plugin.probe.items import card_of
from kisl_plugin.probe.passages import read_passages
from kisl_plugin.probe.scoring import check_can_count, without_cache

REQUEST = "kisl_text_loglikelihood"
METRIC = "bits_per_byte"
# By how much a window of so many scored tokens must be shorter than a backend's `max_length`: hf feeds the token before
# them and all but their last, an API takes them all and has set the generated token aside, others have not.
RESERVED = {"HFLM": 0, "TemplateAPI": 1}
RESERVED_ELSEWHERE = 2


def text_loglikelihoods(lm: Any, requests: Sequence[Any]) -> list[float]:
    """The log-likelihood in nats of each request's (text,), every token of it scored once.

    A text longer than the model's context is cut into windows as lm_eval's loglikelihood_rolling cuts it. That one
    scores BOS as well where the tokenizer adds one; here BOS (else EOS) only stands before the text.

    Raises:
        InputError: the backend cannot count tokens, the tokenizer has neither BOS nor EOS, or a text has no tokens.
    """
    check_can_count(lm)
    windows = [(k, window) for k, request in enumerate(requests) for window in _windows(lm, request.args[0])]
    with without_cache(lm), _without_shared_logits(lm):
        scored = lm._loglikelihood_tokens([(None, *window) for _, window in windows])
    parts = zip((k for k, _ in windows), (nats for nats, _ in scored), strict=True)
    return [sum(nats for _, nats in of_text) for _, of_text in groupby(parts, key=lambda part: part[0])]


def _windows(lm: Any, text: str) -> list[tuple[list[int], list[int]]]:
    """(context, tokens to score) of each window; the context is never empty."""
    prefix = lm.prefix_token_id
    if prefix is None:
        raise InputError(
            f"kisl_background: the tokenizer has neither BOS nor EOS, so nothing can stand before {text[:40]!r}, whose "
            "first token would go unscored; set bos_token or eos_token in tokenizer_config.json"
        )
    ids = list(lm.tok_encode(text, add_special_tokens=False))
    if ids[:1] == [prefix]:  # with add_bos_token some backends put BOS there all the same
        ids = ids[1:]
    if not ids:
        raise InputError(f"kisl_background: the tokenizer makes no tokens of {text[:40]!r}; take that passage out")
    rolling = get_rolling_token_windows(ids, prefix, max_seq_len=_window_length(lm, len(ids)), context_len=1)
    return [make_disjoint_window(window) for window in rolling]


def _window_length(lm: Any, tokens: int) -> int:
    longest = getattr(lm, "max_length", None)
    if not isinstance(longest, int):
        return tokens
    kinds = (kind.__name__ for kind in type(lm).__mro__)
    return longest - next((RESERVED[kind] for kind in kinds if kind in RESERVED), RESERVED_ELSEWHERE)


@contextlib.contextmanager
def _without_shared_logits(lm: Any) -> Iterator[None]:
    """Let every window be fed by itself.

    hf feeds requests once that agree in all tokens but the last, and takes it that they are scored from the same token
    on. Of a periodic text two windows may agree so and be scored from different ones.
    """
    shares = getattr(lm, "logits_cache", None)
    if shares is None:
        yield
        return
    lm.logits_cache = False
    try:
        yield
    finally:
        lm.logits_cache = shares


class BackgroundProbe(KislTask):
    """kisl_background: the bits that a model needs per byte of held-out text; lower is better."""

    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "task": "kisl_background",
        "output_type": "loglikelihood_rolling",
        "num_fewshot": 0,
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": METRIC, "aggregation": METRIC, "higher_is_better": False}],
    }

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        setattr(LM, REQUEST, text_loglikelihoods)
        super().__init__(config)

    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The passages that `metadata` names; which they were is said in the task's own metadata."""
        card = card_of(metadata)
        if card is not None:
            self.config.metadata["kisl"] = card
        passages = read_passages(metadata)
        self.config.metadata["kisl_background"] = passages.to_dict()
        return [{"passage": k, "bytes": len(text.encode()), "text": text} for k, text in enumerate(passages.texts)]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """One request: the text alone, whatever lm_eval would put before it."""
        return [
            Instance(request_type=REQUEST, doc=doc, arguments=(doc["text"],), idx=0, metadata=kwargs["metadata"]),
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[float]) -> dict[str, tuple[float, int]]:
        """(log-likelihood in nats, bytes), which the aggregation sums over the passages."""
        (nats,) = results
        if not math.isfinite(nats):
            raise KislError(
                f"{self.config.task}: the model gives passage {doc['passage']} ({doc['text'][:40]!r}…) the "
                f"log-likelihood {nats}; has its training diverged?"
            )
        return {METRIC: (nats, doc["bytes"])}

    def aggregation(self) -> dict[str, Callable[[Sequence[tuple[float, int]]], float]]:
        """All bits over all bytes, as lm_eval defines the metric."""
        return {METRIC: bits_per_byte}

    def higher_is_better(self) -> dict[str, bool]:
        """Lower is better."""
        return {METRIC: False}
