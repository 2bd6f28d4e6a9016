"""lm-eval's samples of a task: which triple was asked, and whether the model was right."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.observations import Key

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
