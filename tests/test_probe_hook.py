"""The import hook, what a wheel contains, and the real `lm_eval` command in a fresh environment."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh_environment import Fresh, build_wheel, new_environment
from probe_world import plain_model, some_triples, write_card

from kisl_plugin.files import resource
from kisl_plugin.probe import hook

ROOT = Path(__file__).parents[1]
PTH = ROOT / "kisl_plugin" / "probe" / "kisl_lm_eval.pth"
FINDERS = "import sys; print([getattr(finder, '__name__', '') for finder in sys.meta_path])"
FIND = "from lm_eval.tasks import TaskManager; m = TaskManager(include_defaults=False); print(m.all_tasks)"
TASKS = ["kisl", "kisl_background", "kisl_wikidata", "kisl_wikidata_direct", "kisl_wikidata_paraphrase",
         "kisl_wikidata_statement"]  # fmt: skip


class Manager:
    """A TaskManager of another version of lm_eval."""

    def __init__(self, verbosity: str = "INFO", include_path: Any = None, include_defaults: bool = True) -> None:
        self.include_path, self.include_defaults = include_path, include_defaults


@pytest.fixture
def manager() -> Any:
    # The hook reads the source of the manager's module: this file contains what it looks for.
    kind = type("Manager", (Manager,), {"__init__": Manager.__init__, "__module__": "fresh_environment"})
    hook.show_tasks(kind)
    return kind


def test_our_folder_is_added_once_and_before_the_users_so_that_theirs_wins(manager: Any) -> None:
    ours = str(resource("tasks"))
    assert manager().include_path == [ours]
    assert manager(include_path="mine").include_path == [ours, "mine"]
    assert manager("INFO", [Path("a"), "b"], False).include_path == [ours, Path("a"), "b"]
    relative = os.path.relpath(ours)
    assert manager(include_path=relative).include_path == relative


MANAGER = """
from pathlib import Path

class TaskManager:
    def __init__(self, verbosity="INFO", include_path=None):
        task_index = {}
        for folder in [include_path] if isinstance(include_path, str) else include_path:
            tasks = {path.stem: path for path in Path(folder).rglob("*.yaml")}
            task_index = MERGED
        self.task_index = task_index
