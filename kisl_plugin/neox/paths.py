"""What a command line of GPT-NeoX's deepy.py names."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Options of GPT-NeoX's consume_deepy_args that take one value.
_OPTIONS = (
    ("--wandb_group",),
    ("--wandb_run_name",),
    ("--wandb_team",),
    ("--iteration",),
    ("--eval_results_prefix",),
    ("-i", "--sample_input_file"),
    ("-o", "--sample_output_file"),
    ("--autotuning",),
)


@dataclass(frozen=True)
class CommandLine:
    """What the checks before a launch need to know of it."""

    configs: list[Path]
    hostfile: str | None


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """The YAMLs that GPT-NeoX will read for these arguments (after the script), and the hostfile if one is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("conf_file", nargs="*")
    parser.add_argument("--conf_dir", "-d", default="")
    parser.add_argument("--eval_tasks", nargs="+")
    for option in _OPTIONS:
        parser.add_argument(*option)
    parser.add_argument("-H", "--hostfile")
    found, _ = parser.parse_known_args(arguments)
    names = [name if name.endswith((".yml", ".json")) else f"{name}.yml" for name in found.conf_file]
    return CommandLine([Path(found.conf_dir) / name for name in names], found.hostfile)
