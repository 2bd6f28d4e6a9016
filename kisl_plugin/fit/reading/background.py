"""Bits per byte on the background text: of the same results file, or of another one of the same run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kisl_plugin.fit.reading.cells import Results
from kisl_plugin.fit.reading.nested import number_in, object_at
from kisl_plugin.fit.reading.observations import Run
from kisl_plugin.fit.reading.replicates import identity

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
