"""Shows lm_eval the tasks folder, so that `lm_eval --tasks kisl_wikidata` needs no --include_path.

`kisl_lm_eval.pth` puts an import hook in place at every start of Python, without importing anything: it calls `find`
when `lm_eval.tasks` is imported, and not before. Nothing here may raise. KISL_NO_LM_EVAL_HOOK=1 disables it.
"""

import functools
import inspect
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from kisl_plugin.resources import resource

WATCHED = "lm_eval.tasks"
DISABLE = "KISL_NO_LM_EVAL_HOOK"


def find(own: Any, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """The spec of `lm_eval.tasks` from the finders other than `own`; once loaded, its TaskManager is wrapped."""
    if os.environ.get(DISABLE) == "1":
        return None
    for finder in sys.meta_path:
        # Where site reads our .pth twice there are two of us, which would ask each other without end.
        ours = getattr(finder, "__name__", "") == getattr(own, "__name__", None)
        spec = None if ours else finder.find_spec(WATCHED, path, target)
        if spec is not None and spec.loader is not None:
            _then_show_tasks(spec.loader)
            return spec
    return None


def _then_show_tasks(loader: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        show_tasks(module)

    loader.exec_module = exec_module


def show_tasks(module: Any) -> None:
    """Wrap `module.TaskManager` so that every new one also knows our tasks; without effect if that fails."""
    try:
        _wrap(module.TaskManager)
    except Exception:
        return


def _wrap(manager: Any) -> None:
    original = manager.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            call = signature.bind(self, *args, **kwargs)
            call.arguments["include_path"] = _with_ours(call.arguments.get("include_path"), manager)
            args, kwargs = call.args[1:], call.kwargs
        except Exception:
            pass  # lm_eval then says itself what is wrong with the call
        original(self, *args, **kwargs)

    manager.__init__ = init


def _with_ours(given: Any, manager: Any) -> Any:
    ours = resource("tasks").resolve()
    paths = [given] if given and isinstance(given, (str, os.PathLike)) else list(given or ())
    if any(Path(path).resolve() == ours for path in paths) or _discovers_us(manager):
        return given
    # Of two tasks of one name a user's own wins.
    return [*paths, str(ours)] if _takes_the_first(manager) else [str(ours), *paths]


def _takes_the_first(manager: Any) -> bool:
    """Whether this lm_eval takes the first of two tasks of one name, as up to 0.4.9; later ones take the last."""
    return "{**tasks, **task_index}" in _source(manager)


def _discovers_us(manager: Any) -> bool:
    """Whether this lm_eval reads the entry-point group `lm_eval.tasks` and ours resolves (not in a checkout)."""
    return "entry_points(" in _source(manager) and find_spec("kisl_plugin.tasks") is not None


def _source(manager: Any) -> str:
    return inspect.getsource(sys.modules[manager.__module__])
