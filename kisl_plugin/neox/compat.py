"""What GPT-NeoX needs on any machine so that it runs with today's libraries. Nothing here changes what is computed."""

import importlib
import sys
import types
from typing import Any


def provide_pkg_resources() -> None:
    """GPT-NeoX says `from pkg_resources import packaging`; setuptools has no pkg_resources from version 82."""
    try:
        importlib.import_module("pkg_resources")
    except ImportError:
        stub = types.ModuleType("pkg_resources")
        stub.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
        importlib.import_module("packaging.version")
        sys.modules["pkg_resources"] = stub


def mend_pipeline_evaluation(training: Any) -> None:
    """With pipe_parallel_size >= 1 `forward_step` returns a loss, and `evaluate` unpacks a loss and its metrics."""
    original = training.forward_step

    def forward_step(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        return found if isinstance(found, tuple) else (found, {})

    training.forward_step = forward_step
