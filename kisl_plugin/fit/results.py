"""lm-eval results → observations. Nothing is dropped in silence: what is not used is listed with its reason."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import (
    Key,
    Observation,
    Run,
    SetAside,
    check_card,
    check_items,
    check_limit,
    check_task,
    control_of,
    identity,
    latest,
    number_in,
    object_at,
)
from kisl_plugin.fit.tables import NEEDED, OPTIONAL, Row, card_of_row, read_rows, runs_of_table
from kisl_plugin.runcard import RunCard

# Accuracies → counts of right items.

WHOLE = 0.01  # acc × n may be off a whole number by this much: lm-eval may round, a wrong n is off by more
LARGEST = 1e12  # beyond it a standard error does not tell n
RELATION = "relation_acc_"

Metrics = Mapping[str, Any]


def share(metrics: Metrics, metric: str) -> float:
    """The accuracy `metric`.

    Raises:
        InputError: it is missing, or no number between 0 and 1.
    """
    key = f"{metric},none"
    if key not in metrics:
        raise InputError(f"no metric {key} among {', '.join(sorted(metrics))}")
    value = number_in(metrics[key])
    if not 0 <= value <= 1:
        raise InputError(f"{key} is {metrics[key]!r}; expected a share between 0 and 1")
    return value


def count_right(metrics: Metrics, metric: str, total: int, said_by: str) -> int:
    """How many of `total` items were right, from the accuracy; `said_by` names who counts `total`.

    Raises:
        InputError: the accuracy is none, or no whole number of `total` items.
    """
    value = share(metrics, metric)
    if total == 0:
        raise InputError(f"{metric},none: the {said_by} counts 0 triples for it")
    if abs(value * total - round(value * total)) > WHOLE:
        raise InputError(
            f"{metric},none is {value!r}, which is no whole number of the {total} triples that the {said_by} counts"
        )
    return round(value * total)


def items_by_error(metrics: Metrics, metric: str) -> int | None:
    """Over how many items a mean of 0s and 1s was taken, from its standard error s = √(p(1-p)/(n-1)).

    None where lm-eval gives none, or where all items were right or all wrong.
    """
    p, error = number_in(metrics.get(f"{metric},none")), number_in(metrics.get(f"{metric}_stderr,none"))
    if not (0 < p < 1 and error > 0):
        return None
    n = p * (1 - p) / error**2 + 1
    if not n < LARGEST or abs(n - round(n)) > WHOLE or abs(n * p - round(n * p)) > WHOLE:
        return None
    return round(n)


def count_relations(metrics: Metrics, correct: int, total: int) -> dict[str, tuple[int, int]]:
    """(correct, total) by relation id, which must sum to `correct` and `total`; empty where that cannot be told.

    A relation whose items were all right or all wrong has no standard error; one such relation is what is left.
    """
    names = [key.removesuffix(",none") for key in metrics if key.startswith(RELATION) and "_stderr" not in key]
    sizes = {name: items_by_error(metrics, name) for name in names}
    left = total - sum(size or 0 for size in sizes.values())
    unknown = [name for name, size in sizes.items() if size is None]
    if len(unknown) > 1 or (unknown and left < 1):
        return {}
    whole = {name: size or left for name, size in sizes.items()}
    shares = {name: number_in(metrics[f"{name},none"]) for name in whole}
    if not all(0 <= value <= 1 for value in shares.values()):
        return {}
    counts = {name.removeprefix(RELATION): (round(shares[name] * n), n) for name, n in whole.items()}
    sums = tuple(sum(part) for part in zip(*counts.values(), strict=True))
    return counts if sums == (correct, total) else {}


# One results file → its observations.

Cell = tuple[str | None, int, int]


@dataclass(frozen=True)
class Results:
    """What lm-eval gave for one model; `path` says where, `file` is None for results that are in no file."""

    data: Mapping[str, Any]
    path: str
    file: Path | None = None

    @property
    def model(self) -> str:
        """The model's name or folder, as lm-eval was told."""
        return str(self.data.get("model_name") or object_at(self.data, "config").get("model") or "")

    @property
    def date(self) -> float:
        """When lm-eval was started, seconds since 1970; 0 if unknown."""
        when = number_in(self.data.get("date"))
        return when if math.isfinite(when) else 0.0

    def card(self, task: str) -> Any:
        """The run card that the probe found beside the model; None without one."""
        return object_at(self.data, "configs", task, "metadata").get("kisl")


