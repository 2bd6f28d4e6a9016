"""Where a run of GPT-NeoX begins: fresh, from its own checkpoint, or from the weights of another run."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.folders import is_same, no_parent, refuse_own_parent, taken
from kisl_plugin.neox.planning import where_of
from kisl_plugin.runcard import CARD_NAME, RunCard, check_resume, read_run_card

LATEST = "latest"


@dataclass(frozen=True)
class Start:
    """The checkpoint that GPT-NeoX will load (None: fresh), its card if it has one, and whether it is only a parent."""

    checkpoint: Path | None
    card: RunCard | None
    continued: bool

    @property
    def parent(self) -> dict[str, Any] | None:
        """What goes into the card's `parent`."""
        if self.card is None:
            return None
        return self.card.to_dict() if self.continued else dict(self.card.parent) if self.card.parent else None


def find_start(neox_args: Any) -> Start:
    """What `load`, `iteration` and `finetune` lead to.

    Raises:
        InputError: the checkpoint that they name is not there, or is none of GPT-NeoX.
    """
    checkpoint = _checkpoint(neox_args.load, neox_args.iteration)
    if checkpoint is not None and not checkpoint.is_dir():
        there = ", ".join(sorted(path.name for path in checkpoint.parent.glob("global_step*"))) or "none"
        raise InputError(f"{checkpoint}: no such checkpoint; in {checkpoint.parent} there are: {there}")
    if checkpoint is not None and not any(checkpoint.glob("*model_states.pt")):
        raise InputError(
            f"{checkpoint}: holds no weights of GPT-NeoX (*model_states.pt): it is incomplete, or of the embedded "
            "engine (kisl train), which GPT-NeoX cannot go on from; choose another save and load"
        )
    card = read_run_card(checkpoint) if checkpoint is not None and (checkpoint / CARD_NAME).is_file() else None
    return Start(checkpoint, card, bool(neox_args.finetune))


def check_start(start: Start, card: RunCard | None) -> None:
    """Refuse a resume under which exposures would be lost or doubled. `card`: this run's; None without a section.

    Raises:
        InputError: the checkpoint is of a run with another schedule, or of one with a `kisl` section where this has
            none, or the other way round.
    """
    if start.checkpoint is None or start.continued:
        return
    if start.card is not None and card is not None:
        check_resume(start.card, card, str(start.checkpoint))
    elif start.card is not None:
        raise InputError(
            f"{start.checkpoint}: was trained with a kisl section and this configuration has none: the exposures that "
            "are left would be lost; put the section back, or set finetune: true to start a new run from these weights"
        )
    elif card is not None:
        raise InputError(
            f"{start.checkpoint}: was trained without a kisl section, so the exposures up to there are missing; take "
            "the section out, or set finetune: true to start a new run from these weights"
        )


def refuse_mixing(neox_args: Any, start: Start) -> None:
    """Two runs' checkpoints in one `save` would get mixed up.

    Raises:
        InputError: `save` holds checkpoints that this run does not resume, or finetune has nothing to start from.
    """
    where = where_of(neox_args)
    if start.continued and start.checkpoint is None:
        raise no_parent(neox_args.load, where)
    if neox_args.save is None:
        return
    save = Path(neox_args.save)
    if start.continued:
        refuse_own_parent(save, neox_args.load, where)
    own = _checkpoint(neox_args.save, None)
    if own is not None and not is_same(neox_args.load, save):
        raise taken(save, neox_args.load, own, where)


def refuse_other_sharding(neox_args: Any, start: Start) -> None:
    """DeepSpeed does not share ZeRO's optimizer state out anew, and says so in every worker's traceback.

    Raises:
        InputError: the checkpoint's state was shared among another number of data-parallel processes.
    """
    if start.checkpoint is None or start.continued or neox_args.no_load_optim or _is_universal(neox_args):
        return
    ranks = (re.search(r"zero_pp_rank_(\d+)_", path.name) for path in start.checkpoint.glob("*zero_pp_rank_*"))
    then = len({found[1] for found in ranks if found})
    layout = max(1, neox_args.pipe_parallel_size) * max(1, neox_args.model_parallel_size)
    now = neox_args.global_num_gpus // layout
    if then and then != now:
        raise InputError(
            f"{start.checkpoint}: ZeRO's optimizer state is shared among {then} data-parallel processes, this run has "
            f"{now}, and DeepSpeed does not share it out anew; resume with {then}, or convert the checkpoint with "
            "DeepSpeed's ds_to_universal.py and load it as such"
        )


def _is_universal(neox_args: Any) -> bool:
    told = (neox_args.deepspeed_extra_args or {}).get("checkpoint") or neox_args.checkpoint or {}
    return bool(told.get("load_universal"))


def resume_continued(neox_args: Any, say: Callable[[str], None] = print) -> None:
    """Let a continued run that was interrupted go on from its own `save` with the same YAML; GPT-NeoX begins anew.

    Only a run with a section: what it goes on from is then checked by its card.
    """
    own = _checkpoint(neox_args.save, None)
    if neox_args.finetune and own is not None and not is_same(neox_args.load, Path(neox_args.save)):
        say(f"kisl: finetune is true and save holds {own}: resuming this continued run")
        # `iteration` is one of the parent's.
        neox_args.update_values({"finetune": False, "load": neox_args.save, "iteration": None})


def _checkpoint(folder: str | None, iteration: int | None) -> Path | None:
    """The checkpoint that DeepSpeed loads from `folder`: that of `iteration`, or the one that `latest` names."""
    if folder is None:
        return None
    if iteration is not None:
        return Path(folder) / f"global_step{iteration}"
    try:
        name = (Path(folder) / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{Path(folder) / LATEST}: cannot be read ({error}); expected the name of a checkpoint"
        ) from None
    return Path(folder) / name
