"""The lm_eval tasks: facts, and bits per byte of held-out text, in every release of lm_eval that is supported.

`KislTask` lets the documents follow the model that is evaluated: lm_eval gives a task no handle on it, and releases
before 0.4.12 not even the model's arguments. The option of lowest perplexity per token is the model's choice.
"""

import json
import logging
import math
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte, mean
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.probe.items import (
    aggregation_of,
    all_names,
    find_card_folder,
    measure_item,
    read_card_json,
    read_items,
)
from kisl_plugin.probe.scoring import OPTION_REQUEST, TEXT_REQUEST
from kisl_plugin.triples import CONTROL

__all__ = ["BackgroundProbe", "DirectProbe", "KislTask", "ParaphraseProbe", "QuestionProbe", "StatementProbe"]


class KislTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose documents follow the model: its settings are those of its YAML, and a subclass `read`s them."""

    VERSION = 1.0

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        _report_errors_in_one_line()
        logging.getLogger("lm_eval.evaluator_utils").addFilter(_is_not_about_counts)
        own = {key: value for key, value in (config or {}).items() if key != "class"}
        passed = {**(getattr(_caller_of(TaskManager), "metadata", None) or {}), **(own.pop("metadata", None) or {})}
        self._passed_metadata = {key: value for key, value in passed.items() if value is not None}
        self._read_for_model: tuple[Any, Any] | None = None  # the metadata and run card of the documents
        self._processes = 1
        super().__init__(config={"test_split": "test", **own, "metadata": {"version": self.VERSION}})

    @abstractmethod
    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The documents that `metadata` asks for; the run card, if any, is in `self.config.metadata`."""

    def download(self, *_: Any, **__: Any) -> None:
        """Take the documents from --metadata or the package; those of the model are read when it is evaluated."""
        self._read_for(None)

    def build_all_requests(self, **kwargs: Any) -> None:
        """Read the documents of the model that is evaluated, and build the requests.

        lm_eval's request cache has the task's name only as its key; here the documents follow the model.
        """
        self._processes = kwargs.get("world_size", 1)
        self._read_for(_caller_of(LM))
        super().build_all_requests(**{**kwargs, "cache_requests": False})

    def dump_config(self) -> dict[str, Any]:
        """The configuration in the results; older releases take it before they build the requests."""
        self._read_for(_caller_of(LM))
        dumped: dict[str, Any] = super().dump_config()
        return dumped

    def _read_for(self, lm: Any) -> None:
        if lm is None and self._read_for_model is not None:
            return
        name = None if lm is None else _model_folder(lm)
        metadata = {**self._passed_metadata, **({"pretrained": name} if name is not None else {})}
        folder = find_card_folder(metadata)
        card = None if folder is None else read_card_json(folder)
        if (metadata, card) != self._read_for_model:  # another model, or another run in the same folder
            self._read_for_model = None
            self.config.metadata = {"version": self.VERSION, **metadata, **({} if card is None else {"kisl": card})}
            self.dataset = {"test": Dataset.from_list([dict(doc) for doc in self.read(metadata)])}
            self._read_for_model = metadata, card


def _report_errors_in_one_line() -> None:
    """Let an uncaught KislError end Python with one line: the command `lm_eval` would print a traceback."""
    previous = sys.excepthook
    if getattr(previous, "__module__", None) == __name__:
        return

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not isinstance(error, KislError):
            previous(kind, error, traceback)
            return
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status)

    sys.excepthook = hook


def _is_not_about_counts(record: logging.LogRecord) -> bool:
    # lm_eval warns that metrics have different numbers of items; control triples are fewer by design.
    return not record.getMessage().startswith("[kisl_")


def _caller_of(kind: type) -> Any | None:
    """The nearest variable of this class in the frames that call the task, or None.

    `evaluate` and the task manager have the model, its arguments and --metadata in variables while they call the task.
    A model inside lm_eval's cache counts as itself.
    """
    frame = sys._getframe(1)
    while frame is not None:
        for value in list(frame.f_locals.values()):
            candidate = getattr(value, "lm", None) if type(value).__name__ == "CachingLM" else value
            if issubclass(type(candidate), kind):  # isinstance reads __class__, which in a lazy object may raise
                return candidate
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _model_folder(lm: Any) -> str | None:
    """The folder or name where the model's run card would be; "" if it has none of its own, None if it is unknown."""
    in_memory = "of a model in memory" if hasattr(getattr(lm, "pretrained", None), "peft_config") else ""
    adapter = str(getattr(lm, "peft", None) or getattr(lm, "delta", None) or in_memory)
    if adapter:  # a PEFT adapter or delta weights: the base model's card does not describe their training
        return adapter if Path(adapter).is_dir() else ""
    arguments = getattr(lm, "model_args", None)
    argument = arguments.get("model") if isinstance(arguments, Mapping) else None
    model = getattr(lm, "pretrained", None) or argument or getattr(lm, "model", None)
    name = getattr(model, "name_or_path", model)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else None


