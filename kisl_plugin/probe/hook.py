"""Shows lm_eval the tasks folder, so that `lm_eval --tasks kisl_wikidata` needs no --include_path.

`kisl_lm_eval.pth` imports this module at every start of Python, so it imports only what Python has loaded by then,
and nothing here may raise. All else happens when `lm_eval.tasks` is imported. KISL_NO_LM_EVAL_HOOK=1 disables it.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

WATCHED = "lm_eval.tasks"
DISABLE = "KISL_NO_LM_EVAL_HOOK"


class Finder:
    """An import hook that finds `lm_eval.tasks` as Python would, and wraps its TaskManager once it is loaded."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The spec that the other finders give for `lm_eval.tasks`; None for every other module."""
        if name != WATCHED:
            return None
        try:
            return self._watched(name, path, target)
        except Exception:
            return None

    def _watched(self, name: str, path: "Sequence[str] | None", target: "ModuleType | None") -> "ModuleSpec | None":
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                _then_show_tasks(spec.loader)
                return spec
        return None


def _then_show_tasks(loader: "Any") -> None:
    execute = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        execute(module)
        show_tasks(module)

    loader.exec_module = exec_module


def show_tasks(module: "Any") -> None:
    """Wrap `module.TaskManager` so that every new one also knows our tasks; without effect if that fails."""
    try:
        _wrap(module.TaskManager)
    except Exception:
        return


def _wrap(manager: "Any") -> None:
    import functools
    import inspect

    original = manager.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        try:
            call = signature.bind(self, *args, **kwargs)
            call.arguments["include_path"] = _with_ours(call.arguments.get("include_path"), manager)
            args, kwargs = call.args[1:], call.kwargs
        except Exception:
            pass  # lm_eval then says itself what is wrong with the call
        original(self, *args, **kwargs)

    manager.__init__ = init


def _with_ours(given: "Any", manager: "Any") -> "Any":
    from pathlib import Path

    from kisl_plugin.resources import resource

    ours = resource("tasks").resolve()
    paths = [given] if isinstance(given, (str, os.PathLike)) else list(given or ())
    if any(Path(path).resolve() == ours for path in paths) or _discovers_us(manager):
        return given
    # A user's own task of the same name wins: lm_eval takes the last one since 0.4.12, before that the first.
    last_wins = f"{WATCHED}.manager" in sys.modules
    return [str(ours), *paths] if last_wins else [*paths, str(ours)]


def _discovers_us(manager: "Any") -> bool:
    """Whether this lm_eval reads the entry-point group `lm_eval.tasks` and ours resolves (not in a checkout)."""
    import inspect
    from importlib.util import find_spec

    reads = "entry_points(" in inspect.getsource(sys.modules[manager.__module__])
    return reads and find_spec("kisl_plugin.tasks") is not None


def install() -> None:
    """Put the hook in place, unless the environment disables it."""
    if os.environ.get(DISABLE) == "1":
        return
    if WATCHED in sys.modules:
        show_tasks(sys.modules[WATCHED])
    else:
        sys.meta_path.insert(0, Finder())


install()
