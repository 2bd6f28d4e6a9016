"""Python runs this in every process of a run under test: it notes the labels that GPT-NeoX's loss is computed with."""

import importlib.abc
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

WATCHED = "megatron.model.gpt2_model"


class _Spy(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _watch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _watch(module: Any) -> None:
    original = module.cross_entropy

    def cross_entropy(output: Any, labels: Any, _fp16: bool = False) -> Any:
        import torch

        if torch.is_grad_enabled():
            _note(*labels)
            time.sleep(float(os.environ.get("KISL_SPY_DELAY", "0")))
        return original(output, labels, _fp16=_fp16)

    module.cross_entropy = cross_entropy


def _note(labels: Any, loss_mask: Any) -> None:
    import numpy as np
    from megatron import mpu

    assert bool((loss_mask == 1).all()), "a target was masked"
    found = labels.detach().cpu().numpy().astype(np.int64)
    name = f"dp{mpu.get_data_parallel_rank()}_mp{mpu.get_model_parallel_rank()}.bin"
    with (Path(os.environ["KISL_SPY"]) / name).open("ab") as stream:
        stream.write(np.array(found.shape, dtype=np.int64).tobytes() + found.tobytes())


if "KISL_SPY" in os.environ:
    sys.meta_path.insert(0, _Spy())
