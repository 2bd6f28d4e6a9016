"""Runs of a sweep with the embedded engine, through the command: killed, failing, repeated, two at once."""

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from sweep_files import run, scores, start, write_models, write_sweep

from kisl_plugin.cli.main import main
from kisl_plugin.sweep import read_sweep, run_sweep, state_of

pytest.importorskip("lm_eval")


def kisl(*words: object) -> Result:
    return CliRunner().invoke(main, ["sweep", *map(str, words)])


def test_a_sweep_that_is_killed_five_times_gives_the_results_of_one_that_is_not(world: Path, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, world)
    seed = random.randrange(10**6)
    print(f"random.seed({seed})")
    rng = random.Random(seed)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    ended_by_kill = 0
    for _ in range(5):
        process = start("run", file, "--out", killed, "--jobs", "2")
        time.sleep(rng.uniform(2, 9))
        process.kill()
        process.communicate()
        ended_by_kill += process.returncode == -signal.SIGKILL
    assert ended_by_kill > 1
    status, output = run("run", file, "--out", killed, "--jobs", "2")
    assert status == 0, output
    assert run("run", file, "--out", whole, "--jobs", "2")[0] == 0
    assert len(scores(whole)) == 16
    assert scores(killed) == scores(whole)
    for folder in (whole / "runs").iterdir():
        models = [root / "runs" / folder.name / "hf" / "model.safetensors" for root in (whole, killed)]
        assert models[0].read_bytes() == models[1].read_bytes()
        metrics = (killed / "runs" / folder.name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line)["iteration"] for line in metrics if "loss" in json.loads(line)]
        assert sorted(set(steps)) == steps == [5, 10, 15, 20]
    fit = json.loads((killed / "report" / "fit.json").read_text(encoding="utf-8"))
    assert len(fit["curves"]) == 2
    assert fit["set_aside"] == []


