"""The format of lm-eval's samples files: which triple was asked, and whether the model was right."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import Observation, TripleKey

_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[^/]*)\.json")


class Sample(NamedTuple):
    """A row: the triple, its group, and whether it was right (None for what is not counted in `acc`)."""

    key: TripleKey
    group: str
    right: bool | None


def samples_beside(results: Path, task: str) -> Path | None:
    """The samples of `task` that lm-eval wrote with this results file; None without them."""
    stamp = _STAMP.search(results.name)
    path = results.with_name(f"samples_{task}_{stamp[1]}.jsonl") if stamp else None
    return path.resolve() if path is not None and path.is_file() else None


def read_samples(path: Path) -> list[Sample]:
    """The rows of a samples file.

    Raises:
        InputError: it cannot be read, or a row is not one of a task over triples.
    """
    samples: list[Sample] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                samples.append(_sample_of(json.loads(line)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: row {len(samples) + 1}: {error}") from None
    return samples


def _sample_of(row: Any) -> Sample:
    """A row as lm-eval gives it.

    Raises:
        InputError: it is no object, names no triple, or `acc` is neither 0 nor 1.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("doc"), Mapping):
        raise InputError("not a sample: expected an object with 'doc'")
    doc, right = row["doc"], row.get("acc")  # None for a control triple; several processes write it as null
    key = (
        doc.get("subject_id") or doc.get("subject"),
        doc.get("relation_id"),
        doc.get("object_id") or doc.get("object"),
    )
    if not all(isinstance(part, str) for part in key):
        raise InputError("its doc names no triple (subject, relation_id, object)")
    if right not in (None, 0, 1):
        raise InputError(f"acc is {right!r}; expected 0 or 1")
    return Sample(_shared(key), str(doc.get("group") or ""), None if right is None else bool(right))


@lru_cache(maxsize=1 << 17)
def _shared(key: TripleKey) -> TripleKey:
    """One tuple for all runs, which ask the same triples: a large sweep then fits into memory."""
    return key


def check_samples(observations: Sequence[Observation]) -> tuple[list[Observation], list[str]]:
    """The observations of one results file with what its samples say; samples that contradict it are not kept.

    Also the reason why samples were not kept, in one line.
    """
    paths = {one.samples for one in observations if one.samples is not None}
    if len(paths) != 1:
        return list(observations), []
    (path,) = paths
    try:
        rows = read_samples(path)
        return [_with_samples(one, rows) for one in observations], []
    except InputError as reason:
        without = [replace(one, samples=None) for one in observations]
        where = "" if str(reason).startswith(str(path)) else f"{path}: "
        return without, [f"samples not used: {where}{reason}"]


def _with_samples(one: Observation, rows: Sequence[Sample]) -> Observation:
    """The observation with its outcome per triple.

    Raises:
        InputError: the rows contradict its counts, or ask a triple twice.
    """
    own = [row for row in rows if row.right is not None and one.group in (None, row.group)]
    outcomes = {row.key: bool(row.right) for row in own}
    if len(outcomes) != len(own):
        twice = next(key for key, times in Counter(row.key for row in own).items() if times > 1)
        raise InputError(f"the triple {' – '.join(twice)} is asked twice")
    right = sum(outcomes.values())
    if (right, len(own)) != (one.correct, one.total):
        raise InputError(
            f"{right} of {len(own)} rows are right where the results have {one.correct} of {one.total}"
            + (f" (group {one.group})" if one.group is not None else "")
        )
    return replace(one, outcomes=outcomes)
