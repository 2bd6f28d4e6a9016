"""Launches cases ({name: settings}) from standard input without starting a process, and prints what is said to each.

All in one process, since importing GPT-NeoX takes seconds. DeepSpeed's launcher is the only part that does not run.
"""

import json
import os
import sys
from pathlib import Path

import yaml

from kisl_plugin.errors import KislError
from kisl_plugin.neox import launcher


def outcome(name: str, settings: object) -> str:
    config = Path(f"{name}.yml")
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    try:
        launcher.launch("train", [str(config)])
    except KislError as error:
        return f"exit {error.exit_status}: {error}"
    except SystemExit as end:
        return f"ended with {end.code}"
    return "accepted"


if __name__ == "__main__":
    os.environ |= {"KISL_CPU": "1", "DS_ACCELERATOR": "cpu"}
    import deepspeed.launcher.runner

    deepspeed.launcher.runner.main = lambda _: None
    outcomes = {name: outcome(name, settings) for name, settings in json.load(sys.stdin).items()}
    names = ("WANDB_RUN_ID", "WANDB_RESUME")
    outcomes[" ".join(names)] = " ".join(os.environ[name] for name in names)
    print("\n" + json.dumps(outcomes))
