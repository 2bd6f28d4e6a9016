"""The import hook, what a wheel holds, and the real `lm_eval` command in fresh environments."""

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
from probe_world import Manager, plain_model, some_triples, write_card

from kisl_plugin.probe import hook
from kisl_plugin.resources import resource

ROOT = Path(__file__).parents[1]
PTH = ROOT / "kisl_plugin" / "probe" / "kisl_lm_eval.pth"
LIST = "from lm_eval.tasks import TaskManager; print(TaskManager(include_defaults=False).list_all_tasks())"
FINDERS = "import sys; print([getattr(finder, '__name__', '') for finder in sys.meta_path])"
FIND = "from lm_eval.tasks import TaskManager; print(TaskManager(include_defaults=False).all_tasks)"
GROUP = ["kisl_background", "kisl_wikidata", "kisl_wikidata_paraphrase", "kisl_wikidata_statement"]
TASKS = ["kisl", *GROUP]


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
    hook.show_tasks(kind)
    return kind


def test_nothing_is_printed_where_the_package_is_gone(site_packages: Path, tmp_path: Path) -> None:
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


FIRST_OF_TWO, LAST_OF_TWO = "{**tasks, **task_index}", "{**task_index, **tasks}"
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


@pytest.mark.parametrize("merged", [FIRST_OF_TWO, LAST_OF_TWO], ids=["up to 0.4.9", "from 0.4.9.1 on"])
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


def test_a_folder_that_is_passed_is_not_added_again(manager: Any) -> None:
    ours = os.path.relpath(resource("tasks"))
    assert manager(include_path=ours).include_path == ours


@pytest.mark.parametrize(("reads", "resolves"), [(True, True), (True, False), (False, True)])
def test_the_hook_steps_aside_only_where_lm_eval_itself_discovers_the_tasks(
    manager: Any, monkeypatch: pytest.MonkeyPatch, reads: bool, resolves: bool
) -> None:
    source = "found = metadata.entry_points(group='lm_eval.tasks')" if reads else "found = []"
    monkeypatch.setattr("inspect.getsource", lambda module: source)
    monkeypatch.setattr(hook, "find_spec", lambda name: (name == "kisl_plugin.tasks" and resolves) or None)
    assert manager().include_path == (None if reads and resolves else [str(resource("tasks"))])


def test_a_call_that_cannot_be_changed_is_left_alone(
    manager: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kisl_plugin.resources._PACKAGE", tmp_path / "nowhere")
    assert manager(include_path="mine").include_path == "mine"
    with pytest.raises(TypeError, match="unknown"):
        manager(unknown=1)


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


def test_a_wheel_carries_tasks_configs_and_hook(wheel: Path) -> None:
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
    environment.python("-c", "import kisl_plugin.probe.hook")  # what it compiles goes too
    commands = {environment.folder / "bin" / name for name in ("kisl", "kisl-fit", "deepy.py")}
    brought = {*commands, environment.site / PTH.name, environment.site / "kisl_plugin" / "__init__.py"}
    assert brought <= environment.files() - before
    environment.pip("uninstall", "--yes", "kisl-plugin")
    assert environment.files() == before
    assert environment.python("-c", FINDERS) == finders


def test_python_starts_isolated_and_without_site_too(installed: Fresh) -> None:
    assert installed.python("-I", "-c", FIND).strip() == str(TASKS)
    assert "KislFinder" not in installed.python("-S", "-c", FINDERS)


def test_a_broken_installation_leaves_lm_eval_untouched(installed: Fresh, tmp_path: Path) -> None:
    (tmp_path / "kisl_plugin").mkdir()
    (tmp_path / "kisl_plugin" / "__init__.py").write_text("raise RuntimeError('broken')", encoding="utf-8")
    assert installed.python("-c", FIND, PYTHONPATH=str(tmp_path)).strip() == "[]"


def test_a_checkout_on_the_path_shows_its_own_tasks_though_a_wheel_is_installed(installed: Fresh) -> None:
    listed = installed.python("-c", LIST, PYTHONPATH=str(ROOT))
    assert f"{ROOT / 'tasks'}" in listed and str(installed.site) not in listed


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
