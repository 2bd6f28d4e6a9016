"""Checkpoints that a kill at any moment leaves whole: written beside, then renamed; `latest` says which is newest."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kisl_plugin.errors import InputError
from kisl_plugin.runcard import RunCard, write_atomically, write_run_card

LATEST = "latest"
STATE, SETTINGS, CONFIGS = "state.pt", "settings.json", "configs"


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on exactly: there is no other state."""

    iteration: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    settings: Mapping[str, Any]


def save_checkpoint(
    folder: Path, snapshot: Snapshot, card: RunCard | None, triples_jsonl: str, configs: Mapping[str, str]
) -> Path:
    """Write `folder`/global_step<iteration> and point `latest` at it.

    What `latest` names must not be written anew: a kill in between would leave it nowhere.
    """
    name = f"global_step{snapshot.iteration}"
    draft, target = folder / f"{name}.part", folder / name
    shutil.rmtree(draft, ignore_errors=True)
    (draft / CONFIGS).mkdir(parents=True)
    try:
        torch.save({"model": snapshot.model, "optimizer": snapshot.optimizer}, draft / STATE)
    except RuntimeError as error:  # torch's way to say that the disk is full
        raise OSError(f"{draft / STATE}: {str(error).splitlines()[0]}") from None
    write_atomically(draft / SETTINGS, json.dumps({"iteration": snapshot.iteration, **snapshot.settings}, indent=2))
    for file, text in configs.items():
        write_atomically(draft / CONFIGS / file, text)
    if card is not None:
        write_run_card(draft, card, triples_jsonl)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    write_atomically(folder / LATEST, name + "\n")
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, or None where there is none yet.

    Raises:
        InputError: `latest` names a checkpoint that is not there.
    """
    try:
        name = (folder / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / LATEST}: cannot be read ({error}); expected the folder of a run") from None
    target = folder / name
    if any(target.glob("*model_states.pt")):
        raise InputError(f"{target}: is a checkpoint of GPT-NeoX, not of this engine; choose another save and load")
    if not (target / STATE).is_file():
        raise InputError(f"{folder / LATEST}: names {name!r}, which is not there; put the name of a checkpoint there")
    return target


def load_checkpoint(checkpoint: Path) -> Snapshot:
    """Read a checkpoint. Tensors only: nothing in the file is executed."""
    try:
        state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
        settings = json.loads((checkpoint / SETTINGS).read_text(encoding="utf-8"))
        return Snapshot(settings.pop("iteration"), state["model"], state["optimizer"], settings)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"{checkpoint}: cannot be read as a checkpoint of the local engine ({reason})") from None


def check_settings(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse to resume with settings under which the run would not be the same.

    Raises:
        InputError: names the first that differs, with both values.
    """
    for key in sorted(saved.keys() | now.keys()):
        if saved.get(key) != now.get(key):
            raise InputError(
                f"{where}: trained with {key} = {saved.get(key)!r}, now {now.get(key)!r}; restore the old value to "
                "resume, or set finetune: true to start a new run from these weights"
            )


def drop_old(folder: Path, keep: int | None) -> None:
    """Delete all but the newest `keep` checkpoints (all are kept without it); never the one that `latest` names."""
    found = sorted(folder.glob("global_step*[0-9]"), key=lambda path: int(path.name.removeprefix("global_step")))
    latest = latest_checkpoint(folder)
    for path in found[:-keep] if keep else []:
        if path != latest:
            shutil.rmtree(path)
