"""What is missing or wrong with a run, found before a process is started."""

import os
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.folders import claim_folder
from kisl_plugin.neox.cards import refuse_other_run
from kisl_plugin.neox.compat import warn_of_lost_clipping
from kisl_plugin.neox.files import missing_files
from kisl_plugin.neox.home import INSTALL, VARIABLE, find_neox
from kisl_plugin.neox.layouts import refuse_layouts, refuse_other_settings
from kisl_plugin.neox.planning import describe, plan_of, tokenizer_of, where_of
from kisl_plugin.neox.start import find_start, refuse_mixing, refuse_other_sharding, resume_continued
from kisl_plugin.yamls import Yamls


def find_everything(yamls: Yamls, trains: bool) -> Path:
    """GPT-NeoX's folder, if all that the run reads is there.

    Raises:
        KislError: one message names all that is not, and the command that makes each.
    """
    missing = missing_files(yamls) if trains else []
    try:
        folder = find_neox()
    except KislError as error:
        if not missing:
            raise
        missing.insert(0, str(error) if os.environ.get(VARIABLE) else f"GPT-NeoX itself · {INSTALL}")
    if missing:
        raise InputError("\n  ".join([f"{yamls.where}: not here yet, each with the command that makes it:", *missing]))
    return folder


def check_run(neox_args: Any) -> None:
    """Everything about a training run that can be known before a process is started.

    Raises:
        InputError: what is wrong, in one line.
    """
    warn_of_lost_clipping(neox_args)
    refuse_other_settings(neox_args)
    if neox_args.save is not None and neox_args.hostfile is None:
        claim_folder(Path(neox_args.save), where_of(neox_args))
    if neox_args.kisl is None:
        start = find_start(neox_args)
        refuse_other_run(neox_args, start, None)
        return refuse_other_sharding(neox_args, start)
    refuse_layouts(neox_args)
    resume_continued(neox_args)
    start = find_start(neox_args)
    refuse_other_sharding(neox_args, start)
    tokenizer = tokenizer_of(neox_args)
    if neox_args.train_iters is None:  # train_epochs: only the data loader can tell
        return refuse_mixing(neox_args, start)
    plan = plan_of(neox_args, tokenizer)
    refuse_other_run(neox_args, start, plan)
    print(describe(plan))
    return None
