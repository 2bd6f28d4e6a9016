"""Shows lm_eval the tasks folder, so that `lm_eval --tasks kisl_wikidata` needs no --include_path.

`kisl_lm_eval.pth` puts an import hook in place at every start of Python, without importing anything: it calls `find`
when `lm_eval.tasks` is imported, and not before. Nothing here may raise. KISL_NO_LM_EVAL_HOOK=1 disables it.
"""

import contextlib
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

from kisl_plugin.files import resource

__all__ = ["DISABLE", "find"]

DISABLE = "KISL_NO_LM_EVAL_HOOK"


def find(own: Any, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """The spec of `lm_eval.tasks` from the finders other than `own`; once loaded, its TaskManager is wrapped."""
    if os.environ.get(DISABLE) == "1":
        return None
    for finder in sys.meta_path:
        # If site reads our .pth twice there are two of these finders, which would call each other endlessly.
        is_ours = getattr(finder, "__name__", "") == getattr(own, "__name__", None)
        spec = None if is_ours else finder.find_spec("lm_eval.tasks", path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader

            def exec_module(module: ModuleType, execute: Any = loader.exec_module) -> None:
                execute(module)
                with contextlib.suppress(Exception):
                    show_tasks(module.TaskManager)

            loader.exec_module = exec_module
            return spec
    return None


def show_tasks(manager: Any) -> None:
    """Wrap the class `manager` so that every new one also finds our tasks."""
    original = manager.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(Exception):  # lm_eval itself then reports what is wrong with the call
            call = signature.bind(self, *args, **kwargs)
            call.arguments["include_path"] = _with_ours(call.arguments.get("include_path"), manager)
            args, kwargs = call.args[1:], call.kwargs
        original(self, *args, **kwargs)

    manager.__init__ = init


def _with_ours(include_path: Any, manager: Any) -> Any:
    ours = resource("tasks").resolve()
    single = include_path and isinstance(include_path, (str, os.PathLike))
    paths = [include_path] if single else list(include_path or ())
    source = inspect.getsource(sys.modules[manager.__module__])
    # A release that reads the entry-point group `lm_eval.tasks` finds the tasks itself if ours resolves (not in a
    # checkout).
    finds_plugins = "entry_points(" in source and find_spec("kisl_plugin.tasks") is not None
    if finds_plugins or any(Path(path).resolve() == ours for path in paths):
        return include_path
    # Of two tasks of one name a user's own must win. Releases up to 0.4.9 take the first of two, later ones the last.
    return [*paths, str(ours)] if "{**tasks, **task_index}" in source else [str(ours), *paths]