def make_run(results: Results, task: str, raw: Any, where: str = "run card", samples: Path | None = None) -> Run:
    """The observations of `task`, of a run with the raw card `raw`; `where` names the card in errors.

    Raises:
        InputError: they are no observation of the card's frequency: another task, part of the items, broken metrics.
    """
    check_task(results.data, task)
    card = RunCard.from_dict(raw, where)
    card = RunCard.from_dict({**card.to_dict(), "created": str(raw.get("created") or "")}, where)
    check_card(card, where)
    check_items(results.data, card, task, where)
    seen = tuple(_observation(results, task, card, cell, where, samples) for cell in _cells(card))
    return Run(results.path, results.date, card.created, identity(card.to_dict()), seen)


def items_of(results: Results, task: str, group: str | None, control: bool = False) -> int | None:
    """How many items an accuracy of these results is of, for results without a run card; None if they do not tell."""
    metrics = object_at(results.data, "results", task)
    suffix = "_control" if control else ""
    exact = number_in(metrics.get(f"items{suffix},none"))
    if group is None and exact % 1 == 0:
        return int(exact)
    by_error = items_by_error(metrics, f"acc{suffix}" if group is None else f"acc_{group}")
    if by_error is not None or control or group is not None or "acc_control,none" in metrics:
        return by_error
    effective = object_at(results.data, "n-samples", task).get("effective")
    return effective if isinstance(effective, int) else None


def _observation(
    results: Results, task: str, card: RunCard, cell: Cell, where: str, samples: Path | None
) -> Observation:
    group, frequency, total = cell
    metrics, control = object_at(results.data, "results", task), control_of(card)
    correct = count_right(metrics, "acc" if group is None else f"acc_{group}", total, where)
    right = count_right(metrics, "acc_control", control, where) if control and "acc_control,none" in metrics else None
    return Observation(
        path=results.path,
        model=results.model,
        card=card,
        frequency=frequency,
        group=group,
        correct=correct,
        total=total,
        control_correct=right,
        control_total=control if right is not None else None,
        date=results.date,
        task=task,
        relations=count_relations(metrics, correct, total) if total == card.triples["count"] else {},
        by_sum=_by_sum(metrics, total, where) if group is None else None,
        samples=samples,
    )


def _cells(card: RunCard) -> list[Cell]:
    """(group, frequency, items) of each observation."""
    if card.frequency is not None:
        return [(None, card.frequency, card.triples["count"])]
    return [
        (name, group["frequency"], group["count"])
        for name, group in (card.groups or {}).items()
        if group["count"]  # a group without triples has no accuracy
    ]


def _by_sum(metrics: Metrics, total: int, where: str) -> int | None:
    return count_right(metrics, "sum_acc", total, where) if "sum_acc,none" in metrics else None


# Bits per byte on the background text: of the same results file, or of another one of the same run.

TASK = "kisl_background"
METRIC = "bits_per_byte,none"


@dataclass(frozen=True)
class Background:
    """A measurement on the model of the run `identity`; `text` is the sha256 of the passages, if known."""

    path: str
    date: float
    identity: tuple[str, ...]
    bits_per_byte: float
    text: str


def background_of(results: Results, raw: Any) -> Background | None:
    """What the results hold of it, in full; `raw` is the run card."""
    value = number_in(object_at(results.data, "results", TASK).get(METRIC))
    limit = object_at(results.data, "config").get("limit")
    if raw is None or limit is not None or not value >= 0:
        return None
    text = object_at(results.data, "configs", TASK, "metadata", TASK).get("sha256")
    return Background(results.path, results.date, identity(raw), value, str(text or ""))


