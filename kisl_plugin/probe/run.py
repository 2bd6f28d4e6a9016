"""The probe for several local models in one process: the real lm_eval, without indexing its own 14,000 task files."""

import contextlib
import gc
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import resource
from kisl_plugin.huggingface import write_model_card
from kisl_plugin.progress import output_to
from kisl_plugin.runcard import CARD_NAME

__all__ = ["HEADLINE", "Scores", "probe_models"]

HEADLINE = "kisl_wikidata"
# By task and metric: an accuracy (or a number of ties) and its number of items, or bits per byte and that of passages.
Scores = Mapping[str, Mapping[str, tuple[float, int]]]


def probe_models(
    models: Sequence[Path],
    output: Path,
    tasks: Sequence[str] = (HEADLINE,),
    batch_size: int | str = 64,
    device: str | None = None,
    on_done: Callable[[Path, Scores], None] | None = None,
    on_failed: Callable[[Path, KislError], None] | None = None,
    on_skipped: Callable[[Path, Path], None] | None = None,
    *,
    limit: float | None = None,
    model_args: str = "",
    triples: str | None = None,
) -> list[Path]:
    """Ask each model, a Hugging Face folder or a name on the hub, and write what lm_eval writes with --log_samples.

    Results go to `output`/<model's absolute path or name, sanitised>/results_<time>.json, so models of the same name
    from two places stay apart. A task that is named twice is asked once. `on_done` is called with each model, as it was
    passed, and its scores. If a model fails, `on_failed` is called and the others are asked; without `on_failed` its
    error is raised. With `on_skipped`, which gets the model and the file, a model whose results are in `output` already
    is not asked again. `device` None is cuda if there is one. lm_eval prints nothing.

    A model with a run card that is asked all of its own triples gets the scores into its model card (README.md).

    `limit` and `model_args` ("revision=step1000,dtype=bfloat16") are lm_eval's; without a dtype it is float32. With
    `triples` (a source of `read_triples`) every model is asked those, whatever its run card says.

    Returns:
        The results files of the models that have them now, in the models' order.

    Raises:
        InputError: before anything is asked: a model is not found, a task is unknown, `output` cannot
            be written to, or lm_eval is not installed. Without `on_failed` also: a model's triples do not fit its card.
        KislError: without `on_failed`: lm_eval could not load a model or write its results.
    """
    with needs_extra("eval", "kisl probe"), _silence():
        from lm_eval.utils import simple_parse_args_string

        available = _task_manager().all_tasks
    for name in tasks or ("",):
        if name not in available:
            raise InputError(f"task {name!r} is unknown; expected one of {', '.join(available)}")
    shared = simple_parse_args_string(model_args)
    if "pretrained" in shared:
        raise InputError("model_args: pretrained is each MODEL; leave it out")
    arguments = [
        {"pretrained": _find_model(model, shared.get("revision")), "dtype": "float32", **shared} for model in models
    ]
    # lm_eval would report an output that cannot be written to only after the last answer.
    if output.suffix == ".json":
        raise InputError(f"{output}: the output is a folder; choose a name that does not end in .json")
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()  # the folder may be there and be read-only
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error.strerror}); choose another output") from None
    request = {
        "tasks": list(dict.fromkeys(tasks)),
        "batch_size": batch_size,
        "device": device,
        "limit": limit,
        "metadata": {} if triples is None else {"triples": triples},
    }
    files = []
    for model, of_model in zip(models, arguments, strict=True):
        earlier = _earlier_results(output, {**request, "model_args": of_model}) if on_skipped else None
        if on_skipped and earlier:
            on_skipped(model, earlier)
            files.append(earlier)
            continue
        try:
            with _silence():
                results, scores = _probe(output, {**request, "model_args": of_model})
        except KislError as error:
            named = type(error)(f"{model}: {error}")
            if on_failed is None:
                raise named from error
            on_failed(model, named)
        else:
            files.append(results)
            folder = Path(of_model["pretrained"])
            if limit is None and triples is None and (folder / CARD_NAME).is_file():
                with contextlib.suppress(OSError):  # the folder may be read-only
                    write_model_card(folder, scores)
            if on_done is not None:
                on_done(model, scores)
        gc.collect()  # lm_eval's model has reference cycles; the next one may not fit beside it
    return files


def _find_model(model: Path, revision: str | None) -> str:
    """The absolute path of a model's folder, or its name on the hub."""
    if (model / "config.json").is_file():
        return str(model.resolve())
    reason = "it is there without one"
    if not model.exists():
        try:
            from huggingface_hub import hf_hub_download

            hf_hub_download(str(model), "config.json", revision=revision)
            return str(model)
        except Exception as error:  # the library raises its own, the network's and ValueError for what is no name
            reason = f"not a name on the Hugging Face hub: {str(error).strip().splitlines()[0]}"
    raise InputError(f"{model}: no config.json; expected the folder of a Hugging Face model ({reason})")


def _earlier_results(output: Path, request: Mapping[str, Any]) -> Path | None:
    """The results in `output` of the same questions to the same model, if none of its files is newer than they are."""
    folder, triples = Path(request["model_args"]["pretrained"]), request["metadata"].get("triples")
    sources = [path for path in (*folder.glob("*"), Path(triples or "")) if path.is_file() and path.suffix != ".md"]
    newest = max((path.stat().st_mtime for path in sources), default=0)
    for file in sorted(output.glob("*/results_*.json"), reverse=True):
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            settings = {key: results["config"][key] for key in ("model_args", "limit")}
            metadata = [config["metadata"] for config in results["configs"].values()]
            same = all(settings[key] == request[key] for key in settings) and (
                set(request["tasks"]) <= results["results"].keys()
                and all(of_task.get("triples") == triples for of_task in metadata)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if same and file.stat().st_mtime >= newest:
            return file
    return None


def _task_manager() -> Any:
    """lm_eval's TaskManager with the tasks of this package only."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(resource("tasks")), include_defaults=False)


def _probe(output: Path, request: Mapping[str, Any]) -> tuple[Path, Scores]:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from torch.utils import collect_env

    # lm_eval describes the environment with every result, and runs pip twice for that: seconds, once a process.
    if not hasattr(collect_env.get_pretty_env_info, "cache_info"):
        collect_env.get_pretty_env_info = cache(collect_env.get_pretty_env_info)
    tracker, manager = EvaluationTracker(output_path=str(output)), _task_manager()
    manager.metadata = {**request["metadata"], **request["model_args"]}  # the command passes both to the tasks
    try:
        results = simple_evaluate(
            model="hf",
            model_args=dict(request["model_args"]),
            tasks=request["tasks"],
            batch_size=request["batch_size"],
            device=request["device"] or ("cuda" if torch.cuda.is_available() else "cpu"),
            limit=request["limit"],
            task_manager=manager,
            evaluation_tracker=tracker,
        )
    except KislError:
        raise
    except Exception as error:  # a broken model raises its library's own errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise KislError(f"lm_eval could not ask this model ({lines[0]})") from error
    samples = results.pop("samples")
    scores: dict[str, dict[str, tuple[float, int]]] = {}
    for task, rows in samples.items():
        # A row of samples has exactly the metrics that it counts for. Kept are those that kisl-fit reads.
        counts = Counter(
            name for row in rows for name in row if name.startswith(("acc_", "bits_")) or name in ("acc", "ties")
        )
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
    # Progress bars, warnings, notices and the git that lm_eval starts have no common switch.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with output_to(Path(os.devnull)):
            yield
    finally:
        logging.disable(level)
