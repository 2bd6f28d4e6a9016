"""The import hook, and what a wheel holds. Only one test runs the whole `lm_eval` command: its index takes long."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from probe_world import Manager, plain_model, some_triples, write_card

from kisl_plugin.probe import hook
from kisl_plugin.resources import resource

ROOT = Path(__file__).parents[1]
PTH = ROOT / "kisl_plugin" / "probe" / "kisl_lm_eval.pth"
FIND = "from lm_eval.tasks import TaskManager; print(TaskManager(include_defaults=False).all_tasks)"
TASKS = ["kisl_wikidata", "kisl_wikidata_statement"]


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter in `folder`, in which `site` reads the `.pth` files of `environment["SITE"]`."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", hook.DISABLE)}
    read_pth = "import os, site; site.addsitedir(os.environ['SITE'])\n"
    return subprocess.run(
        [sys.executable, "-c", read_pth + code],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    shutil.copy(PTH, folder)
    return folder


@pytest.fixture
def manager() -> Any:
    """A TaskManager of another version of lm_eval, wrapped; its module's source is `probe_world`'s."""
    kind = type("Manager", (Manager,), {"__init__": Manager.__init__, "__module__": Manager.__module__})
    hook.show_tasks(SimpleNamespace(TaskManager=kind))
    return kind


def test_the_task_is_found_through_the_pth_file_from_any_folder(site_packages: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    done = python(FIND, tmp_path, SITE=str(site_packages), PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(TASKS)


def test_nothing_is_said_where_the_package_is_gone(site_packages: Path, tmp_path: Path) -> None:
    block = "import sys; sys.modules['kisl_plugin'] = None"
    code = f"{block}; site.addsitedir({str(site_packages)!r}); print('alive')"
    done = python(code, tmp_path, SITE=str(tmp_path))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "alive", "")


def test_an_environment_variable_disables_the_hook(site_packages: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    environment = {"SITE": str(site_packages), "PYTHONPATH": str(ROOT), hook.DISABLE: "1"}
    assert python(FIND, tmp_path, **environment).stdout.strip().splitlines()[-1] == "[]"


def test_nothing_is_imported_before_lm_eval_looks_for_its_tasks(site_packages: Path, tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        f"site.addsitedir({str(site_packages)!r}); print(sorted(set(sys.modules) - before))\n"
        "import json.tool; print('kisl_plugin' in sys.modules)"
    )
    done = python(code, tmp_path, SITE=str(tmp_path), PYTHONPATH=str(ROOT))
    assert done.stdout.split() == ["[]", "False"], done.stderr


def test_our_folder_comes_before_the_users_so_that_theirs_wins(manager: Any) -> None:
    ours = str(resource("tasks"))
    assert manager().include_path == [ours]
    assert manager(include_path="mine").include_path == [ours, "mine"]
    assert manager("INFO", [Path("a"), "b"], False).include_path == [ours, Path("a"), "b"]


def test_a_folder_that_is_given_is_not_given_twice(manager: Any) -> None:
    given = os.path.relpath(resource("tasks"))
    assert manager(include_path=given).include_path == given


@pytest.mark.parametrize(("reads", "resolves"), [(True, True), (True, False), (False, True)])
def test_the_hook_steps_aside_only_where_lm_eval_itself_discovers_the_tasks(
    manager: Any, monkeypatch: pytest.MonkeyPatch, reads: bool, resolves: bool
) -> None:
    source = "found = metadata.entry_points(group='lm_eval.tasks')" if reads else "found = []"
    monkeypatch.setattr("inspect.getsource", lambda module: source)
    monkeypatch.setattr(hook, "find_spec", lambda name: (name == "kisl_plugin.tasks" and resolves) or None)
    assert manager().include_path == (None if reads and resolves else [str(resource("tasks"))])


def test_a_manager_that_cannot_be_wrapped_is_left_alone(
    manager: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook.show_tasks(SimpleNamespace())
    monkeypatch.setattr("kisl_plugin.resources._PACKAGE", tmp_path / "nowhere")
    assert manager(include_path="mine").include_path == "mine"
    with pytest.raises(TypeError, match="unknown"):
        manager(unknown=1)


def build_wheel(project: Path, out: Path) -> Path:
    pytest.importorskip("hatchling")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=project, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


def test_a_wheel_carries_tasks_configs_and_hook_and_works_from_another_folder(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    wheel = build_wheel(ROOT, tmp_path)
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(target)
    shipped = {"kisl_lm_eval.pth", "kisl_plugin/tasks/kisl_wikidata/task.py"}
    shipped |= {f"kisl_plugin/tasks/kisl_wikidata/{task}.yaml" for task in TASKS}
    shipped |= {f"kisl_plugin/neox_configs/{path.name}" for path in (ROOT / "neox_configs").glob("*.yml")}
    assert shipped <= names
    code = f"{FIND}; from kisl_plugin.resources import resource; print(resource('tasks'))"
    done = python(code, tmp_path, SITE=str(target), PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    *_, found, folder = done.stdout.strip().splitlines()
    assert (found, folder) == (str(TASKS), str(target / "kisl_plugin" / "tasks"))


def test_the_installed_command_asks_a_model_from_another_folder(tmp_path: Path) -> None:
    try:
        importlib.metadata.version("kisl-plugin")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("kisl-plugin is not installed here; pip install it to run the lm_eval command")
    model = plain_model(tmp_path / "model")
    card = write_card(model, some_triples())
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"]
    options = ["--tasks", "kisl_wikidata", "--output_path", "out", "--log_samples", "--device", "cpu"]
    away = tmp_path / "away"
    away.mkdir()
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    offline = {**kept, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *options], cwd=away, env=offline, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = (away / "out").rglob("results_*.json")
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"] == card
    assert 0 <= results["results"]["kisl_wikidata"]["acc,none"] <= 1
