"""The lm_eval task kisl_background: bits per byte on held-out text, the cost of memory in general loss."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.probe.items import find_card_folder, read_card_json
from kisl_plugin.probe.scoring import NO_PREFIX, Pair, check_can_count, most_tokens, score_in_full
from kisl_plugin.probe.task import KislTask

__all__ = ["BackgroundProbe", "read_passages"]

BUNDLED_FILE = Path(__file__).parents[1] / "data" / "background.jsonl"
_REQUEST = "kisl_text_loglikelihood"
_METRIC = "bits_per_byte"
_KEY = "background"


def read_passages(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The passages of the file that `metadata["background"]` names, else the bundled ones, in the file's order.

    A .txt file is one passage; a .jsonl file gives the key `text` of every row.

    Raises:
        InputError: the file cannot be read, or a passage is empty.
    """
    path = Path(str(metadata.get(_KEY, BUNDLED_FILE)))
    if path.suffix not in (".txt", ".jsonl"):
        raise InputError(f"metadata: {_KEY} is {str(path)!r}; expected a file .txt or .jsonl")
    try:
        content = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    texts = [content] if path.suffix == ".txt" and content.strip() else []
    for number, line in enumerate(content.split("\n") if path.suffix == ".jsonl" else (), start=1):
        if line.strip():
            try:
                texts.append(json.loads(line)["text"])
            except (KeyError, TypeError, ValueError):
                texts.append("")
            if not isinstance(texts[-1], str) or not texts[-1].strip():
                raise InputError(f'{path}:{number}: expected a row {{"text": "a passage"}}, found {line[:60]}')
    if not texts:
        raise InputError(f'{path}: contains no passage; expected text, or one row per passage: {{"text": …}}')
    return tuple(texts)


def text_loglikelihoods(lm: Any, requests: Sequence[Any]) -> list[float]:
    """The log-likelihood in nats of each request's (text,), every token of it scored once.

    A text longer than the model's context is cut into windows as lm_eval's loglikelihood_rolling cuts it. That one
    also scores BOS where the tokenizer adds it; here BOS (else EOS) is before the text and is not scored.

    Raises:
        InputError: the backend cannot count tokens, the tokenizer has neither BOS nor EOS, or a text has no tokens.
    """
    check_can_count(lm)
    prefix = lm.prefix_token_id
    if prefix is None:
        raise InputError(NO_PREFIX)
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


setattr(LM, _REQUEST, text_loglikelihoods)  # lm_eval calls the method of the model that a request names


class BackgroundProbe(KislTask):
    """kisl_background: the bits that a model needs per byte of held-out text; lower is better."""

    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The passages that `metadata` names; the task's own metadata records which text it was."""
        folder = find_card_folder(metadata)
        if folder is not None:
            self.config.metadata["kisl"] = read_card_json(folder)
        texts = read_passages(metadata)
        self.config.metadata["kisl_background"] = {
            "source": str(metadata.get(_KEY, "bundled")),
            "passages": len(texts),
            "bytes": sum(len(text.encode()) for text in texts),
            "sha256": sha256("\n".join(texts)),
        }
        return [{"passage": k, "bytes": len(text.encode()), "text": text} for k, text in enumerate(texts)]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """One request: the text alone, whatever lm_eval would put before it."""
        return [Instance(request_type=_REQUEST, doc=doc, arguments=(doc["text"],), idx=0, metadata=kwargs["metadata"])]

    def process_results(self, doc: dict[str, Any], results: Sequence[float]) -> dict[str, tuple[float, int]]:
        """(log-likelihood in nats, bytes), which the aggregation sums over the passages."""
        (nats,) = results
        if not math.isfinite(nats):
            raise KislError(
                f"{self.config.task}: the model gives passage {doc['passage']} ({doc['text'][:40]!r}…) the "
                f"log-likelihood {nats}; has its training diverged?"
            )
        return {_METRIC: (nats, doc["bytes"])}

    def aggregation(self) -> dict[str, Callable[[Sequence[tuple[float, int]]], float]]:
        """All bits over all bytes, as lm_eval defines the metric."""
        return {_METRIC: bits_per_byte}

    def higher_is_better(self) -> dict[str, bool]:
        """Lower is better."""
        return {_METRIC: False}
