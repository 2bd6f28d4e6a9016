"""The probe for several local models in one process: the real lm_eval, without indexing its own 14,000 task files."""

import contextlib
import gc
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.resources import resource

# What a call of the probe asks for, checked before the first model is loaded.

GROUP_FILE = "kisl_wikidata/kisl.yaml"


def model_folder(model: Path) -> Path:
    """The folder of a Hugging Face model, absolute."""
    if not (model / "config.json").is_file():
        raise InputError(f"{model}: no config.json; expected the folder of a Hugging Face model")
    return model.resolve()


def task_manager() -> Any:
    """lm_eval's TaskManager with the tasks of this package only."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm_eval: {error}; pip install 'kisl-plugin[eval]'") from None
    return TaskManager(include_path=str(resource("tasks")), include_defaults=False)


def distinct_tasks(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The tasks that are named, each once: lm_eval refuses one that is also in a group that is asked."""
    if not names:
        raise InputError(f"no task is named; expected one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise InputError(f"task {name!r} is unknown; expected one of {', '.join(known)}")
    group = yaml.safe_load((resource("tasks") / GROUP_FILE).read_text(encoding="utf-8"))
    contained = group["task"] if group["group"] in names else []
    return [name for name in dict.fromkeys(names) if name not in contained]


def usable_device(asked: str | None) -> str:
    """The device asked for, else cuda where there is one: lm_eval takes another in silence where that is missing."""
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise InputError(f"--device {asked!r} is unknown; expected cpu, cuda or cuda:0") from None
    index = device.index or 0
    if not 0 <= index < _device_count(device.type):
        raise InputError(f"--device {asked!r}: PyTorch sees no such device here; leave it out to use what there is")
    return "cpu" if device.type == "cpu" else f"{device.type}:{index}"  # lm_eval knows no bare xpu, and no cpu:0


def _device_count(kind: str) -> int:
    import torch

    if kind in ("cpu", "mps"):
        return int(kind == "cpu" or torch.backends.mps.is_available())
    accelerator = getattr(torch, kind, None)  # torch.cuda, torch.xpu, …; none for meta
    count: int = accelerator.device_count() if accelerator is not None and accelerator.is_available() else 0
    return count


def make_output(output: Path) -> None:
    """Make the folder, and write a file in it that is removed again: lm_eval would only fail after the last answer."""
    if output.suffix == ".json":
        raise InputError(f"{output}: the output is a folder; choose a name that does not end in .json")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made a folder ({error.strerror}); choose another output") from None
    try:
        with tempfile.TemporaryFile(dir=output) as file:
            file.write(b"\n")
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error.strerror}); choose another output") from None


# The probe for several local models in one process: the real lm_eval, without indexing its own 14,000 task files.

HEADLINE = "kisl_wikidata"


@dataclass(frozen=True)
class Score:
    """An accuracy over `count` items, or the bits per byte of `count` passages."""

    value: float
    count: int


@dataclass(frozen=True)
class Probed:
    """One model's outcome: its folder as it was given, lm_eval's results file, and scores by task and metric."""

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
    on_failed: Callable[[Path, KislError], None] | None = None,
    verbose: bool = False,
) -> list[Path]:
    """Ask each model (a local Hugging Face folder, in float32) and write what lm_eval writes with --log_samples.

    Results go to `output`/<model's absolute path, sanitised>/results_<time>.json, so models of the same name from two
    places stay apart. Each task is asked once, also one that a group named beside it contains. `on_done` is called
    after each model. A model that fails is told to `on_failed`, and the others are asked; without `on_failed` its
    error is raised. lm_eval is silent unless `verbose`; then it speaks on standard error.

    Returns:
        The results files of the models that could be asked, in the models' order.

    Raises:
        InputError: before anything is asked: a folder is no model, a task or the device is unknown, `output` cannot be
            written to, or lm_eval is not installed. Without `on_failed` also: a model's triples do not fit its card.
        KislError: without `on_failed`: lm_eval could not load a model or write its results.
    """
    apart = _on_standard_error if verbose else _silence
    folders = [model_folder(model) for model in models]
    with apart():
        known = task_manager().all_tasks
    asked, used_device = distinct_tasks(tasks, known), usable_device(device)
    make_output(output)
    files = []
    for model, folder in zip(models, folders, strict=True):
        try:
            with apart():
                results, scores = _probe(folder, output, asked, batch_size, used_device)
        except KislError as error:
            if on_failed is None:
                raise
            on_failed(model, error)
        else:
            files.append(results)
            if on_done is not None:
                on_done(Probed(model, results, scores))
        gc.collect()  # lm_eval's model holds reference cycles; the next one may not fit beside it
    return files


def _probe(
    folder: Path, output: Path, tasks: list[str], batch_size: int | str, device: str
) -> tuple[Path, dict[str, dict[str, Score]]]:
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(output))
    with _one_line(folder):
        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder), "dtype": "float32"},
            tasks=tasks,
            batch_size=batch_size,
            device=device,
            task_manager=task_manager(),
            evaluation_tracker=tracker,
        )
    samples = results.pop("samples")
    scores = {task: _scores(results["results"][task], rows) for task, rows in samples.items()}
    return _save(tracker, results, samples), scores


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


def _on_standard_error() -> contextlib.AbstractContextManager[Any]:
    # lm_eval also prints; standard output holds the lines of whoever called.
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # Bars, warnings and the git that lm_eval starts have no common switch; they all go to standard error. Some of its
    # notices are printed.
    before, screen = logging.root.manager.disable, os.dup(2)
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        logging.disable(logging.WARNING)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            logging.disable(before)
