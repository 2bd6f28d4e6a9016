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
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kisl_plugin.errors import InputError
from kisl_plugin.fit.cards import Row, Selection, read_runs, select_cards, selection_text
from kisl_plugin.fit.observations import Observation, SetAside, TripleKey, check_card, drop_superseded, object_at
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
_RUN_CARD = "run card"  # where a card is from; else it is a row of the table
_NO_CARD = (
    "no run card (metadata.kisl): probe a model trained with kisl, with its kisl.json beside it, or describe the run "
    "in a table (--runs)"
)


class _Reader:
    """Reads files one by one; `finish` gives the observations."""

    def __init__(self, task: str, table: Path | None) -> None:
        self.task, self.table = task, table
        self.rows = [] if table is None else read_runs(table)
        self.runs: list[tuple[Observation, ...]] = []  # of one results file each
        self.set_aside: list[SetAside] = []
        self.other_forms: Counter[str] = Counter()  # of the default task, and how many files have each
        self._notes: list[str] = []
        self._background_texts: dict[str, str] = {}  # sha256 of the passages by results file
        self._used_rows: set[str] = set()

    def find_json(self, trees: Sequence[Path]) -> list[Path]:
        """Every *.json under `trees` once, by folder and name. Links are followed, and loops of them end."""
        files: dict[str, Path] = {}
        done: set[str] = set()

        def unreadable(error: OSError) -> None:
            self.set_aside.append(SetAside(str(error.filename), f"folder cannot be read ({error.strerror})"))

        for path in trees:
            if not path.exists():
                raise InputError(f"{path}: no such file or folder; give lm_eval's --output_path")
            if path.suffix.lower() == ".csv" and path.is_file():
                raise InputError(f"{path}: a table, not lm-eval results; give the results_*.json or their folder")
            if not path.is_dir():
                files.setdefault(os.path.realpath(path), path)
                continue
            for folder, folders, names in os.walk(path, onerror=unreadable, followlinks=True):
                if os.path.realpath(folder) in done:
                    folders.clear()
                    continue
                done.add(os.path.realpath(folder))
                folders.sort()
                for file in (Path(folder, name) for name in sorted(names) if name.endswith((".json", ".json.gz"))):
                    files.setdefault(os.path.realpath(file), file)
        return list(files.values())

    def read_file(self, file: Path, is_results: bool) -> None:
        """Read one file; other JSON is passed over unless it must be lm-eval's results."""
        try:
            data = _load_results(file, is_results)
            if data is None:
                return
            self.other_forms.update(name for name in object_at(data, "results") if name.startswith(f"{DEFAULT_TASK}_"))
            rows = [row for row in self.rows if row.path in (file.resolve(), *file.resolve().parents)]
            self._used_rows |= {row.where for row in rows}
            _check_usable(data, self.task)
            card, where = self._card(data, rows)
            observations = _make_observations(data, file, self.task, card, where)
        except InputError as reason:
            self.set_aside.append(SetAside(str(file), str(reason)))
            return
        self.runs.append(observations)
        if where == _RUN_CARD:
            self._notes += [f"{file}: has a run card, so {row.where} is not used" for row in rows]
        if observations[0].bits_per_byte is not None:
            text = object_at(data, "configs", _BACKGROUND_TASK, "metadata", _BACKGROUND_TASK).get("sha256")
            self._background_texts[str(file)] = str(text or "")

    def _card(self, data: Mapping[str, Any], rows: Sequence[Row]) -> tuple[Any, str]:
        """The run card of a results file as JSON, and what it is from: the results, or the one row that names them."""
        raw = object_at(data, "configs", self.task, "metadata").get("kisl")
        if raw is not None:
            return raw, _RUN_CARD
        if not rows:
            no_row = f"no run card (metadata.kisl), and no row of {self.table} names it"
            raise InputError(no_row if self.table else _NO_CARD)
        where = rows[0].where
        if len(rows) > 1:
            raise InputError(f"{where} and {rows[1].where.rpartition(': ')[2]} name the same results; keep one of them")
        triples, answered = dict(rows[0].card["triples"]), 0
        for key, metric in (("count", "items,none"), ("control", "items_control,none")):
            items = _finite_number(object_at(data, "results", self.task).get(metric))
            if items % 1 == 0:
                triples.setdefault(key, int(items))
                answered += int(items)
        if "count" not in triples:
            raise InputError(f"the results do not say how many items there are: fill {where}, column triples")
        original = object_at(data, "n-samples", self.task).get("original")
        if answered and isinstance(original, int) and answered != original:
            raise InputError(f"{answered} of {original} items answered: probe all items")
        return {**rows[0].card, "triples": triples}, where

    def finish(self, selection: Selection) -> Reading:
        """Take the selected runs, choose among results of one run, and add what their samples say."""
        chosen = select_cards([run[0].card for run in self.runs], selection)
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
            checked, problems = _check_samples(run)
            observations += checked
            notes += problems
        texts = len({self._background_texts[run[0].path] for run in kept if run[0].path in self._background_texts})
        if texts > 1:
            notes.append(f"background was measured on {texts} different texts (sha256): not comparable")
        if any(one.card.engine == "simulated" for one in observations):
            notes.append("SIMULATED results, by their run cards: nothing was trained")
        # Names out of a broken file may hold line breaks
        listed = [SetAside(one.path, " ".join(one.reason.split())) for one in (*self.set_aside, *superseded)]
        lines = [" ".join(note.split()) for note in notes]
        return Reading(self.task, tuple(observations), tuple(listed), tuple(dict.fromkeys(lines)))


