"""lm-eval's results and samples files → observations. Every file that is not used is listed with the reason.

N, D, F and the seeds come from the run card inside the results (or from the table of `--runs`), never from the names
of files.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import (
    Observation,
    ProbedRun,
    SetAside,
    check_card,
    drop_superseded,
    object_at,
)
from kisl_plugin.fit.samples import check_samples, samples_beside
from kisl_plugin.fit.selection import Selection, select_cards, selection_text
from kisl_plugin.fit.tables import Row, read_runs
from kisl_plugin.fit.text import plural
from kisl_plugin.runcard import RunCard

__all__ = ["Reading", "read_results"]

DEFAULT_TASK = "kisl_wikidata"
_BACKGROUND_TASK = "kisl_background"
_TASKS_NAMED = 5  # of the other tasks in a file


@dataclass(frozen=True)
class Reading:
    """The observations of `task` that are used, the files that are not, and remarks on both."""

    task: str
    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...] = ()


def read_results(
    paths: Sequence[Path], task: str | None = None, runs: Path | None = None, selection: Selection | None = None
) -> Reading:
    """Read every lm-eval results file under `paths` for `task`.

    Without `task` it is kisl_wikidata; where no file has that, the form of it (kisl_wikidata_…) that most files have.
    `runs` is a table that says what the runs without a run card were. Runs whose card is not of the `selection` are
    left out.

    Raises:
        InputError: a path does not exist or is a table, `runs` is wrong, there is no results file at all, or no run
            card is of the selection.
    """
    reader = _Reader(task or DEFAULT_TASK, runs)
    for file in reader.find_json(paths):
        reader.read_file(file, is_results=file in paths or _LM_EVAL_NAME.fullmatch(file.name) is not None)
    if not reader.runs and not reader.set_aside:
        raise InputError(
            f"{', '.join(map(str, paths))}: no lm-eval results found; looked for results_*.json, and any *.json with "
            f"'results' and 'configs'. To write some: lm_eval --tasks {reader.task} --output_path results --log_samples"
        )
    others = sorted(reader.other_forms, key=lambda form: (-reader.other_forms[form], form))
    if task is not None or not others:
        return reader.finish(selection or {})
    notes = []
    if reader.runs:
        reading = reader.finish(selection or {})
    else:
        reading = read_results(paths, others.pop(0), runs, selection)
        notes.append(f"no results of task {DEFAULT_TASK}, so those of {reading.task} are fitted")
    if others:
        both = f"--task {','.join([reading.task, *others])} shows them side by side"
        notes.append(f"the results hold {plural(len(others), 'more task')}: {both}")
    return replace(reading, notes=(*notes, *reading.notes))


# Finding files, in hidden folders too: lm-eval names one `.__x` for `pretrained=./x`

# results_<time>.json, and <stem>_<time>.json for `--output_path <stem>.json`
_LM_EVAL_NAME = re.compile(r"results_.*\.json|.*_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*\.json")
_NO_CARD = (
    "no run card (metadata.kisl): probe a model trained with kisl, with its kisl.json beside it, or describe the run "
    "in a table (--runs)"
)


class _Reader:
    """Reads files one by one; `finish` gives the observations."""

    def __init__(self, task: str, table: Path | None) -> None:
        self.task, self.table = task, table
        self.rows = [] if table is None else read_runs(table)
        self.runs: list[ProbedRun] = []
        self.set_aside: list[SetAside] = []
        self.other_forms: Counter[str] = Counter()  # of the default task, and how many files have each
        self._notes: list[str] = []
        self._background_texts: dict[str, str] = {}  # sha256 of the passages by results file
        self._used_rows: set[str] = set()

    def find_json(self, trees: Sequence[Path]) -> list[Path]:
        """Every *.json under `trees` once, by folder and name. Links are followed, and loops of them end."""
        files: dict[str, Path] = {}
        done: set[str] = set()
        for path in trees:
            if not path.exists():
                raise InputError(f"{path}: no such file or folder; give lm_eval's --output_path")
            if path.suffix.lower() == ".csv" and path.is_file():
                raise InputError(f"{path}: a table, not lm-eval results; give the results_*.json or their folder")
            if not path.is_dir():
                files.setdefault(os.path.realpath(path), path)
                continue
            for folder, folders, names in os.walk(path, onerror=self._unreadable, followlinks=True):
                if os.path.realpath(folder) in done:
                    folders.clear()
                    continue
                done.add(os.path.realpath(folder))
                folders.sort()
                for file in (Path(folder, name) for name in sorted(names) if name.endswith((".json", ".json.gz"))):
                    files.setdefault(os.path.realpath(file), file)
        return list(files.values())

    def _unreadable(self, error: OSError) -> None:
        self.set_aside.append(SetAside(str(error.filename), f"folder cannot be read ({error.strerror})"))

    def read_file(self, file: Path, is_results: bool) -> None:
        """Read one file; other JSON is passed over unless it must be lm-eval's results."""
        try:
            data = _load_results(file, is_results)
        except InputError as reason:
            self.set_aside.append(SetAside(str(file), str(reason)))
            return
        if data is None:
            return
        self.other_forms.update(name for name in object_at(data, "results") if name.startswith(f"{DEFAULT_TASK}_"))
        results = _Results(data, str(file))
        rows = [row for row in self.rows if row.names(file)]
        self._used_rows |= {row.where for row in rows}
        try:
            _check_usable(data, self.task)
            card, where = self._card(results, rows)
            observations = _make_observations(results, self.task, card, where, samples_beside(file, self.task))
        except InputError as reason:
            self.set_aside.append(SetAside(str(file), str(reason)))
            return
        self.runs.append(ProbedRun(str(file), observations))
        if where == "run card":
            self._notes += [f"{file}: has a run card, so {row.where} is not used" for row in rows]
        if results.bits_per_byte is not None:
            text = object_at(data, "configs", _BACKGROUND_TASK, "metadata", _BACKGROUND_TASK).get("sha256")
            self._background_texts[str(file)] = str(text or "")

    def _card(self, results: "_Results", rows: Sequence[Row]) -> tuple[Any, str]:
        """The run card of a results file as JSON, and what it is from: the results, or the one row that names them."""
        raw = results.card(self.task)
        if raw is not None:
            return raw, "run card"
        if not rows:
            no_row = f"no run card (metadata.kisl), and no row of {self.table} names it"
            raise InputError(no_row if self.table else _NO_CARD)
        where = rows[0].where
        if len(rows) > 1:
            raise InputError(f"{where} and {rows[1].where.rpartition(': ')[2]} name the same results; keep one of them")
        triples, answered = dict(rows[0].card["triples"]), 0
        for key, metric in (("count", "items,none"), ("control", "items_control,none")):
            items = _finite_number(results.metrics(self.task).get(metric))
            if items % 1 == 0:
                triples.setdefault(key, int(items))
                answered += int(items)
        if "count" not in triples:
            raise InputError(f"the results do not say how many items there are: fill {where}, column triples")
        original = object_at(results.data, "n-samples", self.task).get("original")
        if answered and isinstance(original, int) and answered != original:
            raise InputError(f"{answered} of {original} items answered: probe all items")
        return {**rows[0].card, "triples": triples}, where

    def finish(self, selection: Selection) -> Reading:
        """Take the selected runs, choose among results of one run, and add what their samples say."""
        chosen = select_cards([run.observations[0].card for run in self.runs], selection)
        selected = [run for run, is_chosen in zip(self.runs, chosen, strict=True) if is_chosen]
        if selection:
            left_out = f"{len(self.runs) - len(selected)} of {plural(len(self.runs), 'results file')}"
            self._notes.append(f"--select {selection_text(selection)}: {left_out} left out")
        kept, superseded = drop_superseded(selected)
        contradictory = [one.path for one in superseded if "which contradicts it" in one.reason]
        if contradictory:
            self._notes.append(
                f"{plural(len(contradictory), 'earlier result')} (such as {contradictory[0]}) contradict a newer one "
                "with an equal run card: only the newer ones are used; fit different experiments separately"
            )
        notes = self._notes + [
            f"{row.where} ({row.path}) names no results that were read"
            for row in self.rows
            if row.where not in self._used_rows
        ]
        observations: list[Observation] = []
        for run in kept:
            checked, problems = check_samples(run.observations)
            observations += checked
            notes += problems
        texts = len({self._background_texts[run.path] for run in kept if run.path in self._background_texts})
        if texts > 1:
            notes.append(f"background was measured on {texts} different texts (sha256): not comparable")
        if any(one.card.engine == "simulated" for one in observations):
            notes.append("SIMULATED results, by their run cards: nothing was trained")
        # Names out of a broken file may hold line breaks
        listed = [SetAside(one.path, " ".join(one.reason.split())) for one in (*self.set_aside, *superseded)]
        lines = [" ".join(note.split()) for note in notes]
        return Reading(self.task, tuple(observations), tuple(listed), tuple(dict.fromkeys(lines)))