@pytest.fixture(scope="module")
def failing(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A sweep of a size that trains and of one that diverges, tried twice: its folder, exit status and terminal."""
    folder = tmp_path_factory.mktemp("failing")
    diverging = {"large": {"optimizer.params.lr": 1e30}}
    file = write_sweep(folder, world, frequency=[0, 4], seed=1, overrides=diverging)
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "kisl_plugin", "sweep", "run", str(file), "--out", str(folder), "--retries", "1"]
    variables = {**os.environ, "COLUMNS": "80", "CUDA_VISIBLE_DEVICES": ""}
    command = [*words, "--jobs", "2"]
    with subprocess.Popen(command, stderr=slave, stdout=subprocess.DEVNULL, env=variables) as process:
        os.close(slave)
        screen = b""
        with suppress(OSError):  # the end of a terminal
            while piece := os.read(master, 1 << 16):
                screen += piece
    os.close(master)
    return folder, process.returncode, screen.decode()


def test_on_a_terminal_each_run_has_a_line_that_is_redrawn_and_what_ended_stays_above(
    failing: tuple[Path, int, str],
) -> None:
    folder, _, screen = failing
    names = [one.name for one in read_sweep(folder / "sweep.yml", folder).runs]
    assert screen.startswith("4 of 4 runs are left; 2 side by side\r\n")
    both = rf"  {names[0]}  \S+/20.*\r\n  {names[1]}  \S+/20.*\r\n2 running, 2 waiting · \S+ of 30.7K tokens"
    assert re.search(both, screen)
    assert "\x1b[3A\x1b[J" in screen
    redrawn = [line for line in screen.partition("Error: ")[0].split("\r\n") if line.startswith("  ") or " · " in line]
    assert max(map(len, redrawn)) < 80
    for name, state in zip(names, ("probed", "probed", "failed", "failed"), strict=True):
        assert screen.count(f"/4] {name} {state}") == 1


def test_a_failing_run_is_retried_and_stops_no_other_and_is_listed_at_the_end(failing: tuple[Path, int, str]) -> None:
    folder, status, screen = failing
    sweep = read_sweep(folder / "sweep.yml", folder)
    assert status == 1
    *_, title, first, second = [line for line in screen.split("\r\n") if line]
    assert title == "Error: 2 of 4 runs failed:"
    for one, line in zip(sweep.runs[2:], (first, second), strict=True):
        assert line.startswith(f"  {one.name}: iteration ")
        assert "the loss is nan; lower the learning rate" in line
        assert line.endswith(f"({one.log})")
        assert one.log.read_text(encoding="utf-8").count("== ") == 2
    assert [state_of(one).state for one in sweep.runs] == ["probed", "probed", "failed", "failed"]
    assert (folder / "report" / "fit.json").is_file()


def test_status_shows_where_every_run_stands_within_80_columns(failing: tuple[Path, int, str]) -> None:
    folder, _, _ = failing
    sweep = read_sweep(folder / "sweep.yml", folder)
    result = kisl("status", folder / "sweep.yml", "--out", folder)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [
        ["run", "state"],
        *([run.name, state] for run, state in zip(sweep.runs, ("probed", "probed", "failed", "failed"), strict=True)),
    ]
    assert max(map(len, lines[:7])) <= 80
    assert lines[6].startswith("2 probed, 2 failed · 15.4K of 15.4K tokens")


def test_another_value_leaves_the_runs_that_stand_as_they_are(failing: tuple[Path, int, str]) -> None:
    folder, _, _ = failing
    stood = read_sweep(folder / "sweep.yml", folder).runs[:2]
    before = {path: path.read_bytes() for one in stood for path in one.folder.rglob("*") if path.is_file()}
    values = yaml.safe_load((folder / "sweep.yml").read_text(encoding="utf-8"))
    values |= {"models": values["models"][:1], "overrides": {}, "spacing": "even"}
    assert [one.state for one in run_sweep(read_sweep(values, folder), jobs=1)] == ["probed", "probed"]
    assert {path: path.read_bytes() for path in before} == before
    assert len(scores(folder)) == 4


def test_other_tasks_ask_the_same_models_again_without_training(failing: tuple[Path, int, str]) -> None:
    folder, _, _ = failing
    values = yaml.safe_load((folder / "sweep.yml").read_text(encoding="utf-8"))
    values |= {"models": values["models"][:1], "overrides": {}, "frequency": 4, "tasks": ["kisl_wikidata_statement"]}
    (one,) = read_sweep(values, folder).runs
    weights = (one.model_folder / "model.safetensors").stat().st_mtime_ns
    assert state_of(one).state == "trained"
    (after,) = run_sweep(read_sweep(values, folder), jobs=1)
    assert after.state == "probed"
    assert (one.model_folder / "model.safetensors").stat().st_mtime_ns == weights
    assert sorted(path.name for path in one.results.parent.iterdir()) == ["kisl_wikidata", "kisl_wikidata_statement"]


def test_a_deleted_result_is_made_again_alone_from_what_else_stands(world: Path, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, world, models=write_models(tmp_path, world)[:1], seed=1, frequency=[0, 2, 4])
    assert run("run", file, "--out", tmp_path, "--jobs", "2")[0] == 0
    first, second, third = read_sweep(file, tmp_path).runs
    before = scores(tmp_path)

    def files() -> dict[Path, tuple[int, int]]:
        kept = (path for one in (first, second, third) for path in (*one.folder.rglob("*"), *one.results.rglob("*")))
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept if path.is_file()}

    # Without its results a run is asked again; without its folder too, it is trained again. The pattern leaves out the
    # third.
    for one in (first, second, third):
        shutil.rmtree(one.results.parent)
    shutil.rmtree(second.folder)
    left = files()
    status, output = run("run", file, "--out", tmp_path, "--only", first.name, "--only", "*_f2_*")
    assert status == 0, output
    assert "2 of 2 runs are left" in output
    assert scores(tmp_path) == {one.name: before[one.name] for one in (first, second)}
    after = files()
    # Of a model that stands, the probe writes the scores into its model card.
    changed = {path for path, identity in left.items() if after[path] != identity}
    assert changed <= {first.log, first.folder / "sweep.lock", first.model_folder / "README.md"}
    assert state_of(third).state == "trained"


def test_a_run_whose_latest_a_kill_has_emptied_goes_on_from_its_newest_checkpoint(world: Path, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, world, models=write_models(tmp_path, world)[:1], seed=1, frequency=2)
    assert run("run", file, "--out", tmp_path)[0] == 0
    (one,) = read_sweep(file, tmp_path).runs
    before = scores(tmp_path)
    shutil.rmtree(one.results.parent)
    shutil.rmtree(one.model_folder)
    newest = (one.folder / "latest").read_text(encoding="utf-8").strip()
    (one.folder / "latest").write_text("")
    status, output = run("run", file, "--out", tmp_path)
    assert status == 0, output
    assert scores(tmp_path) == before
    assert f"was empty or missing; going on from {newest}" in one.log.read_text(encoding="utf-8")


def test_two_commands_at_once_share_the_runs_and_train_none_twice(world: Path, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, world, seed=1, frequency=[0, 4])
    both = [start("run", file, "--out", tmp_path, "--jobs", "1") for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(scores(tmp_path)) == 4
    for one in read_sweep(file, tmp_path).runs:
        metrics = [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]
        assert [record["iteration"] for record in metrics if "loss" in record] == [5, 10, 15, 20]
        assert one.log.read_text(encoding="utf-8").count("training 20/20") == 1


def test_a_worker_that_is_killed_fails_its_run_alone_and_the_next_call_goes_on(world: Path, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, world, models=write_models(tmp_path, world)[:1], seed=1, frequency=[0, 4])
    first, second = read_sweep(file, tmp_path).runs
    process = start("run", file, "--out", tmp_path, "--jobs", "1")
    lock = first.folder / "sweep.lock"
    while not lock.is_file() or not lock.read_text(encoding="utf-8").startswith("process"):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(int(lock.read_text(encoding="utf-8").split()[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert f"{first.name}: its process ended (signal 9): " in output
    assert state_of(first).reason.startswith("its process ended (signal 9): ")
    assert state_of(second).state == "probed"
    assert run("run", file, "--out", tmp_path)[0] == 0
    assert len(scores(tmp_path)) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_workers_end_with_the_command_and_no_run_counts_as_failed(
    number: signal.Signals, world: Path, tmp_path: Path
) -> None:
    file = write_sweep(tmp_path, world, seed=1, tokens=10_000_000, frequency=[0, 4])
    runs = read_sweep(file, tmp_path).runs
    process = start("run", file, "--out", tmp_path, "--jobs", "2")
    _eventually(lambda: all(state_of(one).state == "running" for one in runs[:2]))
    process.send_signal(number)
    output, _ = process.communicate()
    assert "failed" not in output
    _eventually(lambda: all(state_of(one).state == "waiting" for one in runs))


def _eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
