"""Reads cases ({name: settings}) from standard input and prints what the checks before a launch say to each.

GPT-NeoX's own arguments are built for each case, in a process of its own: the patches for a CPU stay in it.
"""

import json
import os
import sys
from contextlib import ExitStack

from kisl_plugin.errors import KislError
from kisl_plugin.neox.install import find_neox
from kisl_plugin.neox.launcher import check_run
from kisl_plugin.neox.patches import (
    ACCELERATOR,
    add_kisl_field,
    choose_device,
    patch_cuda,
    provide_pkg_resources,
    settle_on_cpu,
)
from kisl_plugin.plan import read_settings

if __name__ == "__main__":
    cases = json.load(sys.stdin)
    choose_device()
    os.environ[ACCELERATOR] = "cpu"
    provide_pkg_resources()
    sys.path.insert(0, str(find_neox()))
    patch_cuda(1)
    neox_args_class = add_kisl_field()
    said = {}
    for name, values in cases.items():
        try:
            read_settings(values["kisl"], "run.yml", 0)
            neox_args = neox_args_class.from_dict({**values, "config_files": {"run.yml": ""}, "rank": 0})
            settle_on_cpu(neox_args)
            with ExitStack() as stack:
                check_run(neox_args, stack)
            said[name] = "accepted"
        except KislError as error:
            said[name] = str(error)
    print("\n" + json.dumps(said))
