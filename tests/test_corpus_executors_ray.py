import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("datatrove")

from corpus_builds import make_world, several_files
from corpus_toy_blocks import TASKS, began, expected, merged, stages

from kisl_plugin.corpus.executors import LocalRunner, RayRunner
from kisl_plugin.errors import InputError


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A real Ray on this machine whose processes find the toy blocks."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def small(workers: int = -1) -> RayRunner:
    return RayRunner(workers=workers, mem_per_cpu_gb=0.1)


@pytest.mark.usefixtures("cluster")
def test_ray_writes_the_bytes_that_this_process_writes(tmp_path: Path) -> None:
    assert small().run(stages(tmp_path / "ray"))
    assert LocalRunner(1).run(stages(tmp_path / "local"))
    assert merged(tmp_path / "ray") == merged(tmp_path / "local") == expected()


@pytest.mark.usefixtures("cluster")
def test_the_corpus_that_ray_builds_is_the_one_that_is_built_here(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files(4))
    said = world.kisl("ray", "--tasks", "3", "--executor", "ray", "--workers", "2", "--mem-per-cpu", "1")
    assert said.exit_code == 0, said.output
    world.build("here")
    for ending in (".bin", ".idx", ".triples.csv"):
        assert (tmp_path / f"ray{ending}").read_bytes() == (tmp_path / f"here{ending}").read_bytes()


@pytest.mark.usefixtures("cluster")
def test_an_error_on_ray_is_the_task_s_own_and_a_second_run_does_the_rest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^facts.jsonl: line 3: subject is 7; expected text$"):
        small(workers=1).run(stages(tmp_path, "input", troubled=True))
    assert began(tmp_path) == [1, 1, 1, 0]
    (tmp_path / "trouble").unlink()
    assert small().run(stages(tmp_path, "input"))
    assert began(tmp_path) == [1, 1, 2, 1]
    assert merged(tmp_path) == expected()


@pytest.mark.usefixtures("cluster")
def test_a_task_that_no_node_can_hold_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a task asks for 1 CPUs with 1e\+06 GB each and no node"):
        RayRunner(mem_per_cpu_gb=1e6).run(stages(tmp_path))


def test_an_address_where_nothing_answers_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = "RayRunner('127.0.0.1:1').run(stages(Path(sys.argv[1])))"
    said = _python(script, tmp_path)
    assert "InputError: no Ray cluster answers at 127.0.0.1:1" in said.stderr


def test_without_ray_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'kisl-plugin\[corpus,ray\]'"):
        RayRunner().run(stages(tmp_path))


def test_a_killed_task_ends_a_run_on_a_ray_of_its_own_and_the_terminal_stays_quiet(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    said = _python(
        "try: RayRunner(mem_per_cpu_gb=0.1).run(stages(Path(sys.argv[1]), 'killed', troubled=True))\n"
        "except KislError as error: print(error)",
        tmp_path,
    )
    assert said.stderr == ""
    assert said.stdout.startswith("shards: a process was killed (out of memory?) while it ran task 2 of 4; the same")
    assert said.stdout.count("\n") == 1
    assert stages(tmp_path)[0].done() == TASKS - 1


def _python(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    begin = (
        "import sys\nfrom pathlib import Path\nfrom corpus_toy_blocks import stages\n"
        "from kisl_plugin.corpus.executors import RayRunner\nfrom kisl_plugin.errors import KislError\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", begin + script, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
