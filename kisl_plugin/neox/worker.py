"""One process of a run: GPT-NeoX is patched from outside, then its own script runs.

DeepSpeed's launcher starts this file, not a module, in every process; KISL_SCRIPT names GPT-NeoX's script.
"""

import os
import runpy
import sys
from pathlib import Path

from kisl_plugin.errors import KislError
from kisl_plugin.neox import patches
from kisl_plugin.neox.install import ensure_helpers, find_neox
from kisl_plugin.neox.loader import hook_into_training

SCRIPT = "KISL_SCRIPT"


def prepare_process() -> Path:
    """Make GPT-NeoX importable, with the field `kisl`, on this machine; returns its folder."""
    without_cuda = patches.choose_device()
    if without_cuda:
        os.environ[patches.ACCELERATOR] = "cpu"
    patches.provide_pkg_resources()
    folder = find_neox()
    sys.path.insert(0, str(folder))
    if without_cuda:
        # The number of processes on this node, as DeepSpeed's launcher gives it, or Slurm, or any other launcher.
        names = ("LOCAL_SIZE", "SLURM_NTASKS_PER_NODE", "LOCAL_WORLD_SIZE", "WORLD_SIZE")
        patches.patch_cuda(next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 1))
    patches.add_kisl_field()
    import megatron.data.data_utils
    import megatron.initialize
    import megatron.training

    # GPT-NeoX calls make, which compiles for the Python of the PATH and not for this one.
    megatron.data.data_utils.compile_helper = lambda: ensure_helpers(folder)
    patches.mend_pipeline_evaluation(megatron.training)
    if without_cuda:
        patches.patch_initialize([megatron.initialize, megatron.training])
        patches.avoid_compilation()
    return folder


def leave_processes() -> None:
    """Leave the group of processes before this one exits, which GPT-NeoX does not do.

    A thread of gloo that is still running at the exit now and then aborts the process, after all was done.
    """
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    # The modules beside this file must not be importable as top-level ones, such as `run`.
    sys.path.remove(str(Path(__file__).parent))
    script = os.environ[SCRIPT]
    try:
        path = prepare_process() / script
        if script == "train.py":
            hook_into_training()
        sys.argv[0] = str(path)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:  # of GPT-NeoX at its exit_interval
            if end.code:
                raise
        leave_processes()
    except KislError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_status)
