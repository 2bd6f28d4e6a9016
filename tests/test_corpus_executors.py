"""The executors on a tiny pipeline: this machine, and a Ray that is started here."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("datatrove")

from corpus_builds import make_world, several_files
from corpus_toy_blocks import PYTHONPATH, TASKS, began, expected, merged, processes, stages

from kisl_plugin.corpus import executors
from kisl_plugin.corpus.executors import LocalRunner, RayRunner
from kisl_plugin.errors import InputError, KislError

SECONDS = 20.0


@pytest.mark.parametrize("workers", [1, 3])
def test_the_stages_run_one_after_the_other(tmp_path: Path, workers: int) -> None:
    assert LocalRunner(workers).run(stages(tmp_path))
    assert merged(tmp_path) == expected()
    assert began(tmp_path) == [1] * TASKS
    used = {pid for pids in processes(tmp_path) for pid in pids}
    assert (os.getpid() in used) == (workers == 1)
    assert len(used) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_reaches_the_caller_as_it_was_raised(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError) as raised:
        LocalRunner(workers).run(stages(tmp_path, "input", troubled=True))
    assert str(raised.value) == "facts.jsonl: line 3: subject is 7; expected text"
    assert not (tmp_path / "merged.txt").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_error_names_task_and_log_in_one_line(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KislError, match=r"shards: task 2 failed with ZeroDivisionError: one; .*; its log: ") as raised:
        LocalRunner(workers).run(stages(tmp_path, "bug", troubled=True))
    assert capfd.readouterr() == ("", "")
    line = str(raised.value)
    assert "\n" not in line
    assert "Traceback" in Path(line.split("its log: ")[1]).read_text(encoding="utf-8")


def test_a_killed_process_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(KislError, match=r"shards: task \d ended since a process was killed .*; the same command"):
        LocalRunner(2).run(stages(tmp_path, "killed", troubled=True))


@pytest.mark.parametrize("kind", ["input", "killed"])
def test_a_second_run_does_only_what_the_first_left(tmp_path: Path, kind: str) -> None:
    with pytest.raises(KislError):
        LocalRunner(2).run(stages(tmp_path, kind, troubled=True))
    left, before = stages(tmp_path)[0].left(), began(tmp_path)
    assert 2 in left
    (tmp_path / "trouble").unlink()
    assert LocalRunner(2).run(stages(tmp_path, kind))
    assert merged(tmp_path) == expected()
    assert [now - then for now, then in zip(began(tmp_path), before, strict=True)] == [
        int(rank in left) for rank in range(TASKS)
    ]


def test_the_error_of_an_earlier_run_is_not_reported_again(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        LocalRunner(1).run(stages(tmp_path, "input", rank=3, troubled=True))
    for rank in range(TASKS):
        stages(tmp_path)[0].forget(rank)
    with pytest.raises(KislError, match="a process was killed"):  # at task 0: task 3 was not begun
        LocalRunner(2).run(stages(tmp_path, "killed", rank=0))


def test_after_the_first_failure_no_other_task_is_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        LocalRunner(1).run(stages(tmp_path, "input", rank=1, troubled=True))
    assert began(tmp_path) == [1, 1, 0, 0]


def test_progress_is_shown_while_the_tasks_run_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "TICK_SECONDS", 0.01)
    work, counts = stages(tmp_path), []
    LocalRunner(2).run(work, lambda: counts.append(TASKS - len(work[0].left())))
    assert counts == sorted(counts)
    assert len(counts) > 2
    assert counts[-1] == TASKS


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_run_that_is_stopped(tmp_path: Path, stop: signal.Signals) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom corpus_toy_blocks import stages\n"
        "from kisl_plugin.corpus.executors import LocalRunner\n"
        "if __name__ == '__main__':\n    LocalRunner(2).run(stages(Path(sys.argv[1]), 'hang', troubled=True))\n"
    )
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    hanging = tmp_path / "out" / "hanging"
    _eventually(lambda: hanging.exists() and hanging.read_text())
    worker = int(hanging.read_text())
    run.send_signal(stop)
    assert run.wait(SECONDS) != 0
    _eventually(lambda: not _runs(worker))
    (tmp_path / "out" / "trouble").unlink()
    assert LocalRunner(2).run(stages(tmp_path / "out"))
    assert merged(tmp_path / "out") == expected()


def _eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, f"not within {SECONDS:.0f} s"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().split()[2] == "Z")


# ---- Ray ----


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A real Ray on this machine whose processes find the toy blocks."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def small(workers: int = -1) -> RayRunner:
    return RayRunner(workers=workers, mem_per_cpu_gb=0.1)


@pytest.mark.usefixtures("cluster")
def test_ray_writes_the_bytes_that_this_machine_writes(tmp_path: Path) -> None:
    assert small().run(stages(tmp_path / "ray"))
    assert LocalRunner(1).run(stages(tmp_path / "local"))
    assert merged(tmp_path / "ray") == merged(tmp_path / "local") == expected()


@pytest.mark.usefixtures("cluster")
def test_the_corpus_that_ray_builds_is_the_one_that_is_built_here(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files(4))
    result = world.kisl("ray", "--tasks", "3", "--executor", "ray", "--workers", "2", "--mem-per-cpu", "1")
    assert result.exit_code == 0, result.output
    world.build("here")
    for ending in (".bin", ".idx", ".triples.csv"):
        assert (tmp_path / f"ray{ending}").read_bytes() == (tmp_path / f"here{ending}").read_bytes()


@pytest.mark.usefixtures("cluster")
def test_an_error_on_ray_is_the_task_s_own_and_a_second_run_does_the_rest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^facts.jsonl: line 3: subject is 7; expected text$"):
        small(workers=1).run(stages(tmp_path, "input", troubled=True))
    assert began(tmp_path) == [1, 1, 1, 1]
    (tmp_path / "trouble").unlink()
    assert small().run(stages(tmp_path, "input"))
    assert began(tmp_path) == [1, 1, 2, 1]
    assert merged(tmp_path) == expected()


def test_a_missing_ray_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"the ray executor needs ray: pip install 'kisl-plugin\[corpus,ray\]'"):
        RayRunner().run(stages(tmp_path))


def test_an_address_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = "from kisl_plugin.corpus.executors import RayRunner; RayRunner('127.0.0.1:1').run([])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "InputError: no Ray cluster at 127.0.0.1:1" in done.stderr
