"""Where a run begins: fresh, from its own checkpoint, or from the weights of another run."""

from pathlib import Path

from kisl_plugin.errors import InputError
from kisl_plugin.folders import claim_folder, is_same, no_parent, refuse_own_parent, taken
from kisl_plugin.local.checkpoint import latest_checkpoint
from kisl_plugin.local.config import Config


def find_start(config: Config) -> tuple[Path | None, bool]:
    """The checkpoint to begin with (None: fresh), and whether it is another run's, whose weights alone count.

    An interrupted continued run resumes from its own `save`. A run never begins in a `save` that holds another's
    checkpoints, where the two would get mixed up.

    Raises:
        InputError: finetune has nothing to start from, or `save` is another run's.
    """
    save, load = Path(config["save"]), config["load"]
    own = latest_checkpoint(save)
    if config["finetune"]:
        return _start_of_continued(config, save, own)
    if is_same(load, save):
        return own, False
    if own is not None:
        raise taken(save, load, own, config.where)
    return latest_checkpoint(Path(load)) if load is not None else None, False


def claim_save(config: Config) -> None:
    """Make `save`, before any time is spent.

    Raises:
        InputError: it is missing, is no folder, or cannot be written.
    """
    if config["save"] is None:
        raise InputError(f"{config.where}: save is missing; checkpoints and the finished model are written there")
    claim_folder(Path(config["save"]), config.where)


def _start_of_continued(config: Config, save: Path, own: Path | None) -> tuple[Path | None, bool]:
    load = config["load"]
    refuse_own_parent(save, load, config.where)
    if own is not None:
        return own, False
    parent = latest_checkpoint(Path(load)) if load is not None else None
    if parent is None:
        raise no_parent(load, config.where)
    return parent, True