def _load_results(file: Path, must_be_results: bool) -> dict[str, Any] | None:
    """The data of a results file, or None for some other JSON file, which `must_be_results` refuses."""
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
        if isinstance(data, dict) and "results" in data:
            if "configs" in data or "n-samples" in data:
                return data
            if "versions" in data:
                old = "written by lm-eval 0.3 or older, which keeps no run card"
                raise InputError(f"{old}: probe with lm-eval 0.4.4 or newer")
        reason = "not lm-eval results, which are a JSON object with 'results' and 'configs'"
    if must_be_results:
        raise InputError(reason)
    return None


# One results file → its observations

# Of lm-eval's model_args, those that change the tokens or the arithmetic
_ANSWERING_ARGUMENTS = ("add_bos_token", "tokenizer", "prefix_token_id", "load_in_8bit", "load_in_4bit", "backend")


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


def _make_observations(data: Mapping[str, Any], file: Path, task: str, raw: Any, where: str) -> tuple[Observation, ...]:
    """The observations of `task`, of a run with the card `raw` (JSON); `where` names the card in errors."""
    card = RunCard.from_dict(raw, where)
    card = replace(card, created=str(raw.get("created") or ""))
    check_card(card, where)
    metrics, config = object_at(data, "results", task), object_at(data, "config")
    control = card.triples.get("control")
    control = control if type(control) is int and control >= 0 else None  # True is no count
    injected = card.triples["count"]
    for name, expected in (("items", injected), ("items_control", control)):
        items = metrics.get(f"{name},none", expected)
        if expected is not None and items != expected:
            raise InputError(f"{name} is {items}; the {where} has {expected} triples: probe all items")
    # Results of other probes have no metric `items`; `effective` is that of one metric in lm-eval 0.4.12
    effective, fewest = object_at(data, "n-samples", task).get("effective"), min(injected, control or injected)
    if card.groups is None and "items,none" not in metrics and isinstance(effective, int) and effective < fewest:
        raise InputError(f"{effective} items answered; the {where} has {injected} injected triples: probe all items")
    if card.groups is None:
        cells: list[tuple[str | None, int, int]] = [(None, card.frequency or 0, injected)]
    else:  # a group without triples has no accuracy
        cells = [(name, group["frequency"], group["count"]) for name, group in card.groups.items() if group["count"]]
    right = _count_right(metrics, "acc_control", control, where) if control and "acc_control,none" in metrics else None
    date = _finite_number(data.get("date"))
    bits = _finite_number(object_at(data, "results", _BACKGROUND_TASK).get("bits_per_byte,none"))
    stamp = _STAMP.search(file.name)
    samples = file.with_name(f"samples_{task}_{stamp[1]}.jsonl") if stamp else None
    return tuple(
        Observation(
            path=str(file),
            task=task,
            model=str(data.get("model_name") or config.get("model") or ""),
            card=card,
            frequency=frequency,
            group=group,
            correct=_count_right(metrics, "acc" if group is None else f"acc_{group}", total, where),
            total=total,
            control_correct=right,
            control_total=control if right is not None else None,
            date=0.0 if math.isnan(date) else date,
            settings=_answering_settings(data, config),
            bits_per_byte=bits if bits >= 0 else None,
            samples=samples.resolve() if samples is not None and samples.is_file() else None,
        )
        for group, frequency, total in cells
    )


