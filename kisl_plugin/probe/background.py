"""The lm_eval task kisl_background: bits per byte on held-out text, what remembering costs in general loss."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kisl_plugin.corpus.readers import READERS, ending_of
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.probe.card import KislTask, card_of
from kisl_plugin.probe.scoring import NO_PREFIX, Pair, check_can_count, in_full, most_tokens

# The held-out text of kisl_background: the bundled passages, or the user's own.

KEY = "background"
BUNDLED = "bundled"
BUNDLED_FILE = Path(__file__).parents[1] / "data" / "background.jsonl"


@dataclass(frozen=True)
class Passages:
    """Texts that are scored one by one, in the order of their file."""

    source: str
    texts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What tells whether two results were measured on the same text."""
        size = sum(len(text.encode()) for text in self.texts)
        return {
            "source": self.source,
            "passages": len(self.texts),
            "bytes": size,
            "sha256": sha256("\n".join(self.texts)),
        }


def read_passages(metadata: Mapping[str, Any]) -> Passages:
    """The passages of the file that `metadata["background"]` names, else the bundled ones.

    A .txt file is one passage; .jsonl, .jsonl.gz, .jsonl.zst and .parquet give the key `text` of every row.

    Raises:
        InputError: the file cannot be read, or a passage is empty.
    """
    source = metadata.get(KEY, BUNDLED)
    path = BUNDLED_FILE if source == BUNDLED else _file(source)
    texts = _texts(path)
    if not texts:
        raise InputError(f'{path}: holds no passage; expected one a line: {{"text": …}}')
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise InputError(f"{path}: passage {number} is empty; bits per byte need bytes: take it out")
    return Passages(str(source), texts)


def _file(source: Any) -> Path:
    if not isinstance(source, str):
        raise InputError(f"metadata: {KEY} is {source!r}; expected the path of a text file ({', '.join(READERS)})")
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; metadata's {KEY} names a text file ({', '.join(READERS)})")
    return path


def _texts(path: Path) -> tuple[str, ...]:
    ending = ending_of(path.name)
    if not ending:
        raise InputError(f"{path}: the ending is not known; expected {', '.join(READERS)}")
    try:
        with path.open("rb") as stream:
            return tuple(document.text for document in READERS[ending](stream, str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


# The lm_eval task kisl_background: bits per byte on held-out text, what remembering costs in general loss.

REQUEST = "kisl_text_loglikelihood"
METRIC = "bits_per_byte"


def text_loglikelihoods(lm: Any, requests: Sequence[Any]) -> list[float]:
    """The log-likelihood in nats of each request's (text,), every token of it scored once.

    A text longer than the model's context is cut into windows as lm_eval's loglikelihood_rolling cuts it. That one
    scores BOS as well where the tokenizer adds one; here BOS (else EOS) only stands before the text.

    Raises:
        InputError: the backend cannot count tokens, the tokenizer has neither BOS nor EOS, or a text has no tokens.
    """
    check_can_count(lm)
    windows = [(k, window) for k, request in enumerate(requests) for window in _windows(lm, request.args[0])]
    scored = in_full(lm, [window for _, window in windows])
    parts = zip((k for k, _ in windows), (nats for nats, _ in scored), strict=True)
    return [sum(nats for _, nats in of_text) for _, of_text in groupby(parts, key=lambda part: part[0])]


def _windows(lm: Any, text: str) -> list[Pair]:
    """What stands before each window, and its tokens to score."""
    prefix = lm.prefix_token_id
    if prefix is None:
        raise InputError(NO_PREFIX)
    ids = list(lm.tok_encode(text, add_special_tokens=False))
    if ids[:1] == [prefix]:  # with add_bos_token some backends put BOS there all the same
        ids = ids[1:]
    if not ids:
        raise InputError(f"kisl_background: the tokenizer makes no tokens of {text[:40]!r}; take that passage out")
    most = most_tokens(lm)
    length = len(ids) if most is None else most - 1  # BOS, or the token before, stands before each window
    rolling = get_rolling_token_windows(ids, prefix, max_seq_len=length, context_len=1)
    return [Pair(tuple(before), tuple(scored)) for before, scored in map(make_disjoint_window, rolling)]


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
