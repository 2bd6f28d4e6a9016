"""The probe for several local models in one process: the real lm_eval, without indexing its own 14,000 task files."""

import contextlib
import gc
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.resources import resource

__all__ = ["HEADLINE", "Scores", "probe_models"]

HEADLINE = "kisl_wikidata"
# By task and metric: an accuracy and its number of items, or bits per byte and the number of passages.
Scores = Mapping[str, Mapping[str, tuple[float, int]]]


def probe_models(
    models: Sequence[Path],
    output: Path,
    tasks: Sequence[str] = (HEADLINE,),
    batch_size: int | str = 64,
    device: str | None = None,
    on_done: Callable[[Path, Scores], None] | None = None,
    on_failed: Callable[[Path, KislError], None] | None = None,
) -> list[Path]:
    """Ask each model (a local Hugging Face folder, in float32) and write what lm_eval writes with --log_samples.

    Results go to `output`/<model's absolute path, sanitised>/results_<time>.json, so models of the same name from two
    places stay apart. A task that is named twice is asked once. `on_done` is called with each model, as it was passed,
    and its scores. If a model fails, `on_failed` is called and the others are asked; without `on_failed` its error is
    raised. `device` None is cuda if there is one. lm_eval prints nothing.

    Returns:
        The results files of the models that could be asked, in the models' order.

    Raises:
        InputError: before anything is asked: a folder is not a model, a task is unknown, `output` cannot
            be written to, or lm_eval is not installed. Without `on_failed` also: a model's triples do not fit its card.
        KislError: without `on_failed`: lm_eval could not load a model or write its results.
    """
    for model in models:
        if not (model / "config.json").is_file():
            raise InputError(f"{model}: no config.json; expected the folder of a Hugging Face model")
    with needs_extra("eval", "kisl probe"), _silence():
        available = _task_manager().all_tasks
    for name in tasks or ("",):
        if name not in available:
            raise InputError(f"task {name!r} is unknown; expected one of {', '.join(available)}")
    # lm_eval would report an output that cannot be written to only after the last answer.
    if output.suffix == ".json":
        raise InputError(f"{output}: the output is a folder; choose a name that does not end in .json")
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()  # the folder may be there and be read-only
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error.strerror}); choose another output") from None
    files = []
    for model in models:
        try:
            with _silence():
                results, scores = _probe(model.resolve(), output, list(dict.fromkeys(tasks)), batch_size, device)
        except KislError as error:
            if on_failed is None:
                raise
            on_failed(model, error)
        else:
            files.append(results)
            if on_done is not None:
                on_done(model, scores)
        gc.collect()  # lm_eval's model has reference cycles; the next one may not fit beside it
    return files


def _task_manager() -> Any:
    """lm_eval's TaskManager with the tasks of this package only."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(resource("tasks")), include_defaults=False)


def _probe(
    folder: Path, output: Path, tasks: list[str], batch_size: int | str, device: str | None
) -> tuple[Path, Scores]:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(output))
    try:
        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder), "dtype": "float32"},
            tasks=tasks,
            batch_size=batch_size,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            task_manager=_task_manager(),
            evaluation_tracker=tracker,
        )
    except KislError:
        raise
    except Exception as error:  # a broken model raises its library's own errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise KislError(f"{folder}: lm_eval could not ask this model ({lines[0]})") from error
    samples = results.pop("samples")
    scores: dict[str, dict[str, tuple[float, int]]] = {}
    for task, rows in samples.items():
        # A row of samples has exactly the metrics that it counts for. Kept are those that kisl-fit reads.
        counts = Counter(name for row in rows for name in row if name.startswith(("acc_", "bits_")) or name == "acc")
        metrics = results["results"][task]
        scores[task] = {name: (metrics[f"{name},none"], counts[name]) for name in sorted(counts)}
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    # lm_eval only logs that it could not write.
    written = Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized
    date = getattr(tracker, "date_id", None)
    file = written / f"results_{date}.json"
    try:
        json.loads(file.read_text(encoding="utf-8"))
        for task, rows in samples.items():
            if (written / f"samples_{task}_{date}.jsonl").read_bytes().count(b"\n") != len(rows):
                raise ValueError(f"the samples of {task} are cut off")
    except (OSError, ValueError) as error:
        raise KislError(f"{written}: lm_eval could not write its results here ({error}); is the disk full?") from None
    return file, scores


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # Progress bars, warnings and the git that lm_eval starts have no common switch; all write to standard error, some
    # notices are printed.
    level, stderr = logging.root.manager.disable, os.dup(2)
    with (
        Path(os.devnull).open("w", encoding="utf-8") as devnull,
        contextlib.redirect_stderr(devnull),
        contextlib.redirect_stdout(devnull),
    ):
        logging.disable(logging.WARNING)
        os.dup2(devnull.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            logging.disable(level)