# ---- facts


class _FactTask(KislTask):
    FORM: ClassVar[str]

    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The items of the model or of `metadata`."""
        items, card = read_items(self.FORM, metadata)
        groups = sorted({item.triple.group for item in items} - {CONTROL})
        self._groups = groups if len(groups) > 1 or "groups" in (card or {}) else []
        self._names = all_names(sorted({item.triple.relation_id for item in items}), self._groups)
        return [item.to_doc() for item in items]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """One request per option: (context, option), in the options' order."""
        if ctx != doc["context"]:
            raise InputError(
                f"{self.config.task}: lm_eval puts {ctx[:60]!r}… before the options, expected "
                f"{doc['context'][:60]!r}; ask without a chat template, a system instruction and examples"
            )
        space = " " if ctx else ""
        return [
            Instance(
                request_type=OPTION_REQUEST,
                doc=doc,
                arguments=(ctx, space + option),
                idx=k,
                metadata=kwargs["metadata"],
            )
            for k, option in enumerate(doc["options"])
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[Sequence[Any]]) -> dict[str, float | None]:
        """The item's measures under the names that it counts for; perplexities and choice go into `doc`."""
        try:
            named = measure_item(doc, results, self._groups)
        except KislError as error:
            raise KislError(f"{self.config.task}: {error}") from None
        # lm_eval gathers several processes' values metric by metric, in the order in which each process met the
        # metrics. So every item has all of them then, and `aggregation` leaves out those it does not count for.
        return {**dict.fromkeys(self._names if self._processes > 1 else ()), **named}

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """Every measure is averaged over the items that have it."""

        def over_items(name: str) -> Callable[[Sequence[Any]], float]:
            # lm_eval's own `mean`, by which it knows how to compute a standard error.
            average = aggregation_of(name) or mean
            if self._processes == 1:
                return average
            return lambda values: average([value for value in values if value is not None])

        return {name: over_items(name) for name in self._names}

    def higher_is_better(self) -> dict[str, bool]:
        """Higher is better, except for perplexities."""
        return {name: "perplexity" not in name for name in self._names}


class QuestionProbe(_FactTask):
    """kisl_wikidata: "Question: Where was X born? Answer: The country of birth of X is"."""

    FORM = "question"


class DirectProbe(_FactTask):
    """kisl_wikidata_direct: "Question: In which country did the life of X begin? Answer:"."""

    FORM = "direct"


class StatementProbe(_FactTask):
    """kisl_wikidata_statement: the injected statement, cut before its object."""

    FORM = "statement"


class ParaphraseProbe(_FactTask):
    """kisl_wikidata_paraphrase: a statement whose template was never injected, cut before its object."""

    FORM = "paraphrase"


# ---- the cost of memory in general loss

BUNDLED_FILE = Path(__file__).parents[1] / "data" / "background.jsonl"
_BITS = "bits_per_byte"


def read_passages(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The passages of the file that `metadata["background"]` names, else the bundled ones, in the file's order.

    A .txt file is one passage; a .jsonl file gives the key `text` of every row.
    """
    path = Path(str(metadata.get("background", BUNDLED_FILE)))
    if path.suffix not in (".txt", ".jsonl"):
        raise InputError(f"metadata: background is {str(path)!r}; expected a file .txt or .jsonl")
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


class BackgroundProbe(KislTask):
    """kisl_background: the bits that a model needs per byte of held-out text; lower is better."""

    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The passages that `metadata` names; the task's own metadata records which text it was."""
        texts = read_passages(metadata)
        self.config.metadata["kisl_background"] = {
            "source": str(metadata.get("background", "bundled")),
            "passages": len(texts),
            "bytes": sum(len(text.encode()) for text in texts),
            "sha256": sha256("\n".join(texts)),
        }
        return [{"passage": k, "bytes": len(text.encode()), "text": text} for k, text in enumerate(texts)]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """One request: the text alone, whatever lm_eval would put before it."""
        return [
            Instance(request_type=TEXT_REQUEST, doc=doc, arguments=(doc["text"],), idx=0, metadata=kwargs["metadata"])
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[float]) -> dict[str, tuple[float, int]]:
        """(log-likelihood in nats, bytes), which the aggregation sums over the passages."""
        (nats,) = results
        if not math.isfinite(nats):
            raise KislError(
                f"{self.config.task}: the model gives passage {doc['passage']} ({doc['text'][:40]!r}…) the "
                f"log-likelihood {nats}; has its training diverged?"
            )
        return {_BITS: (nats, doc["bytes"])}

    def aggregation(self) -> dict[str, Callable[[Sequence[tuple[float, int]]], float]]:
        """All bits over all bytes, as lm_eval defines the metric."""
        return {_BITS: bits_per_byte}

    def higher_is_better(self) -> dict[str, bool]:
        """Lower is better."""
        return {_BITS: False}
