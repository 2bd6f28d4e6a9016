"""The run card of a run of GPT-NeoX, written with every checkpoint."""

import platform
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kisl_plugin
from kisl_plugin.errors import InputError
from kisl_plugin.neox.home import commit_of, find_neox
from kisl_plugin.neox_config import is_same, refuse_mixed_runs
from kisl_plugin.plan import Encode, InjectionPlan, InjectionSettings, make_plan, read_settings
from kisl_plugin.runcard import CARD_NAME, RunCard, check_resume, read_run_card, write_run_card
from kisl_plugin.triples import triples_to_jsonl

# From GPT-NeoX's arguments to the run's injection plan.


def settings_of(neox_args: Any) -> InjectionSettings:
    """The checked `kisl` section; the injection's seed is the run's own unless the section gives one."""
    return read_settings(neox_args.kisl, where_of(neox_args), neox_args.seed)


def where_of(neox_args: Any) -> str:
    """The run's YAMLs, for messages."""
    return ", ".join(neox_args.config_files or ()) or "the configuration"


def tokenizer_of(neox_args: Any) -> Any:
    """GPT-NeoX's tokenizer for these arguments, which are left as they are.

    Raises:
        InputError: it cannot be read, or has no end-of-document token.
    """
    from megatron.tokenizer import build_tokenizer

    try:
        tokenizer = neox_args.tokenizer or build_tokenizer(copy(neox_args))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(
            f"{where_of(neox_args)}: vocab_file {neox_args.vocab_file} (merge_file {neox_args.merge_file}) cannot be "
            f"read as {neox_args.tokenizer_type} by tokenizers {version('tokenizers')} ({_said(error)}); was it "
            "written by a newer release? kisl corpus tokenizer writes one that all read"
        ) from None
    # sentencepiece answers with the unknown token.
    unknown = tokenizer.tokenizer.unk_id() if tokenizer.name == "SPM" else None
    if tokenizer.eod in (None, unknown):
        raise InputError(
            f"{where_of(neox_args)}: the tokenizer {neox_args.vocab_file} has no <|endoftext|>, which GPT-NeoX looks "
            "up as the end of a document; add that token, or train a tokenizer: kisl corpus tokenizer"
        )
    return tokenizer


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def plan_of(neox_args: Any, tokenizer: Any) -> InjectionPlan:
    """The plan for train_iters × train_batch_size samples.

    Raises:
        InputError: the section is wrong, or the injection does not fit.
    """
    settings = settings_of(neox_args)
    samples = neox_args.train_iters * neox_args.train_batch_size
    try:
        return make_plan(settings, encoder_of(tokenizer), samples, neox_args.seq_length)
    except InputError as error:
        raise InputError(f"{where_of(neox_args)}: kisl: {error}") from None


def describe(plan: InjectionPlan) -> str:
    """What a run injects, in one line."""
    card = plan.card_fields()
    frequency = card.get("frequency", "of its group")
    return (
        f"kisl: {plan.schedule.exposures:,} exposures of {card['triples']['count']:,} triples (F = {frequency}) in "
        f"{plan.schedule.samples:,} samples, {plan.injected_fraction:.2%} of the tokens; "
        f"{card['triples']['control']:,} control triples"
    )


def encoder_of(tokenizer: Any) -> Encode:
    """Text → tokens without special tokens. GPT-NeoX's own HFTokenizer adds those its file asks for."""
    if tokenizer.name != "HFTokenizer":
        encode: Callable[[str], list[int]] = tokenizer.tokenize
        return encode
    inner = tokenizer.tokenizer
    # A file may ask for either; a statement would be cut or filled up, and nobody would know.
    inner.no_truncation()
    inner.no_padding()
    return lambda text: list(inner.encode(text, add_special_tokens=False).ids)


# Settings that are refused before anything is started.

PROBES = ("kisl_wikidata", "kisl_wikidata_statement")


def refuse_probe_inside(neox_args: Any) -> None:
    """GPT-NeoX's own evaluation cannot ask the probe; `kisl export` and lm_eval can.

    Raises:
        InputError: eval_tasks names a task of this package.
    """
    for task in neox_args.eval_tasks or ():
        if any(fnmatch(probe, task) for probe in PROBES):
            raise InputError(
                f"eval_tasks: {task!r} cannot be asked inside GPT-NeoX, whose eval_tasks/eval_adapter.py asks no more "
                "than the first 10 items of a task (limit=10) and uses functions that lm_eval dropped in 0.4.2; run: "
                "kisl export CHECKPOINT OUT && lm_eval --tasks kisl_wikidata --model hf --model_args pretrained=OUT"
            )


def refuse_other_settings(neox_args: Any) -> None:
    """What GPT-NeoX would only find out in every worker.

    Raises:
        InputError: the run's length is given twice or not at all, or the seed is none that it takes.
    """
    iterations, epochs = neox_args.train_iters, neox_args.train_epochs
    if bool(iterations) == bool(epochs):
        raise InputError(
            f"{where_of(neox_args)}: train_iters is {iterations!r} and train_epochs {epochs!r}; expected one of them"
        )
    if not neox_args.seed or neox_args.seed < 1:
        raise InputError(f"{where_of(neox_args)}: seed is {neox_args.seed!r}; GPT-NeoX takes whole numbers from 1")


# Where a run of GPT-NeoX begins: fresh, from its own checkpoint, or from the weights of another run.

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
    refuse_mixed_runs(
        None if neox_args.save is None else Path(neox_args.save),
        neox_args.load,
        finetune=start.continued,
        own=_checkpoint(neox_args.save, None),
        parent=start.checkpoint,
        where=where_of(neox_args),
    )


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


# How many parameters a model of GPT-NeoX has, whatever way it is laid out over processes.

_EMBEDDINGS = ("word_embeddings", "position_embeddings", "final_linear")


def parameter_counts(model: Any) -> tuple[int, int]:
    """All parameters, and those outside the embeddings (input and output); the same in every layout.

    `model` is DeepSpeed's engine. All processes must call it. What each tensor-parallel rank keeps whole (norms)
    counts once, and so does an embedding that the first and the last pipeline stage share.
    """
    import torch
    from megatron import mpu

    counts = torch.zeros(2, dtype=torch.int64, device=torch.cuda.current_device())
    if mpu.get_data_parallel_rank() == 0 and mpu.get_model_parallel_rank() == 0:
        counts += torch.tensor(_local_counts(model.module, mpu), device=counts.device)
    torch.distributed.all_reduce(counts)
    total, embeddings = counts.tolist()
    return int(total), int(total - embeddings)


def _local_counts(module: Any, mpu: Any) -> tuple[int, int]:
    total = embeddings = 0
    for name, parameter in module.named_parameters():
        if name.startswith("tied_modules.") and mpu.get_pipe_parallel_rank() > 0:
            continue
        size = getattr(parameter, "ds_numel", parameter.numel())
        if getattr(parameter, "model_parallel", False):
            size *= mpu.get_model_parallel_world_size()
        total += size
        if any(part in name for part in _EMBEDDINGS):
            embeddings += size
    return total, embeddings


# The run card of a run of GPT-NeoX, written with every checkpoint.

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
