"""One process of a run: patches GPT-NeoX from outside, then runs its own script.

DeepSpeed's launcher starts this file, not a module, in every process; KISL_SCRIPT names GPT-NeoX's script.
"""

import os
import runpy
import sys
from pathlib import Path

from kisl_plugin.errors import KislError
from kisl_plugin.neox.install import ensure_helpers, find_neox
from kisl_plugin.neox.loader import hook_into_training
from kisl_plugin.neox.patches import (
    ACCELERATOR,
    add_kisl_field,
    avoid_compilation,
    choose_device,
    mend_pipeline_evaluation,
    patch_cuda,
    patch_initialize,
    provide_pkg_resources,
)

SCRIPT = "KISL_SCRIPT"


def prepare_process() -> Path:
    """Make GPT-NeoX importable, with the field `kisl`, on this machine; returns its folder."""
    without_cuda = choose_device()
    if without_cuda:
        os.environ[ACCELERATOR] = "cpu"
    provide_pkg_resources()
    folder = find_neox()
    sys.path.insert(0, str(folder))
    if without_cuda:
        # The number of processes on this node, as DeepSpeed's launcher gives it, or Slurm, or any other launcher.
        names = ("LOCAL_SIZE", "SLURM_NTASKS_PER_NODE", "LOCAL_WORLD_SIZE", "WORLD_SIZE")
        patch_cuda(next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 1))
    add_kisl_field()
    import megatron.data.data_utils
    import megatron.initialize
    import megatron.training

    # GPT-NeoX calls make, which compiles for the Python of the PATH and not for this one.
    megatron.data.data_utils.compile_helper = lambda: ensure_helpers(folder)
    mend_pipeline_evaluation(megatron.training)
    if without_cuda:
        patch_initialize([megatron.initialize, megatron.training])
        avoid_compilation()
    return folder


if __name__ == "__main__":
    # The modules beside this file must not be importable as top-level ones, such as `run`.
    sys.path.remove(str(Path(__file__).parent))
    script = os.environ[SCRIPT]
    try:
        path = prepare_process() / script
        if script == "train.py":
            hook_into_training()
        sys.argv[0] = str(path)
        runpy.run_path(str(path), run_name="__main__")
    except KislError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_status)
