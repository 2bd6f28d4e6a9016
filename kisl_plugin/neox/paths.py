"""Which YAMLs a command line of GPT-NeoX's deepy.py names."""

import argparse
from collections.abc import Sequence
from pathlib import Path

# Options of GPT-NeoX's consume_deepy_args that take one value.
_OPTIONS = (
    ("--wandb_group",),
    ("--wandb_run_name",),
    ("--wandb_team",),
    ("--iteration",),
    ("--eval_results_prefix",),
    ("-H", "--hostfile"),
    ("-i", "--sample_input_file"),
    ("-o", "--sample_output_file"),
    ("--autotuning",),
)


def config_paths(arguments: Sequence[str]) -> list[Path]:
    """The YAMLs that GPT-NeoX will read for these arguments (after the script), found by its own rules."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("conf_file", nargs="*")
    parser.add_argument("--conf_dir", "-d", default="")
    parser.add_argument("--eval_tasks", nargs="+")
    for option in _OPTIONS:
        parser.add_argument(*option)
    found, _ = parser.parse_known_args(arguments)
    names = [name if name.endswith((".yml", ".json")) else f"{name}.yml" for name in found.conf_file]
    return [Path(found.conf_dir) / name for name in names]
