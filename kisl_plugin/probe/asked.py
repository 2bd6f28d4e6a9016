"""What the tasks share: which model is asked, under every release of lm_eval that is supported."""

import logging
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from kisl_plugin.errors import InputError
from kisl_plugin.probe.callers import caller_of
from kisl_plugin.probe.card import card_time
from kisl_plugin.probe.uncaught import report_in_one_line


class KislTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose items follow the model. A subclass gives `SETTINGS`, and `read`s what is asked.

    The settings are those of the task's YAML. They stand here because lm_eval 0.4.3 gives a task of its own class
    nothing of its YAML; what a YAML says all the same (a user's, that includes ours) wins.
    """

    VERSION = 1.0
    SETTINGS: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        report_in_one_line()
        logging.getLogger("lm_eval.evaluator_utils").addFilter(_is_not_of_our_counts)
        given = {key: value for key, value in (config or {}).items() if key != "class"}
        told = {**(getattr(caller_of(TaskManager), "metadata", None) or {}), **(given.pop("metadata", None) or {})}
        self._told = {key: value for key, value in told.items() if value is not None}
        super().__init__(config={"test_split": "test", **self.SETTINGS, **given, "metadata": {"version": self.VERSION}})

    @abstractmethod
    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The documents that `metadata` asks for; the run card, if any, is put into `self.config.metadata`."""

    def download(self, *_: Any, **__: Any) -> None:
        """Take the documents from the model's folder or the package; nothing is downloaded."""
        try:
            self._ask(caller_of(LM))
        except InputError:  # of a model that stands about; the one that is asked is known when requests are built
            self._ask(None)

    def build_all_requests(self, **kwargs: Any) -> None:
        """Follow the model that is asked now, and build the requests anew.

        lm_eval's request cache knows the task's name only; here the documents follow the model.
        """
        self._ask(caller_of(LM))
        super().build_all_requests(**{**kwargs, "cache_requests": False})

    def dump_config(self) -> dict[str, Any]:
        """The configuration as the results hold it; older lm_evals take it before they build the requests."""
        self._ask(caller_of(LM))
        dumped: dict[str, Any] = super().dump_config()
        return dumped

    def _ask(self, lm: Any) -> None:
        before = getattr(self, "_asked", None)
        if lm is None and before is not None:
            return
        folder = pretrained_of(lm)
        metadata = {**self._told, **({"pretrained": folder} if folder is not None else {})}
        asked = (metadata, card_time(metadata))
        if asked != before:
            self._asked = None
            self.config.metadata = {"version": self.VERSION, **metadata}
            self.dataset = {"test": Dataset.from_list([dict(doc) for doc in self.read(metadata)])}
            self._asked = asked
        if lm is not None:
            adapter = {"adapter": adapter_of(lm)} if adapter_of(lm) else {}
            self.config.metadata["kisl_probe"] = {"backend": type(lm).__name__, "dtype": dtype_of(lm), **adapter}


def _is_not_of_our_counts(record: logging.LogRecord) -> bool:
    # Control triples are fewer than injected ones by design, and the group `kisl` has no score to weight.
    return not record.getMessage().startswith("[kisl_")


def pretrained_of(lm: Any) -> str | None:
    """The folder or name whose run card is the model's; "" if it has none of its own, None if that is not known."""
    adapter = adapter_of(lm)
    if adapter:  # the card of what it was put upon says nothing of its training
        return adapter if Path(adapter).is_dir() else ""
    loaded = getattr(lm, "pretrained", None) or _argument(lm, "model") or getattr(lm, "model", None)
    named = getattr(loaded, "name_or_path", loaded)
    return os.fspath(named) if isinstance(named, (str, os.PathLike)) else None


def adapter_of(lm: Any) -> str:
    """The PEFT adapter or delta weights upon the pretrained ones, "" if there are none."""
    in_memory = "of a model in memory" if hasattr(getattr(lm, "pretrained", None), "peft_config") else ""
    return str(getattr(lm, "peft", None) or getattr(lm, "delta", None) or in_memory)


def dtype_of(lm: Any) -> str:
    """The type that scores, such as "float32"; what a server computes in is unknown."""
    model = getattr(lm, "model", None)
    engine = getattr(getattr(model, "llm_engine", None), "model_config", None)  # vllm's
    computed = (
        getattr(lm, "mixed_precision_dtype", None),
        getattr(model, "dtype", None),
        getattr(engine, "dtype", None),
    )
    named = next((dtype for dtype in computed if dtype is not None), None) or _argument(lm, "dtype") or "unknown"
    return str(named).removeprefix("torch.")


def _argument(lm: Any, name: str) -> Any:
    arguments = getattr(lm, "model_args", None)
    return arguments.get(name) if isinstance(arguments, Mapping) else None
