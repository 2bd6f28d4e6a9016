"""What GPT-NeoX needs on any machine so that it runs with today's libraries. Nothing here changes what is computed."""

import importlib
import re
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

CLIPS_BY_ITSELF = (0, 19, 8)


def provide_pkg_resources() -> None:
    """GPT-NeoX says `from pkg_resources import packaging`; setuptools has no pkg_resources from version 82."""
    try:
        importlib.import_module("pkg_resources")
    except ImportError:
        stub = types.ModuleType("pkg_resources")
        stub.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
        importlib.import_module("packaging.version")
        sys.modules["pkg_resources"] = stub


def warn_of_lost_clipping(neox_args: Any, say: Callable[[str], None] = print) -> None:
    """GPT-NeoX drops gradient_clipping from DeepSpeed's settings where it is the default, 1.0.

    DeepSpeed before 0.19.8, and the fork that GPT-NeoX pins, then do not clip at all.
    """
    told = "gradient_clipping" in (neox_args.deepspeed_extra_args or {})
    if not told and neox_args.gradient_clipping == 1.0 and _release(version("deepspeed")) < CLIPS_BY_ITSELF:
        say(
            f"WARNING: deepspeed {version('deepspeed')} is not told gradient_clipping: 1.0 and will not clip; "
            'add "deepspeed_extra_args": {"gradient_clipping": 1.0}'
        )


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def mend_pipeline_evaluation(training: Any) -> None:
    """With pipe_parallel_size >= 1 `forward_step` returns a loss, and `evaluate` unpacks a loss and its metrics."""
    original = training.forward_step

    def forward_step(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        return found if isinstance(found, tuple) else (found, {})

    training.forward_step = forward_step
