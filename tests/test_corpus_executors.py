import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("datatrove")

from corpus_toy_blocks import TASKS, began, expected, merged, processes, stages

from kisl_plugin.corpus import executors as logs
from kisl_plugin.corpus.executors import LocalRunner, forget
from kisl_plugin.errors import InputError, KislError

SECONDS = 20.0


@pytest.mark.parametrize("workers", [1, 3])
def test_the_stages_run_one_after_the_other(tmp_path: Path, workers: int) -> None:
    assert LocalRunner(workers).run(stages(tmp_path))
    assert merged(tmp_path) == expected()
    assert began(tmp_path) == [1] * TASKS


def test_one_worker_needs_no_other_process_and_several_have_their_own(tmp_path: Path) -> None:
    for workers, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        LocalRunner(workers).run(stages(folder))
        used = {pid for pids in processes(folder) for pid in pids}
        assert (os.getpid() in used) == (workers == 1)
        assert len(used) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_s_own_error_reaches_the_caller_as_it_was_raised(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError) as raised:
        LocalRunner(workers).run(stages(tmp_path, "input", troubled=True))
    assert str(raised.value) == "facts.jsonl: line 3: subject is 7; expected text"
    assert not (tmp_path / "merged.txt").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_error_names_task_and_log_in_one_line(tmp_path: Path, workers: int) -> None:
    with pytest.raises(KislError, match="shards: task 2 failed with ZeroDivisionError: one; its log: ") as raised:
        LocalRunner(workers).run(stages(tmp_path, "bug", troubled=True))
    line = str(raised.value)
    assert "\n" not in line
    assert "Traceback" in Path(line.split("its log: ")[1]).read_text(encoding="utf-8")


def test_a_killed_process_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(KislError, match=r"shards: a process was killed .* task .*2.* of 4; the same command"):
        LocalRunner(2).run(stages(tmp_path, "killed", troubled=True))


@pytest.mark.parametrize("kind", ["input", "bug", "killed"])
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


def test_the_error_of_an_earlier_run_is_not_told_again(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        LocalRunner(1).run(stages(tmp_path, "input", rank=3, troubled=True))
    for rank in range(TASKS):
        forget(stages(tmp_path)[0].folder, rank)
    with pytest.raises(KislError, match="a process was killed"):  # at task 0: task 3 was not begun
        LocalRunner(2).run(stages(tmp_path, "killed", rank=0))


def test_after_the_first_failure_no_other_task_is_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        LocalRunner(1).run(stages(tmp_path, "input", rank=1, troubled=True))
    assert began(tmp_path) == [1, 1, 0, 0]


def test_a_task_that_is_forgotten_runs_again_and_no_other(tmp_path: Path) -> None:
    LocalRunner(1).run(stages(tmp_path))
    forget(stages(tmp_path)[0].folder, 1)
    LocalRunner(2).run(stages(tmp_path))
    assert began(tmp_path) == [1, 2, 1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_terminal_stays_quiet(tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KislError):
        LocalRunner(workers).run(stages(tmp_path, "bug", troubled=True))
    assert capfd.readouterr() == ("", "")
    assert "ZeroDivisionError" in logs.executor_log(tmp_path / "work" / "shards").read_text(encoding="utf-8")


def test_progress_is_told_while_the_tasks_run_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "TICK_SECONDS", 0.01)
    work, seen = stages(tmp_path), []
    LocalRunner(2).run(work, lambda: seen.append(work[0].done()))
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == TASKS


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_run_that_is_stopped(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom corpus_toy_blocks import stages\n"
        "from kisl_plugin.corpus.executors import LocalRunner\n"
        "if __name__ == '__main__':\n    LocalRunner(2).run(stages(Path(sys.argv[1]), 'hang', troubled=True))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out")], env=environment, stderr=subprocess.PIPE, text=True
    )
    hanging = tmp_path / "out" / "hanging"
    _eventually(lambda: hanging.exists() and hanging.read_text())
    worker = int(hanging.read_text())
    run.send_signal(sent)
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