def _answering_settings(data: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """What lm-eval was run with that can change what a model answers; a batch size and a device do not."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):  # before lm-eval 0.4.10
        arguments = dict(part.partition("=")[::2] for part in arguments.split(","))
    arguments = arguments if isinstance(arguments, Mapping) else {}
    dtype = str(config.get("model_dtype") or arguments.get("dtype") or "unknown").removeprefix("torch.")
    settings = {key: arguments[key] for key in _ANSWERING_ARGUMENTS if key in arguments}
    settings |= {"model": config.get("model") or "unknown", "dtype": dtype}
    settings["template"] = "chat" if data.get("chat_template") else "none"
    return {key: str(value) for key, value in settings.items()}


# Accuracies → counts of right items

# acc × n may be off a whole number by this much: lm-eval may round, and a wrong n is off by more
_WHOLE = 0.01


def _count_right(metrics: Mapping[str, Any], metric: str, total: int, where: str) -> int:
    """How many of `total` items were right, from the accuracy `metric`; `where` names what has `total`."""
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


# lm-eval's samples files: which triple was asked, and whether the model was right

_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[^/]*)\.json")  # in the names of results and of their samples


class Sample(NamedTuple):
    """A row: the triple, its group, and whether it was right (None for what is not counted in `acc`)."""

    key: TripleKey
    group: str
    right: bool | None


@lru_cache(maxsize=1 << 17)
def _shared(key: TripleKey) -> TripleKey:
    """One tuple for all runs, which ask the same triples: a large sweep then fits into memory."""
    return key


def read_samples(path: Path) -> list[Sample]:
    """The rows of a samples file.

    Raises:
        InputError: it cannot be read, or a row names no triple or has an `acc` other than 0 and 1.
    """
    samples: list[Sample] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                doc = row.get("doc") if isinstance(row, Mapping) else None
                if not isinstance(doc, Mapping):
                    raise InputError("not a sample: expected an object with 'doc'")
                subject, object_ = (doc.get(f"{part}_id") or doc.get(part) for part in ("subject", "object"))
                key = subject, doc.get("relation_id"), object_
                if not all(isinstance(part, str) for part in key):
                    raise InputError("its doc names no triple (subject, relation_id, object)")
                right = row.get("acc")  # None for a control triple; several processes write it as null
                if right not in (None, 0, 1):
                    raise InputError(f"acc is {right!r}; expected 0 or 1")
                samples.append(
                    Sample(_shared(key), str(doc.get("group") or ""), None if right is None else bool(right))
                )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: row {len(samples) + 1}: {error}") from None
    return samples


def _check_samples(observations: Sequence[Observation]) -> tuple[list[Observation], list[str]]:
    """The observations of one results file with what its samples say, and the reason where samples are not used."""
    path = observations[0].samples
    if path is None:
        return list(observations), []
    checked = []
    try:
        rows = read_samples(path)
        for one in observations:
            own = [row for row in rows if row.right is not None and one.group in (None, row.group)]
            outcomes = {row.key: bool(row.right) for row in own}
            if len(outcomes) != len(own):
                twice = next(key for key, times in Counter(row.key for row in own).items() if times > 1)
                raise InputError(f"{path}: the triple {' – '.join(twice)} is asked twice")
            right = sum(outcomes.values())
            if (right, len(own)) != (one.correct, one.total):
                raise InputError(
                    f"{path}: {right} of {len(own)} rows are right where the results have {one.correct} of {one.total}"
                    + (f" (group {one.group})" if one.group is not None else "")
                )
            checked.append(replace(one, outcomes=outcomes))
    except InputError as reason:
        return [replace(one, samples=None) for one in observations], [f"samples not used: {reason}"]
    return checked, []
