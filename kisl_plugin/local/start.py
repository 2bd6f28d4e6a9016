"""Where a run begins: fresh, from its own checkpoint, or from the weights of another run."""

from pathlib import Path

from kisl_plugin.errors import InputError
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
    if load is not None and Path(load).resolve() == save.resolve():
        return own, False
    if own is not None:
        raise InputError(
            f"{config.where}: save ({save}) holds checkpoints already ({own.name}) and load is {load!r}; set load to "
            f"{str(save)!r} to resume that run, or choose another save"
        )
    return latest_checkpoint(Path(load)) if load is not None else None, False


def claim_folder(config: Config) -> None:
    """Make `save`, before any time is spent.

    Raises:
        InputError: it is no folder, or cannot be written.
    """
    if config["save"] is None:
        raise InputError(f"{config.where}: save is missing; checkpoints and the finished model are written there")
    folder = Path(config["save"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{config.where}: save ({folder}) cannot be written ({error.strerror})") from None


def _start_of_continued(config: Config, save: Path, own: Path | None) -> tuple[Path | None, bool]:
    load = config["load"]
    if load is not None and Path(load).resolve() == save.resolve():
        raise InputError(
            f"{config.where}: finetune is true and load and save are both {load!r}; choose another save, so that "
            "the parent's checkpoints stay"
        )
    if own is not None:
        return own, False
    parent = latest_checkpoint(Path(load)) if load is not None else None
    if parent is None:
        raise InputError(f"{config.where}: finetune is true; load ({load}) holds no checkpoint to start from")
    return parent, True