def _load_results(file: Path, must_be_results: bool) -> dict[str, Any] | None:
    """The data of a results file, or None for some other JSON file.

    Raises:
        InputError: it must be results and is not, or it is results that cannot be used.
    """
    if file.suffix == ".gz":
        raise InputError("compressed: unpack it with gunzip")
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait forever
            raise OSError(0, "not a file")
        text = file.read_text(encoding="utf-8-sig")
        data = json.loads(text) if must_be_results or '"results"' in text else None
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
    except (ValueError, RecursionError) as error:
        reason = f"cannot be read as JSON ({error})" if file.stat().st_size else "an empty file; probe again"
    else:
        if isinstance(data, dict) and "results" in data and ("configs" in data or "n-samples" in data):
            return data
        if isinstance(data, dict) and "results" in data and "versions" in data:
            raise InputError(
                "written by lm-eval 0.3 or older, which keeps no run card: probe with lm-eval 0.4.4 or newer"
            )
        reason = "not lm-eval results, which are a JSON object with 'results' and 'configs'"
    if must_be_results:
        raise InputError(reason)
    return None


# One results file → its observations

# Of lm-eval's model_args, those that change the tokens or the arithmetic
_ANSWERING_ARGUMENTS = ("add_bos_token", "tokenizer", "prefix_token_id", "load_in_8bit", "load_in_4bit", "backend")


