"""GPT-NeoX's train.py with nothing of kisl but what any run on a CPU needs: what a run without a section is held to."""

import runpy
import sys

from kisl_plugin.neox.install import ensure_helpers, find_neox
from kisl_plugin.neox.patches import (
    avoid_compilation,
    choose_device,
    patch_cuda,
    patch_initialize,
    provide_pkg_resources,
)

if __name__ == "__main__":
    choose_device()
    provide_pkg_resources()
    folder = find_neox()
    ensure_helpers(folder)
    sys.path.insert(0, str(folder))
    patch_cuda(1)
    import megatron.data.data_utils
    import megatron.initialize
    import megatron.training

    megatron.data.data_utils.compile_helper = lambda: None
    patch_initialize([megatron.initialize, megatron.training])
    avoid_compilation()
    sys.argv[0] = str(folder / "train.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