def with_background(runs: Sequence[Run], found: Sequence[Background]) -> tuple[list[Run], set[str], list[str]]:
    """The runs with the measurement of the same results file, else the latest of the same training run.

    Also the files whose measurement is used, and what is to be said of them.
    """
    ordered = sorted(found, key=lambda measured: measured.date)
    by_path = {measured.path: measured for measured in ordered}
    by_identity = {measured.identity: measured for measured in ordered}
    chosen = [(run, by_path.get(run.path) or by_identity.get(run.identity)) for run in runs]
    used = [measured for _, measured in chosen if measured is not None]
    texts: Mapping[str, None] = dict.fromkeys(measured.text for measured in used)
    notes = [f"background was measured on {len(texts)} different texts (sha256): not comparable"]
    filled = [run if measured is None else _fill(run, measured.bits_per_byte) for run, measured in chosen]
    return filled, {measured.path for measured in used}, notes if len(texts) > 1 else []


def _fill(run: Run, bits_per_byte: float) -> Run:
    filled = (
        seen if seen.bits_per_byte is not None else replace(seen, bits_per_byte=bits_per_byte)  # a table's own stays
        for seen in run.observations
    )
    return replace(run, observations=tuple(filled))


# lm-eval's samples of a task: which triple was asked, and whether the model was right.

STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[^/]*)\.json")
# Of a row's 2 to 4 kB only its ends are read: what names the triple, and the metrics. The rest is ten times as slow.
# No text inside JSON has bare quotes, so neither pattern can match within one.
HEAD = re.compile(r'\{"doc_id": \d+, "doc": (\{.*?"group": "[^"]*"), "')
TAIL = '"target_hash": "'
KNOWN_TRIPLES = 1 << 17


class Sample(NamedTuple):
    """A row: the triple, its group, and whether it was right (None for what is not counted in `acc`)."""

    key: Key
    group: str
    right: bool | None
    by_sum: bool | None


def samples_beside(results: Path, task: str) -> Path | None:
    """The samples of `task` that lm-eval wrote with this results file; None without them."""
    stamp = STAMP.search(results.name)
    path = results.with_name(f"samples_{task}_{stamp[1]}.jsonl") if stamp else None
    return path.resolve() if path is not None and path.is_file() else None


def read_samples(path: Path) -> list[Sample]:
    """The rows of a samples file.

    Raises:
        InputError: it cannot be read, or a row is none of a task over triples.
    """
    found: list[Sample] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                found.append(_of_line(line))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: row {len(found) + 1}: {error}") from None
    return found