@dataclass(frozen=True)
class _Results:
    """What lm-eval gave for one model; `path` says where."""

    data: Mapping[str, Any]
    path: str

    @property
    def model(self) -> str:
        """lm-eval's name of the model, or its folder."""
        return str(self.data.get("model_name") or object_at(self.data, "config").get("model") or "")

    @property
    def date(self) -> float:
        """When lm-eval was started, in seconds since 1970; 0 if unknown."""
        when = _finite_number(self.data.get("date"))
        return when if math.isfinite(when) else 0.0

    def card(self, task: str) -> Any:
        """The run card that the probe found beside the model; None without one."""
        return object_at(self.data, "configs", task, "metadata").get("kisl")

    @property
    def bits_per_byte(self) -> float | None:
        """Of the whole background text; None if it was not measured."""
        value = _finite_number(self.metrics(_BACKGROUND_TASK).get("bits_per_byte,none"))
        return value if value >= 0 and object_at(self.data, "config").get("limit") is None else None

    @property
    def settings(self) -> dict[str, str]:
        """What lm-eval was run with that can change what a model answers; a batch size and a device do not."""
        config = object_at(self.data, "config")
        arguments = config.get("model_args")
        if isinstance(arguments, str):  # before lm-eval 0.4.10
            arguments = dict(part.partition("=")[::2] for part in arguments.split(","))
        arguments = object_at({"": arguments}, "")
        dtype = str(config.get("model_dtype") or arguments.get("dtype") or "unknown").removeprefix("torch.")
        settings = {key: arguments[key] for key in _ANSWERING_ARGUMENTS if key in arguments}
        settings |= {"model": config.get("model") or "unknown", "dtype": dtype}
        settings["template"] = "chat" if self.data.get("chat_template") else "none"
        return {key: str(value) for key, value in settings.items()}

    def metrics(self, task: str) -> Mapping[str, Any]:
        """lm-eval's metrics of a task."""
        return object_at(self.data, "results", task)