"""


@pytest.mark.parametrize(
    "merged", ["{**tasks, **task_index}", "{**task_index, **tasks}"], ids=["up to 0.4.9", "from 0.4.9.1 on"]
)
def test_a_users_task_of_our_name_wins_whichever_of_two_lm_eval_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: str
) -> None:
    (tmp_path / "another_lm_eval.py").write_text(MANAGER.replace("MERGED", merged), encoding="utf-8")
    mine = tmp_path / "mine" / "kisl_wikidata.yaml"
    mine.parent.mkdir()
    mine.write_text("task: kisl_wikidata", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "another_lm_eval", raising=False)
    module = importlib.import_module("another_lm_eval")
    hook.show_tasks(module.TaskManager)
    index = module.TaskManager(include_path=str(mine.parent)).task_index
    assert set(index) == set(TASKS)
    assert index.pop("kisl_wikidata") == mine
    assert {path.parent for path in index.values()} == {resource("tasks") / "kisl_wikidata"}


@pytest.mark.parametrize(("reads", "resolves"), [(True, True), (True, False), (False, True)])
def test_the_hook_does_nothing_only_where_lm_eval_itself_discovers_the_tasks(
    manager: Any, monkeypatch: pytest.MonkeyPatch, reads: bool, resolves: bool
) -> None:
    source = "plugins = metadata.entry_points(group='lm_eval.tasks')" if reads else "plugins = []"
    monkeypatch.setattr("inspect.getsource", lambda module: source)
    monkeypatch.setattr(hook, "find_spec", lambda name: (name == "kisl_plugin.tasks" and resolves) or None)
    assert manager().include_path == (None if reads and resolves else [str(resource("tasks"))])


def test_a_call_that_cannot_be_changed_is_left_alone(
    manager: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kisl_plugin.files._PACKAGE", tmp_path / "nowhere")
    assert manager(include_path="mine").include_path == "mine"
    with pytest.raises(TypeError, match="unknown"):
        manager(unknown=1)


def test_an_environment_variable_disables_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hook.DISABLE, "1")
    assert hook.find(None, None, None) is None


def test_nothing_is_imported_before_lm_eval_is_and_nothing_printed_where_the_package_is_gone(tmp_path: Path) -> None:
    shutil.copy(PTH, tmp_path)
    code = (
        "import site, sys; before = set(sys.modules)\n"
        f"site.addsitedir({str(tmp_path)!r}); print(sorted(set(sys.modules) - before))\n"
        "import json.tool; print('kisl_plugin' in sys.modules); sys.modules['kisl_plugin'] = None\n"
        "try:\n    import lm_eval.tasks\nexcept ModuleNotFoundError as error: print(error.name)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["[]", "False", "lm_eval"], "")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """A fresh environment with the wheel, in which lm_eval can be imported."""
    environment = new_environment(tmp_path_factory.mktemp("installed") / "env")
    environment.pip("install", "--no-deps", "--no-index", wheel)
    environment.see_lm_eval()
    yield environment
    shutil.rmtree(environment.folder)


def test_a_wheel_contains_tasks_configs_and_hook(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {"kisl_lm_eval.pth", "kisl_plugin/tasks/kisl_wikidata/task.py"}
    shipped |= {f"kisl_plugin/tasks/kisl_wikidata/{task}.yaml" for task in TASKS}
    shipped |= {f"kisl_plugin/neox_configs/{path.name}" for path in (ROOT / "neox_configs").glob("*.yml")}
    assert shipped <= names


def test_uninstalling_leaves_neither_hook_nor_package_nor_commands(wheel: Path, tmp_path: Path) -> None:
    environment = new_environment(tmp_path / "env")
    before, finders = environment.files(), environment.python("-c", FINDERS)
    environment.pip("install", "--no-deps", "--no-index", wheel)
    assert "KislFinder" in environment.python("-c", FINDERS)
    assert "KislFinder" not in environment.python("-S", "-c", FINDERS)
    environment.python("-c", "import kisl_plugin.probe.hook")  # what it compiles goes too
    commands = {environment.folder / "bin" / name for name in ("kisl", "kisl-fit", "deepy.py")}
    added = {*commands, environment.site / PTH.name, environment.site / "kisl_plugin" / "__init__.py"}
    assert added <= environment.files() - before
    environment.pip("uninstall", "--yes", "kisl-plugin")
    assert environment.files() == before
    assert environment.python("-c", FINDERS) == finders


def test_an_isolated_python_finds_the_tasks_unless_the_installation_is_broken(installed: Fresh, tmp_path: Path) -> None:
    assert installed.python("-I", "-c", FIND).strip() == str(TASKS)
    (tmp_path / "kisl_plugin").mkdir()
    (tmp_path / "kisl_plugin" / "__init__.py").write_text("raise RuntimeError('broken')", encoding="utf-8")
    assert installed.python("-c", FIND, PYTHONPATH=str(tmp_path)).strip() == "[]"


def test_an_editable_install_shows_the_checkouts_tasks_and_not_its_stale_copy(tmp_path: Path) -> None:
    environment = new_environment(tmp_path / "env")
    environment.see_lm_eval()
    # What hatchling leaves there for `pip install -e`.
    shutil.copy(PTH, environment.site)
    (environment.site / "_editable_impl_kisl_plugin.pth").write_text(str(ROOT), encoding="utf-8")
    (environment.site / "kisl_plugin" / "tasks").mkdir(parents=True)
    assert environment.python("-c", FIND).strip() == str(TASKS)


def test_the_installed_command_asks_a_model_from_another_folder(installed: Fresh, tmp_path: Path) -> None:
    model = plain_model(tmp_path / "model")
    card = write_card(model, some_triples())
    command = ["-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"]
    options = ["--tasks", "kisl_wikidata", "--output_path", str(tmp_path / "out"), "--log_samples", "--device", "cpu"]
    installed.python(*command, *options)
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"] == card
    assert 0 <= results["results"]["kisl_wikidata"]["acc,none"] <= 1
