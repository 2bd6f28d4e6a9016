"""The probe for several local models in one process: the real lm_eval, without indexing its own 14,000 task files."""

import contextlib
import gc
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.resources import resource

HEADLINE = "kisl_wikidata"


@dataclass(frozen=True)
class Score:
    """An accuracy over `count` items, or the bits per byte of `count` passages."""

    value: float
    count: int


@dataclass(frozen=True)
class Probed:
    """One model's outcome: lm_eval's results file, and its scores by task and metric (acc, acc_control, …)."""

    model: Path
    results: Path
    scores: Mapping[str, Mapping[str, Score]]


def probe_models(
    models: Sequence[Path],
    output: Path,
    tasks: Sequence[str] = (HEADLINE,),
    batch_size: int | str = 64,
    device: str | None = None,
    on_done: Callable[[Probed], None] | None = None,
    verbose: bool = False,
) -> list[Path]:
    """Ask each model (a local Hugging Face folder, in float32) and write what lm_eval writes with --log_samples.

    Results go to `output`/<model's absolute path, sanitised>/results_<time>.json, so models of the same name from two
    places stay apart. `on_done` is called after each model. lm_eval is silent unless `verbose`.

    Returns:
        The results files, in the models' order.

    Raises:
        InputError: a folder is no model, a task is unknown, `output` is no folder, or lm_eval is not installed.
        KislError: lm_eval could not load a model or write its results.
    """
    folders = [_model_folder(model) for model in models]
    _prepare(output)
    files = []
    for folder in folders:
        with contextlib.nullcontext() if verbose else _silence():
            probed = _probe(folder, output, list(tasks), batch_size, device)
        files.append(probed.results)
        if on_done is not None:
            on_done(probed)
        gc.collect()  # lm_eval's model holds reference cycles; the next one may not fit beside it
    return files


def _model_folder(model: Path) -> Path:
    if not (model / "config.json").is_file():
        raise InputError(f"{model}: no config.json; expected the folder of a Hugging Face model")
    return model.resolve()


def _prepare(output: Path) -> None:
    if output.suffix == ".json":
        raise InputError(f"{output}: the output is a folder; choose a name that does not end in .json")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a folder ({error.strerror}); choose another output") from None


def _probe(folder: Path, output: Path, tasks: list[str], batch_size: int | str, device: str | None) -> Probed:
    try:
        from lm_eval import simple_evaluate
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm_eval: {error}; pip install 'kisl-plugin[eval]'") from None
    arguments = {"pretrained": str(folder), "dtype": "float32"}
    manager = TaskManager(include_path=str(resource("tasks")), include_defaults=False)
    _check_tasks(tasks, manager.all_tasks)
    tracker = EvaluationTracker(output_path=str(output))
    with _one_line(folder):
        results = simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=tasks,
            batch_size=batch_size,
            device=_device(device),
            task_manager=manager,
            evaluation_tracker=tracker,
        )
    samples = results.pop("samples")
    scores = {task: _scores(results["results"][task], rows) for task, rows in samples.items()}
    return Probed(folder, _save(tracker, results, samples), scores)


def _device(asked: str | None) -> str:
    """The device asked for, else cuda where there is one: lm_eval takes another in silence where that is missing."""
    import torch

    try:
        kind = torch.device(asked).type if asked else ""
    except RuntimeError:
        raise InputError(f"--device {asked!r} is unknown; expected cpu, cuda or cuda:0") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {asked!r}: PyTorch sees no CUDA device here; leave it out to use the CPU")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def _check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    if not tasks:
        raise InputError(f"no task is named; expected one of {', '.join(known)}")
    for task in tasks:
        if task not in known:
            raise InputError(f"task {task!r} is unknown; expected one of {', '.join(known)}")


def _scores(metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
    # A row of samples holds exactly the metrics that it counts for; of these the ones that kisl-fit reads are shown.
    counts = Counter(name for sample in samples for name in sample if _is_shown(name))
    return {name: Score(metrics[f"{name},none"], counts[name]) for name in sorted(counts)}


def _is_shown(name: str) -> bool:
    return name in ("acc", "bits_per_byte") or name.startswith("acc_")


def _save(tracker: Any, results: dict[str, Any], samples: Mapping[str, Any]) -> Path:
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    folder = Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized
    file: Path = folder / f"results_{getattr(tracker, 'date_id', None)}.json"
    # lm_eval only logs that it could not write.
    if not _is_whole(file) or not all(
        _lines(folder / f"samples_{task}_{tracker.date_id}.jsonl") == len(rows) for task, rows in samples.items()
    ):
        raise KislError(f"{folder}: lm_eval could not write its results here; is the disk full, or the name too long?")
    return file


def _is_whole(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else -1


@contextlib.contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except KislError:
        raise
    except Exception as error:  # what a broken model raises is its library's own class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise KislError(f"{folder}: lm_eval could not ask this model ({lines[0]}); see more with verbose") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # Bars, warnings and the git that lm_eval starts have no common switch; they all go to standard error.
    before, screen = logging.root.manager.disable, os.dup(2)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        logging.disable(logging.WARNING)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            logging.disable(before)
