import json
from pathlib import Path

import pytest

from kisl_plugin.local.training import Metrics, StepReport


def report(iteration: int, loss: float) -> StepReport:
    return StepReport(iteration=iteration, loss=loss, rate=1e-3, seconds=0.5, exposures=1)


def lines_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_interval_has_the_mean_of_its_losses(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "out" / "metrics.jsonl", 0)
    for iteration, loss in ((1, 4.0), (2, 2.0)):
        metrics.add(report(iteration, loss))
    metrics.write(tokens=128, exposures=2)
    metrics.add(report(3, 1.0))
    metrics.write(tokens=192, exposures=3)
    first, second = lines_of(tmp_path / "out" / "metrics.jsonl")
    assert first == {"iteration": 2, "loss": 3.0, "lr": 1e-3, "tokens": 128, "exposures": 2, "seconds": 1.0}
    assert (second["iteration"], second["loss"]) == (3, 1.0)


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    for iteration in (5, 10, 15):
        metrics.write_held_out(iteration, 1.5)
    Metrics(path, 10).write_held_out(20, 1.25)
    assert [line["iteration"] for line in lines_of(path)] == [5, 10, 20]


@pytest.mark.parametrize(
    "rest", ['{"iteration": 10, "lo', "1", '{"loss": 1.0}', "null", '{"iteration": "x"}', "\udcff"]
)
def test_a_line_that_cannot_be_read_is_dropped_when_a_run_resumes(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "metrics.jsonl"
    Metrics(path, 0).write_held_out(5, 1.5)
    with path.open("ab") as stream:
        stream.write(rest.encode("utf-8", "surrogateescape"))
    Metrics(path, 10).write_held_out(15, 1.25)
    assert lines_of(path) == [{"iteration": 5, "held_out_loss": 1.5}, {"iteration": 15, "held_out_loss": 1.25}]


def test_the_old_lines_outlive_a_crash_while_they_are_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    Metrics(path, 0).write_held_out(5, 1.5)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        Metrics(path, 5)
    assert lines_of(path) == [{"iteration": 5, "held_out_loss": 1.5}]
