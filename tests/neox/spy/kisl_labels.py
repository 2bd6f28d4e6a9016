"""Notes the labels that GPT-NeoX's loss is computed with, in the folder KISL_SPY."""

import os
import time
from pathlib import Path
from typing import Any


def watch(module: Any) -> None:
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
