"""Which run card belongs to what lm_eval was told of a model, and the triples beside it."""

import json
import logging
import os
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from datasets import Dataset
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card
from kisl_plugin.triples import CONTROL, Triple, read_triples

# A user's mistake in one line under `lm_eval` too, whose command would print a traceback.


def report_in_one_line() -> None:
    """From now on an uncaught KislError ends Python with one line and the error's exit status."""
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


# What lm_eval knows and does not tell a task: it stands in the frames that call it.


def caller_of(kind: type) -> Any | None:
    """The nearest caller's variable of this class, or None. A model inside lm_eval's cache counts as itself.

    lm_eval before 0.4.12 gives a task of its own class neither the model's arguments nor --metadata, and no release
    gives it the model; `evaluate` and the task manager hold them while they call the task.
    """
    for names in _callers():
        for value in list(names.values()):
            found = getattr(value, "lm", None) if type(value).__name__ == "CachingLM" else value
            if issubclass(type(found), kind):  # a lazy object may raise when isinstance asks for its __class__
                return found
    return None


def _callers() -> Iterator[dict[str, Any]]:
    frame = sys._getframe(2)
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]


# Which run card belongs to what lm_eval was told of a model, and the triples beside it.

KEYS = ("triples", "run_card", "background")
REMEDY = "copy both from the checkpoint, or export it again"


def card_folder(metadata: Mapping[str, Any]) -> Path | None:
    """The folder of the run card: what `run_card` names, else (without `triples`) the model's own if it has one.

    Raises:
        InputError: a key is misspelt, `run_card` and `triples` are both given, or two cards disagree.
    """
    _check_keys(metadata)
    own = _own_folder(metadata)
    if "run_card" not in metadata:
        return own if "triples" not in metadata else None
    path = Path(str(metadata["run_card"]))
    if path.is_file() and path.name != CARD_NAME:
        raise InputError(f"metadata: run_card {str(path)!r}; expected a file {CARD_NAME} or its folder")
    named = path.parent if path.name == CARD_NAME else path
    if own is not None and as_it_stands(own) != as_it_stands(named):
        raise InputError(
            f"metadata: run_card {str(path)!r} is not the model's own card {own / CARD_NAME}; leave run_card out, "
            "it is for models without a folder"
        )
    return named


def card_of(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The run card as it stands in its file, with keys that only newer readers know; None without one.

    Raises:
        InputError: it cannot be read.
    """
    folder = card_folder(metadata)
    return None if folder is None else as_it_stands(folder)


def as_it_stands(folder: Path) -> Mapping[str, Any]:
    """The card in `folder`, checked, with all its keys."""
    read_run_card(folder)
    card: Mapping[str, Any] = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    return card


def card_time(metadata: Mapping[str, Any]) -> int | None:
    """When the run card was written (ns): another run may have gone into the same folder."""
    folder = card_folder(metadata)
    return None if folder is None else (folder / CARD_NAME).stat().st_mtime_ns


def triples_beside(folder: Path, card: RunCard) -> list[Triple]:
    """The triples of the run, checked against its card.

    Raises:
        InputError: they are missing, or not those that the card counts.
    """
    path, card_path = folder / TRIPLES_NAME, folder / CARD_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing, but {card_path} stands there; {REMEDY}")
    triples = read_triples(path)
    named, found = card.triples.get("sha256"), sha256(path.read_bytes().decode("utf-8"))
    if named is not None and named != found:
        raise InputError(f"{path}: its sha256 is {found}, but {card_path} says {named}; {REMEDY}")
    counts = Counter(triple.group for triple in triples if triple.group != CONTROL)
    expected = {"injected": (counts.total(), card.triples["count"])}
    for name, group in (card.groups or {}).items():
        expected[f"group {name!r}"] = (counts[name], group["count"])
    for what, (there, said) in expected.items():
        if there != said:
            raise InputError(f"{path}: {there} {what} triples, but {card_path} says {said}; {REMEDY}")
    return triples


def _check_keys(metadata: Mapping[str, Any]) -> None:
    for key in metadata:
        near = get_close_matches(key, KEYS, n=1, cutoff=0.8)
        if near and key not in KEYS:
            raise InputError(f"metadata: {key} is unknown; did you mean {near[0]}?")
    if "run_card" in metadata and "triples" in metadata:
        raise InputError(
            f"metadata: run_card {metadata['run_card']!r} and triples {metadata['triples']!r} are both given; "
            f"give one: a run card brings its own triples ({TRIPLES_NAME} beside it)"
        )


def _own_folder(metadata: Mapping[str, Any]) -> Path | None:
    """The model's folder, if it is one and holds a card, be it a broken one."""
    named = metadata.get("pretrained")
    if not isinstance(named, (str, os.PathLike)) or not os.fspath(named):
        return None
    folder = Path(named) / str(metadata.get("subfolder") or "")
    try:
        return folder if os.path.lexists(folder / CARD_NAME) else None
    except (OSError, ValueError):
        return None


# What the tasks share: which model is asked, under every release of lm_eval that is supported.


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