def _finite_number(value: Any) -> float:
    """A value of unchecked JSON as a finite number; NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        return math.nan
    return float(value)


def _check_usable(data: Mapping[str, Any], task: str) -> None:
    """Refuse results without the task, a group of tasks (its average is no task's result), and part of the items."""
    members = object_at(data, "group_subtasks").get(task)
    if members or task in object_at(data, "groups"):
        names = ", ".join(map(str, members)) if isinstance(members, list) else "see 'configs'"
        raise InputError(f"{task} is a group of tasks ({names}): choose one of them with --task")
    if task not in object_at(data, "results"):
        tasks = sorted(object_at(data, "results"))
        names = ", ".join(tasks[:_TASKS_NAMED]) or "no task at all"
        names += f" and {len(tasks) - _TASKS_NAMED} more" if len(tasks) > _TASKS_NAMED else ""
        raise InputError(f"no results of task {task}; it holds {names} (choose with --task)")
    limit = object_at(data, "config").get("limit")
    if limit is not None:
        raise InputError(f"run with --limit {limit}: probe all items")


def _make_observations(
    results: _Results, task: str, raw: Any, where: str, samples: Path | None
) -> tuple[Observation, ...]:
    """The observations of `task`, of a run with the card `raw` (JSON); `where` names the card in errors.

    Raises:
        InputError: part of the items, an unfinished run, or broken metrics.
    """
    card = RunCard.from_dict(raw, where)
    card = replace(card, created=str(raw.get("created") or ""))
    check_card(card, where)
    metrics, control = results.metrics(task), card.triples.get("control")
    control = control if type(control) is int and control >= 0 else None  # True is no count
    injected = card.triples["count"]
    for name, expected in (("items", injected), ("items_control", control)):
        items = metrics.get(f"{name},none", expected)
        if expected is not None and items != expected:
            raise InputError(f"{name} is {items}; the {where} has {expected} triples: probe all items")
    # Results of other probes have no metric `items`; `effective` is that of one metric in lm-eval 0.4.12
    effective, fewest = object_at(results.data, "n-samples", task).get("effective"), min(injected, control or injected)
    if card.groups is None and "items,none" not in metrics and isinstance(effective, int) and effective < fewest:
        raise InputError(f"{effective} items answered; the {where} has {injected} injected triples: probe all items")
    if card.groups is None:
        cells: list[tuple[str | None, int, int]] = [(None, card.frequency or 0, injected)]
    else:  # a group without triples has no accuracy
        cells = [(name, group["frequency"], group["count"]) for name, group in card.groups.items() if group["count"]]
    right = _count_right(metrics, "acc_control", control, where) if control and "acc_control,none" in metrics else None
    observations = []
    for group, frequency, total in cells:
        correct = _count_right(metrics, "acc" if group is None else f"acc_{group}", total, where)
        observations.append(
            Observation(
                path=results.path,
                task=task,
                model=results.model,
                card=card,
                frequency=frequency,
                group=group,
                correct=correct,
                total=total,
                control_correct=right,
                control_total=control if right is not None else None,
                date=results.date,
                settings=results.settings,
                bits_per_byte=results.bits_per_byte,
                samples=samples,
            )
        )
    return tuple(observations)


# Accuracies → counts of right items

# acc × n may be off a whole number by this much: lm-eval may round, and a wrong n is off by more
_WHOLE = 0.01


def _count_right(metrics: Mapping[str, Any], metric: str, total: int, where: str) -> int:
    """How many of `total` items were right, from the accuracy `metric`; `where` names what has `total`.

    Raises:
        InputError: there is no such accuracy, or it is not that of a whole number of `total` items.
    """
    key = f"{metric},none"
    if key not in metrics:
        raise InputError(f"no metric {key} among {', '.join(sorted(metrics))}")
    value = _finite_number(metrics[key])
    if not 0 <= value <= 1:
        raise InputError(f"{key} is {metrics[key]!r}; expected a share between 0 and 1")
    if total == 0:
        raise InputError(f"{key}: the {where} counts 0 triples for it")
    if abs(value * total - round(value * total)) > _WHOLE:
        raise InputError(f"{key} is {value!r}, which is no whole number of the {total} triples of the {where}")
    return round(value * total)
