"""The folder that a run saves to: whether it can be written, and whether it is another run's. For every engine."""

from pathlib import Path

from kisl_plugin.errors import InputError


def claim_folder(folder: Path, where: str) -> None:
    """Make `save`, before any time is spent. `where` names the YAMLs.

    Raises:
        InputError: it is no folder, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{where}: save ({folder}) cannot be written ({error.strerror})") from None


def is_same(load: str | None, save: Path) -> bool:
    """Whether `load` is the run's own `save`."""
    return load is not None and Path(load).resolve() == save.resolve()


def taken(save: Path, load: str | None, own: Path, where: str) -> InputError:
    """The error of a fresh run that would begin among checkpoints; `own` is the newest of those that `save` holds."""
    return InputError(
        f"{where}: save ({save}) holds checkpoints already ({own.name}) and load is {load!r}; set load to "
        f"{str(save)!r} to resume that run, or choose another save"
    )


def refuse_own_parent(save: Path, load: str | None, where: str) -> None:
    """A continued run that would save over its parent's checkpoints.

    Raises:
        InputError: `load` and `save` are the same folder.
    """
    if is_same(load, save):
        raise InputError(
            f"{where}: finetune is true and load and save are both {load!r}; choose another save, so that the parent's "
            "checkpoints stay"
        )


def no_parent(load: str | None, where: str) -> InputError:
    """The error of a continued run without a checkpoint to start from."""
    return InputError(f"{where}: finetune is true; load ({load}) holds no checkpoint to start from")