def sample_of(row: Any) -> Sample:
    """A row as lm-eval gives it.

    Raises:
        InputError: it is no object, names no triple, or `acc` is neither 0 nor 1.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("doc"), Mapping):
        raise InputError("not a sample: expected an object with 'doc'")
    return _sample(_triple(row["doc"]), row)


def _of_line(line: str) -> Sample:
    head, tail = HEAD.match(line), line.rfind(TAIL)
    try:
        if head is not None and tail >= 0:
            metrics = json.loads("{" + line[tail:])
            if "acc" in metrics or "acc_control" in metrics:
                return _sample(_triple_of_text(head[1] + "}"), metrics)
    except ValueError:  # an unusual row
        pass
    return sample_of(json.loads(line))


@lru_cache(maxsize=KNOWN_TRIPLES)
def _triple_of_text(doc: str) -> tuple[Key, str]:
    return _triple(json.loads(doc))


def _triple(doc: Mapping[str, Any]) -> tuple[Key, str]:
    subject, relation, target = (
        doc.get("subject_id") or doc.get("subject"),
        doc.get("relation_id"),
        doc.get("object_id") or doc.get("object"),
    )
    if not (isinstance(subject, str) and isinstance(relation, str) and isinstance(target, str)):
        raise InputError("its doc names no triple (subject, relation_id, object)")
    return (subject, relation, target), str(doc.get("group") or "")


def _sample(triple: tuple[Key, str], metrics: Mapping[str, Any]) -> Sample:
    key, group = triple
    return Sample(key, group, _bit(metrics, "acc"), _bit(metrics, "sum_acc"))


def _bit(metrics: Mapping[str, Any], name: str) -> bool | None:
    value = metrics.get(name)
    if value is None:  # a control triple's; several processes write it as null
        return None
    if value not in (0, 1):
        raise InputError(f"{name} is {value!r}; expected 0 or 1")
    return bool(value)


# Which triple was right in which run, from lm-eval's samples.

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
else:
    FloatArray = Any


@dataclass(frozen=True)
class Outcomes:
    """`right`: float [T, R], 1 right, 0 wrong, NaN not asked; T triples (`keys`), R observations in their order."""

    right: FloatArray
    keys: tuple[Key, ...]


def read_outcomes(observations: Sequence[Observation]) -> Outcomes | None:
    """What each observation got right, triple by triple; None where one of them has no samples to go by."""
    import numpy as np

    columns = []
    for seen in observations:
        outcomes = seen.outcomes if seen.outcomes is not None else check_samples([seen])[0][0].outcomes
        if outcomes is None:
            return None
        columns.append(outcomes)
    if not columns:
        return None
    keys = tuple(dict.fromkeys(key for column in columns for key in column))
    rows = {key: row for row, key in enumerate(keys)}
    right = np.full((len(keys), len(columns)), np.nan)
    for k, column in enumerate(columns):
        right[[rows[key] for key in column], k] = list(column.values())
    return Outcomes(right, keys)


def check_samples(observations: Sequence[Observation]) -> tuple[list[Observation], list[str]]:
    """The observations of one results file with what its samples say; samples that contradict it are not kept.

    Also the reasons why samples were not kept, each in one line.
    """
    paths = {seen.samples for seen in observations if seen.samples is not None}
    if len(paths) != 1:
        return list(observations), []
    (path,) = paths
    try:
        rows = read_samples(path)
        return [with_samples(seen, rows) for seen in observations], []
    except InputError as reason:
        without = [replace(seen, samples=None) for seen in observations]
        where = "" if str(reason).startswith(str(path)) else f"{path}: "
        return without, [f"samples not used: {where}{reason}"]


def with_samples(seen: Observation, rows: Sequence[Sample]) -> Observation:
    """The observation with its outcome per triple, per relation and by sum.

    Raises:
        InputError: the rows contradict its counts, or ask a triple twice.
    """
    mine = [row for row in rows if row.right is not None and seen.group in (None, row.group)]
    outcomes = {row.key: bool(row.right) for row in mine}
    if len(outcomes) != len(mine):
        twice = next(key for key, times in Counter(row.key for row in mine).items() if times > 1)
        raise InputError(f"the triple {' – '.join(twice)} is asked twice")
    right = sum(outcomes.values())
    if (right, len(mine)) != (seen.correct, seen.total):
        raise InputError(
            f"{right} of {len(mine)} rows are right where the results say {seen.correct} of {seen.total}"
            + (f" (group {seen.group})" if seen.group is not None else "")
        )
    sums = [row.by_sum for row in mine]
    by_sum = seen.by_sum if None in sums else sum(map(bool, sums))
    return replace(seen, outcomes=outcomes, relations=_relations(outcomes), by_sum=by_sum)


def _relations(outcomes: dict[Key, bool]) -> dict[str, tuple[int, int]]:
    asked = Counter(relation for _, relation, _ in outcomes)
    right = Counter(relation for (_, relation, _), is_right in outcomes.items() if is_right)
    return {relation: (right[relation], asked[relation]) for relation in sorted(asked)}


# Finding results files in any tree: hidden folders too (lm-eval names one `.__x` for `pretrained=./x`).

# results_<time>.json, and <stem>_<time>.json for `--output_path <stem>.json`
LM_EVAL_NAME = re.compile(r"results_.*\.json|.*_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*\.json")


def find_json(paths: Sequence[Path]) -> tuple[list[Path], list[SetAside]]:
    """Every *.json under `paths` once, in order of folders and names, and the folders that cannot be read.

    Links are followed; a folder reached twice, as in a loop of links, is read once.

    Raises:
        InputError: a path does not exist.
    """
    aside: list[SetAside] = []
    found: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give lm_eval's --output_path")
        for file in _walk(path, aside, seen) if path.is_dir() else [path]:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values()), aside


def claims_to_be_results(path: Path) -> bool:
    """Whether the name is one that lm-eval gives to results."""
    return LM_EVAL_NAME.fullmatch(path.name) is not None


def load_results(file: Path, must_be_results: bool) -> dict[str, Any] | None:
    """The data of a results file, or None for some other JSON file.

    Raises:
        InputError: it must be one and is none.
    """
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
        reason = "not lm-eval results: they are a JSON object with 'results' and 'configs'"
    if must_be_results:
        raise InputError(reason)
    return None


def _walk(top: Path, aside: list[SetAside], seen: set[tuple[int, int]]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        aside.append(SetAside(str(error.filename), f"folder cannot be read ({error.strerror})"))

    for folder, folders, files in os.walk(top, onerror=unreadable, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".json"))


# runs.csv: what the user says of results that have no run card. Nothing is guessed from the names of files.

WHICH = ("path", "model")
ROUNDED = 0.05  # people write 7e9 for 6.74e9
OF_A_GROUP = ("group", "frequency", "triples")


@dataclass(frozen=True)
class RunRow:
    """A row: the results that it names (`path`, absolute, or lm-eval's `model_name`), and what it says of their run."""

    row: Row
    path: Path | None
    model: str | None
    said: Mapping[str, Any]

    def names(self, file: Path, model: str) -> bool:
        """Whether these results are meant: by path, by model, or (where the row gives both) by both."""
        file = file.resolve()
        by_path = self.path is None or self.path == file or self.path in file.parents
        return by_path and (self.model is None or self.model == model)


def read_runs(path: Path) -> list[RunRow]:
    """The rows of a runs.csv; paths are taken from its folder.

    Raises:
        InputError: the file or a row is wrong; the error names the row.
    """
    rows = []
    for row in read_rows(path, NEEDED, (*WHICH, *OPTIONAL)):
        named, model = row.text("path"), row.text("model")
        if named is None and model is None:
            raise row.error("path", "a results file or folder, or lm-eval's model_name in the column model")
        file = (path.parent / named).resolve() if named else None
        row.needed("frequency")
        rows.append(RunRow(row, file, model, card_of_row(row)))
    return rows


def contradictions(rows: Sequence[RunRow], card: Mapping[str, Any]) -> list[str]:
    """In what rows say otherwise than the run card, which is what counts."""
    found = []
    for given in rows:
        said = _flat(given.said)
        said |= {"frequency": given.row.whole("frequency")}
        has = _flat(card)
        has["frequency"] = _frequency(card, given.row.text("group"))
        found += [
            f"{given.row.where} says {key} {said[key]}, the run card {has[key]}: the run card counts"
            for key in sorted(set(said) & set(has))
            if said[key] != has[key]
        ]
    return found


def other_size(given: RunRow, results: Results) -> list[str]:
    """What to say where a row's N is not the one that lm-eval counted in the model (`model_num_parameters`)."""
    counted, said = object_at(results.data, "config").get("model_num_parameters"), given.said["model"]["params"]
    if type(counted) is not int or counted <= 0 or abs(said / counted - 1) <= ROUNDED:
        return []
    return [f"{results.path}: {given.row.where} says params {said:,}, lm-eval counted {counted:,}: the row counts"]


def raw_card(rows: Sequence[RunRow], items: Mapping[str | None, int | None], control: int | None) -> dict[str, Any]:
    """The run card that the rows of one results file make: a row for each group, or one.

    `items`: how many the results hold, by group (None: of the whole run), where they tell.

    Raises:
        InputError: rows contradict each other, or nothing says how many items were asked.
    """
    said = [{key: value for key, value in _flat(row.said).items() if key not in OF_A_GROUP} for row in rows]
    first = rows[0]
    for other, values in zip(rows[1:], said[1:], strict=True):
        if values != said[0] or (first.row.text("group") is None) != (other.row.text("group") is None):
            raise InputError(f"{_both(first, other)} name it and say different things; keep one of them")
    cells: dict[str | None, tuple[int, int]] = {}
    for row in rows:
        group = row.row.text("group")
        cell = (row.row.needed("frequency"), _count(row.row, items.get(group)))
        if cells.setdefault(group, cell) != cell:
            raise InputError(f"{_both(first, row)} name it and say different things; keep one of them")
    total = sum(count for _, count in cells.values())
    triples = {"count": total, **({} if control is None else {"control": control}), **first.said["triples"]}
    card = {"created": "", **first.said, "triples": {**triples, "count": total}}
    if None not in cells:
        card["groups"] = {name: {"frequency": f, "count": count} for name, (f, count) in cells.items()}
    return card


def _count(row: Row, items: int | None) -> int:
    """How many triples a row's accuracy is of."""
    given = row.whole("triples")
    if given is None and items is None:
        raise InputError(f"the results do not tell how many items were asked; say it in {row.where}, column triples")
    return given if given is not None else items or 0


def _both(one: RunRow, other: RunRow) -> str:
    return f"{one.row.where} and row {other.row.number}"


def _flat(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card's values by column, comparable."""
    plain = {key: value for key, value in card.items() if key in (*NEEDED, *OPTIONAL)}
    triples = object_at(card, "triples")
    plain |= {
        "params": object_at(card, "model").get("params"),
        "control": triples.get("control"),
        "sha256": triples.get("sha256"),
    }
    plain["triples"] = triples.get("count")
    return {
        key: json.dumps(value) if isinstance(value, list) else value
        for key, value in plain.items()
        if value is not None
    }


def _frequency(card: Mapping[str, Any], group: str | None) -> Any:
    return card.get("frequency") if group is None else object_at(card, "groups", group).get("frequency")


# lm-eval results → observations. Nothing is dropped in silence: what is not used is listed with its reason.

RESULTS_TASK = "kisl_wikidata"


@dataclass(frozen=True)
class Reading:
    """The observations of the runs that are used, what was set aside, and what is worth saying beside."""

    observations: tuple[Observation, ...]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    """What the files gave so far."""

    runs: list[Run] = field(default_factory=list)
    backgrounds: list[Background] = field(default_factory=list)
    aside: list[SetAside] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other_tasks: set[str] = field(default_factory=set)
    named: set[int] = field(default_factory=set)


def read_results(paths: Sequence[Path], task: str = RESULTS_TASK, runs: Path | None = None) -> Reading:
    """Read every lm-eval results file under `paths` for `task`; of them *.csv files are tables of observations.

    `runs` is a CSV that says what the runs without a run card were (`runs_csv`).

    Raises:
        InputError: a path does not exist, a CSV is wrong, or there is no results file at all.
    """
    tables = [path for path in paths if path.suffix.lower() == ".csv" and not path.is_dir()]
    trees = [path for path in paths if path not in tables]
    given = read_runs(runs) if runs is not None else []
    files, aside = find_json(trees)
    found = _Found(aside=aside)
    for file in files:
        _read_file(file, file in trees or claims_to_be_results(file), task, given, found)
    for table in tables:
        _read_table(table, task, found)
    if not found.runs and not found.aside:
        raise InputError(
            f"{', '.join(map(str, paths))}: no lm-eval results found; looked for results_*.json, and any *.json with "
            f"'results' and 'configs' (a table of observations is named itself: x/observations.csv). "
            f"Write some: lm_eval --tasks {task} --output_path results ..."
        )
    found.notes += _unused(given, found.named)
    return _reading(found)


def observations_of(results: Mapping[str, Any], task: str = RESULTS_TASK, name: str = "") -> tuple[Observation, ...]:
    """The observations in what lm_eval.simple_evaluate returns; `name` tells apart what is of several calls.

    Raises:
        InputError: they are no observation of their run's frequency, or have no run card.
    """
    held = Results(results, "")
    held = replace(held, path=name or f"simple_evaluate {held.model} {held.date:.0f}")
    check_task(results, task)
    raw = held.card(task)
    if raw is None:
        raise InputError(_no_card(()))
    run = make_run(held, task, raw)
    measured = background_of(held, raw)
    (run,), _, _ = with_background([run], [measured] if measured else [])
    rows = object_at(results, "samples").get(task)
    if not isinstance(rows, list) or not rows:
        return run.observations
    samples = [sample_of(row) for row in rows]
    return tuple(with_samples(seen, samples) for seen in run.observations)


def _reading(found: _Found) -> Reading:
    kept, superseded = latest(found.runs)
    kept, measured, notes = with_background(kept, found.backgrounds)
    # What holds nothing but the background of a run that is used has been used
    aside = [one for one in found.aside if one.path not in found.other_tasks & measured]
    observations: list[Observation] = []
    for run in kept:
        seen, said = check_samples(run.observations)
        observations += seen
        notes += said
    listed = tuple(SetAside(one.path, _one_line(one.reason)) for one in (*aside, *superseded))
    return Reading(tuple(observations), listed, tuple(dict.fromkeys(map(_one_line, [*found.notes, *notes]))))


def _one_line(text: str) -> str:
    # Names out of a broken file may hold anything
    return " ".join(text.split())


def _read_table(table: Path, task: str, found: _Found) -> None:
    for run in runs_of_table(table):
        named = run.observations[0].task
        if named in ("", task):
            found.runs.append(run)
        else:
            found.aside.append(SetAside(run.path, f"of task {named}, not {task} (choose with --task)"))


def _read_file(file: Path, must_be_results: bool, task: str, given: Sequence[RunRow], found: _Found) -> None:
    """Read one file into `found`."""
    try:
        data = load_results(file, must_be_results)
    except InputError as reason:
        found.aside.append(SetAside(str(file), str(reason)))
        return
    if data is not None:
        results = Results(data, str(file), file)
        rows = [row for row in given if row.names(file, results.model)]
        found.named |= {row.row.number for row in rows}
        _read_run(results, task, rows, given, found)


def _read_run(results: Results, task: str, rows: Sequence[RunRow], given: Sequence[RunRow], found: _Found) -> None:
    raw = results.card(TASK)
    try:
        check_task(results.data, task)
        check_limit(results.data)
        card, where = _card(results, task, rows, given, found)
        samples = samples_beside(results.file, task) if results.file else None
        found.runs.append(make_run(results, task, card, where, samples))
        raw = raw or card
    except InputError as reason:
        found.aside.append(SetAside(results.path, str(reason)))
        if task not in object_at(results.data, "results"):
            found.other_tasks.add(results.path)
    measured = background_of(results, raw)
    found.backgrounds += [measured] if measured else []


def _card(
    results: Results, task: str, rows: Sequence[RunRow], given: Sequence[RunRow], found: _Found
) -> tuple[Mapping[str, Any], str]:
    """The raw card of a results file, and who says it."""
    raw = results.card(task)
    if isinstance(raw, Mapping):
        found.notes += [f"{results.path}: {said}" for said in contradictions(rows, raw)]
    if raw is not None:
        return raw, "run card"
    if not rows:
        raise InputError(_no_card(given))
    found.notes += other_size(rows[0], results)
    items = {group: items_of(results, task, group) for group in {row.row.text("group") for row in rows}}
    return raw_card(rows, items, items_of(results, task, None, control=True)), rows[0].row.where


def _no_card(given: Sequence[RunRow]) -> str:
    if given:
        return f"no run card (metadata.kisl), and no row of {given[0].row.path} names it"
    return (
        "no run card (metadata.kisl): probe a model trained with kisl, its kisl.json beside it, or say what the run "
        "was in a CSV (--runs)"
    )


def _unused(given: Sequence[RunRow], named: set[int]) -> list[str]:
    return [
        f"{row.row.where} ({row.path or row.model}) names no results that were read"
        for row in given
        if row.row.number not in named
    ]
