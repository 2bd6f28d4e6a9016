"""The folder that a run saves to, for every engine: one run at a time, its newest checkpoint, where a run begins."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from secrets import token_hex

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import hold_lock, write_atomically
from kisl_plugin.runcard import CARD_NAME, read_run_card

__all__ = [
    "LATEST",
    "LOCK_NAME",
    "STATE",
    "earlier_checkpoint",
    "find_start",
    "hold_save",
    "hold_worker_lock",
    "latest_checkpoint",
    "new_run_id",
    "refuse_other_run",
    "restore_latest",
]

LOCK_NAME, _WORKER_LOCK, LATEST = "kisl.lock", "kisl.worker.lock", "latest"
STATE = "state.pt"  # the weights of a checkpoint of the embedded engine, whose folder is renamed when it is complete


@contextmanager
def hold_save(save: Path, where: str) -> Iterator[None]:
    """Keep other runs of either engine out of `save` while the block runs; the folder is created if it is missing.

    Raises:
        InputError: `save` is not a folder or cannot be written.
        KislError: another run holds it.
    """
    try:
        save.mkdir(parents=True, exist_ok=True)
        (save / LOCK_NAME).touch()
    except OSError as error:
        raise InputError(f"{where}: save ({save}) cannot be written ({error.strerror})") from None
    with hold_lock(save / LOCK_NAME, _busy(save, where)):
        with hold_worker_lock(save, where):  # by a worker that outlived its launcher
            pass
        yield


def hold_worker_lock(save: Path, where: str) -> AbstractContextManager[None]:
    """Keep other runs out of `save` also when the process that started this one, and holds the lock, is killed.

    Raises:
        KislError: a process of another run is alive.
    """
    return hold_lock(save / _WORKER_LOCK, _busy(save, where))


def _busy(save: Path, where: str) -> str:
    return f"{where}: another run saves to {save}"


def new_run_id() -> str:
    """An id for a run that begins."""
    return token_hex(6)


def refuse_other_run(save: Path, run_id: str) -> None:
    """Check, before a checkpoint is written, that the newest one in `save` is this run's: not all systems have locks.

    Raises:
        KislError: it is another run's.
    """
    newest = latest_checkpoint(save)
    if newest is not None and (newest / CARD_NAME).is_file():
        other = read_run_card(newest).run_id
        if other not in (None, run_id):
            raise KislError(f"{newest}: is a checkpoint of another run ({other}), which has saved here meanwhile")


def latest_checkpoint(folder: str | Path | None) -> Path | None:
    """The checkpoint that `latest` in `folder` names, which need not be there; None where there is none yet.

    Raises:
        InputError: `latest` cannot be read, or was lost: a run would begin anew over the checkpoints that are there.
    """
    if folder is None:
        return None
    latest = Path(folder) / LATEST
    try:
        name = latest.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        name = ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{latest}: cannot be read ({error}); expected the name of a checkpoint") from None
    if name:
        return Path(folder) / name
    complete = _complete_checkpoints(Path(folder))
    if complete:
        raise InputError(
            f"{latest}: is missing or empty, and {folder} holds checkpoints; to go on from the newest, write its name "
            f"into that file: printf {complete[-1].name} > {latest}"
        )
    return None


def restore_latest(folder: Path) -> Path | None:
    """Write a lost `latest` in `folder` anew, for the newest complete checkpoint, and return that; else None.

    DeepSpeed empties the file before it writes the new name: a run that is killed between the two leaves it empty.
    """
    complete = _complete_checkpoints(folder)
    latest = folder / LATEST
    if not complete or (latest.is_file() and latest.stat().st_size):
        return None
    write_atomically(latest, complete[-1].name)
    return complete[-1]


def earlier_checkpoint(checkpoint: Path) -> str:
    """What to do about a checkpoint that cannot be read, as the end of a message."""
    folder, step = checkpoint.parent, _step_of(checkpoint)
    earlier = [path for path in _complete_checkpoints(folder) if _step_of(path) < step]
    if not earlier:
        return f"there is no earlier one: move {folder} away to start again"
    return f"to go on from the one before it: printf {earlier[-1].name} > {folder / LATEST}"


def _complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that were written to their end, by step. What each engine writes last is there."""
    steps = [path for path in folder.glob("global_step*") if (path / "configs").is_dir() or (path / STATE).is_file()]
    return sorted((path for path in steps if _step_of(path) >= 0), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    digits = checkpoint.name.removeprefix("global_step")
    return int(digits) if digits.isdecimal() else -1


def find_start(
    save: str | None, load: str | None, *, finetune: bool, where: str, iteration: int | None = None
) -> tuple[Path | None, bool]:
    """The checkpoint that a run begins with, and whether it goes on from there as the same run.

    A run goes on in its own folder: where `load` is `save`, and where a continued run was interrupted. It begins anew
    where there is no checkpoint yet (None), or with the weights of another run (`finetune`).

    Args:
        save: the folder that the run saves to.
        load: the folder that it loads from.
        finetune: whether it takes only the weights from there and is a new run.
        where: the run's YAMLs, for messages.
        iteration: which checkpoint of `load`; by default the newest.

    Raises:
        InputError: `finetune` without a checkpoint to start from, or with `load` and `save` the same folder; `load` is
            another folder than `save`, and contains no checkpoint, or `save` contains some.
    """
    own = latest_checkpoint(save)
    is_own = save is not None and load is not None and Path(load).resolve() == Path(save).resolve()
    if own is not None and finetune and not is_own:
        return own, True
    if finetune and is_own:
        raise InputError(
            f"{where}: finetune is true and load and save are both {load!r}; choose another save, so that the parent's "
            "checkpoints stay"
        )
    start = latest_checkpoint(load)
    if load is not None and iteration is not None:
        start = Path(load) / f"global_step{iteration}"
    if finetune and start is None:
        raise InputError(f"{where}: finetune is true and load ({load}) contains no checkpoint to start from")
    if own is not None and not is_own:
        raise InputError(
            f"{where}: save ({save}) already contains checkpoints ({own.name}) and load is {load!r}; set load to "
            f"{str(save)!r} to resume that run, or choose another save"
        )
    if save is not None and load is not None and not is_own and start is None:  # a misspelt one would start anew
        raise InputError(
            f"{where}: load ({load}) contains no checkpoint, and save is another folder; set load to {save!r} for a run"
            " that starts anew and resumes there, or name the folder of the checkpoint to go on from"
        )
    return start, not finetune
