"""The run card of a run of GPT-NeoX, written with every checkpoint."""

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kisl_plugin
from kisl_plugin.neox.counts import parameter_counts
from kisl_plugin.neox.home import commit_of, find_neox
from kisl_plugin.neox.start import Start, check_start, find_start, refuse_mixing
from kisl_plugin.plan import InjectionPlan
from kisl_plugin.runcard import RunCard, write_run_card
from kisl_plugin.triples import triples_to_jsonl

Save = Callable[..., None]


class CardWriter:
    """What one training process knows of its run. Only the process of rank 0 holds a plan and writes."""

    def __init__(self) -> None:
        self._plan: InjectionPlan | None = None
        self._start: Start | None = None
        self._counts: tuple[int, int] | None = None

    def planned(self, neox_args: Any, plan: InjectionPlan | None) -> None:
        """Check, before the model is built, that the run goes on as its checkpoint began.

        Raises:
            InputError: it would not (see check_start).
        """
        if neox_args.rank != 0:
            return
        self._plan, self._start = plan, find_start(neox_args)
        refuse_other_run(neox_args, self._start, plan)

    def saving(self, save: Save) -> Save:
        """GPT-NeoX's `save_ds_checkpoint`, with the card first: what `latest` names has one at any moment."""

        def save_ds_checkpoint(iteration: int, model: Any, neox_args: Any) -> None:
            if neox_args.kisl is not None:
                self._counts = self._counts or parameter_counts(model)
                self._write(iteration, neox_args)
            save(iteration, model, neox_args)

        return save_ds_checkpoint

    def _write(self, iteration: int, neox_args: Any) -> None:
        if neox_args.rank != 0 or self._plan is None or self._counts is None or self._start is None:
            return
        card = card_of(neox_args, self._plan, iteration, self._counts, self._start.parent)
        folder = Path(neox_args.save) / f"global_step{iteration}"
        write_run_card(folder, card, triples_to_jsonl(self._plan.triples))


def refuse_other_run(neox_args: Any, start: Start, plan: InjectionPlan | None) -> None:
    """Refuse to go on from, or to save among, the checkpoints of another run.

    Raises:
        InputError: see check_start and refuse_mixing.
    """
    if plan is not None:
        refuse_mixing(neox_args, start)
    check_start(start, None if plan is None else card_of(neox_args, plan, 0, (0, 0), None))


def card_of(
    neox_args: Any, plan: InjectionPlan, iteration: int, counts: tuple[int, int], parent: dict[str, Any] | None
) -> RunCard:
    """The card at `iteration`; `counts` are all parameters and those outside the embeddings."""
    return RunCard(
        engine="neox",
        model={"params": counts[0], "params_non_embedding": counts[1], **_shape(neox_args)},
        tokens=iteration * neox_args.train_batch_size * neox_args.seq_length,
        samples=neox_args.train_iters * neox_args.train_batch_size,
        seq_length=neox_args.seq_length,
        iteration=iteration,
        train_iters=neox_args.train_iters,
        parent=parent,
        train_seed=neox_args.seed,
        versions=_versions(),
        **plan.card_fields(),
    )


def _shape(neox_args: Any) -> dict[str, Any]:
    return {
        "num_layers": neox_args.num_layers,
        "hidden_size": neox_args.hidden_size,
        "num_attention_heads": neox_args.num_attention_heads,
        "num_kv_heads": neox_args.num_kv_heads or neox_args.num_attention_heads,
        "vocab_size": neox_args.padded_vocab_size,
        "precision": neox_args.precision,
    }


def _versions() -> dict[str, str]:
    found = {"kisl": kisl_plugin.__version__, "python": platform.python_version()}
    for name in ("torch", "deepspeed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "gpt_neox": commit_of(find_neox()) or "unknown"}
