"""Calls a function with a module as soon as that has been imported, whoever imports it."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Spy(importlib.abc.MetaPathFinder):
    def __init__(self, watched: str, watch: Callable[[ModuleType], None]) -> None:
        self.watched, self.watch = watched, watch

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.watched:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.watch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def once_imported(name: str, watch: Callable[[ModuleType], None]) -> None:
    sys.meta_path.insert(0, _Spy(name, watch))
