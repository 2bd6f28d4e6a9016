"""One run of GPT-NeoX: what it injects, the checkpoint that it starts from, and the card that it writes."""

import os
import platform
import re
import zipfile
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kisl_plugin
from kisl_plugin.checkpoints import earlier_checkpoint, find_start, new_run_id
from kisl_plugin.errors import InputError
from kisl_plugin.files import sha256, sha256_of_files
from kisl_plugin.indexed import IndexedDataset, file_of
from kisl_plugin.neox.install import commit_of, find_neox, installed_version
from kisl_plugin.plan import Encode, InjectionPlan, make_plan, read_settings
from kisl_plugin.runcard import CARD_NAME, RunCard, check_resume, describe_optimizer, read_run_card

# The id that the launcher gives to the run's processes.
RUN_ID = "KISL_RUN_ID"

# ---- from GPT-NeoX's arguments to the run's injection plan


def where_of(neox_args: Any) -> str:
    """The run's YAMLs, for messages."""
    return ", ".join(neox_args.config_files or ()) or "the configuration"


def tokenizer_of(neox_args: Any) -> Any:
    """GPT-NeoX's tokenizer for these arguments, which are left as they are."""
    from megatron.tokenizer import build_tokenizer

    try:
        tokenizer = neox_args.tokenizer or build_tokenizer(copy(neox_args))
    except Exception as error:  # the tokenizers library raises bare Exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{where_of(neox_args)}: vocab_file {neox_args.vocab_file} (merge_file {neox_args.merge_file}) cannot be "
            f"read as {neox_args.tokenizer_type} by tokenizers {version('tokenizers')} ({reason}); if a newer release "
            "wrote it, train another: kisl corpus tokenizer"
        ) from None
    # sentencepiece returns the unknown token for one that it does not have.
    unknown = tokenizer.tokenizer.unk_id() if tokenizer.name == "SPM" else None
    if tokenizer.eod in (None, unknown):
        raise InputError(
            f"{where_of(neox_args)}: the tokenizer {neox_args.vocab_file} has no <|endoftext|>, which GPT-NeoX looks "
            "up as the end of a document; add that token, or train a tokenizer: kisl corpus tokenizer"
        )
    return tokenizer


def injection_plan(neox_args: Any, tokenizer: Any) -> InjectionPlan:
    """The plan for train_iters × train_batch_size samples; its seed is the run's unless the section gives one."""
    settings = read_settings(neox_args.kisl, where_of(neox_args), neox_args.seed)
    encode: Encode = tokenizer.tokenize
    if tokenizer.name == "HFTokenizer":
        # GPT-NeoX's HFTokenizer adds the special tokens, the padding and the cut that its file asks for; a statement
        # must be its own tokens and nothing else.
        inner = tokenizer.tokenizer
        inner.no_truncation()
        inner.no_padding()
        encode = lambda text: list(inner.encode(text, add_special_tokens=False).ids)  # noqa: E731

    try:
        return make_plan(settings, encode, neox_args.train_iters * neox_args.train_batch_size, neox_args.seq_length)
    except InputError as error:
        raise InputError(f"{where_of(neox_args)}: kisl: {error}") from None


# ---- where a run begins: fresh, from its own checkpoint, or from the weights of another run


@dataclass(frozen=True)
class RunStart:
    """Two fields of a run's card, and where the run begins: its checkpoint (None: from the beginning), `iteration`."""

    run_id: str
    parent: Mapping[str, Any] | None = None
    checkpoint: Path | None = None
    iteration: int = 0


def check_start(neox_args: Any, plan: InjectionPlan | None) -> RunStart:
    """Check the checkpoint that `load`, `iteration` and `finetune` lead to.

    A continued run with a section that was interrupted goes on from its own `save` with the same YAML.

    Args:
        neox_args: GPT-NeoX's arguments.
        plan: None in a run without a section, or where the number of samples is not known yet (train_epochs).

    Raises:
        InputError: there is no such checkpoint; exposures would be lost or doubled, since it is of a run with another
            schedule, or only one of the two runs has a `kisl` section; `save` holds checkpoints of another run; or
            DeepSpeed cannot load it on this number of processes.
    """
    section = neox_args.kisl is not None
    finetune = bool(section and neox_args.finetune)
    places = (neox_args.save if section else None, neox_args.load)
    checkpoint, resumes = find_start(
        *places, finetune=finetune, where=where_of(neox_args), iteration=neox_args.iteration
    )
    if resumes and finetune:
        # GPT-NeoX would begin anew. `iteration` is one of the parent's.
        print(f"kisl: finetune is true and save holds {checkpoint}: resuming this continued run")
        neox_args.update_values({"finetune": False, "load": neox_args.save, "iteration": None})
    if checkpoint is not None and not checkpoint.is_dir():
        present = ", ".join(sorted(path.name for path in checkpoint.parent.glob("global_step*"))) or "none"
        raise InputError(f"{checkpoint}: no such checkpoint; in {checkpoint.parent} there are: {present}")
    if checkpoint is not None and not any(checkpoint.glob("*model_states.pt")):
        raise InputError(
            f"{checkpoint}: holds no weights of GPT-NeoX (*model_states.pt): it is incomplete, or a checkpoint of the "
            "embedded engine (kisl train), which GPT-NeoX cannot load; choose another save and load"
        )
    run_id = os.environ.get(RUN_ID) or new_run_id()
    if checkpoint is None:
        return RunStart(run_id)
    for file in sorted(checkpoint.glob("*.pt")):
        if not zipfile.is_zipfile(file):  # torch.save writes the index of the archive last
            raise InputError(f"{file}: is cut off; {earlier_checkpoint(checkpoint)}")
    card = read_run_card(checkpoint) if (checkpoint / CARD_NAME).is_file() else None
    if neox_args.finetune:
        return RunStart(run_id, card.to_dict() if card is not None else None, checkpoint)
    if (card is not None) != section:
        difference = (
            "without a kisl section, so the exposures up to there are missing; remove the section"
            if section
            else "with a kisl section, and without it the exposures that are left would be lost; put it back"
        )
        raise InputError(
            f"{checkpoint}: was trained {difference}, or set finetune: true to start a new run from these weights"
        )
    if card is not None and plan is not None:
        check_resume(card, run_card(neox_args, plan, 0, (0, 0), RunStart(run_id)), str(checkpoint))

    # DeepSpeed does not redistribute ZeRO's optimizer state, and would fail in every worker.
    universal = (neox_args.deepspeed_extra_args or {}).get("checkpoint") or neox_args.checkpoint or {}
    if not neox_args.no_load_optim and not universal.get("load_universal"):
        names = (re.search(r"zero_pp_rank_(\d+)_", path.name) for path in checkpoint.glob("*zero_pp_rank_*"))
        then = len({name[1] for name in names if name})
        one_model = max(1, neox_args.pipe_parallel_size) * max(1, neox_args.model_parallel_size)
        now = neox_args.global_num_gpus // one_model
        if then and then != now:
            raise InputError(
                f"{checkpoint}: ZeRO's optimizer state is divided among {then} data-parallel processes and this run "
                f"has {now}, which DeepSpeed cannot load; resume with {then}, or convert the checkpoint with "
                "DeepSpeed's ds_to_universal.py and load it as such"
            )
    if card is None:
        return RunStart(run_id, checkpoint=checkpoint)
    return RunStart(card.run_id or run_id, card.parent, checkpoint, card.iteration or 0)


# ---- the run card, written with every checkpoint

_EMBEDDINGS = ("word_embeddings", "position_embeddings", "final_linear")


def run_card(
    neox_args: Any,
    plan: InjectionPlan,
    iteration: int,
    counts: tuple[int, int],
    start: RunStart,
) -> RunCard:
    """The card at `iteration`; `counts` are all parameters and those outside the embeddings."""
    versions = {name: installed_version(name) or "unknown" for name in ("torch", "deepspeed")}
    versions |= {"kisl": kisl_plugin.__version__, "python": platform.python_version()}
    return RunCard(
        engine="neox",
        model={
            "params": counts[0],
            "params_non_embedding": counts[1],
            "num_layers": neox_args.num_layers,
            "hidden_size": neox_args.hidden_size,
            "num_attention_heads": neox_args.num_attention_heads,
            "num_kv_heads": neox_args.num_kv_heads or neox_args.num_attention_heads,
            "vocab_size": neox_args.padded_vocab_size,
            "precision": neox_args.precision,
        },
        tokens=iteration * neox_args.train_batch_size * neox_args.seq_length,
        samples=neox_args.train_iters * neox_args.train_batch_size,
        seq_length=neox_args.seq_length,
        iteration=iteration,
        train_iters=neox_args.train_iters,
        data=_fingerprints(
            tuple(neox_args.train_data_paths or [neox_args.data_path]),
            tuple(neox_args.train_data_weights or ()),
            tuple(file for file in (neox_args.vocab_file, neox_args.merge_file) if file and Path(file).is_file()),
        ),
        optimizer=describe_optimizer(vars(neox_args), neox_args.train_batch_size),
        run_id=start.run_id,
        parent=start.parent,
        train_seed=neox_args.seed,
        versions={**versions, "gpt_neox": commit_of(find_neox()) or "unknown"},
        **plan.card_fields(),
    )


@cache
def _fingerprints(prefixes: Sequence[str], weights: Sequence[float], tokenizer: Sequence[str]) -> dict[str, str]:
    """The card's `data`: what the run is trained on, by content and not by path."""
    corpora = []
    for prefix in map(Path, prefixes):
        try:
            corpora.append(IndexedDataset(prefix).fingerprint())
        except InputError:  # the older format that data_impl: cached reads
            size = file_of(prefix, ".bin").stat().st_size
            corpora.append(sha256(f"{sha256_of_files(file_of(prefix, '.idx'))} {size}"))
    corpus = corpora[0] if len(corpora) == 1 else sha256(f"{corpora} {weights}")
    return {"corpus": corpus, "tokenizer": sha256_of_files(*tokenizer)}


def count_over_processes(model: Any) -> tuple[int, int]:
    """All parameters, and those outside the embeddings (input and output); the same in every layout.

    `model` is DeepSpeed's engine. All processes must call it. What each tensor-parallel rank keeps whole (norms)
    counts once, and so does an embedding that the first and the last pipeline stage share.
    """
    import torch
    from megatron import mpu

    counts = torch.zeros(2, dtype=torch.int64, device=torch.cuda.current_device())
    if mpu.get_data_parallel_rank() == 0 and mpu.get_model_parallel_rank() == 0:
        for name, parameter in model.module.named_parameters():
            if name.startswith("tied_modules.") and mpu.get_pipe_parallel_rank() > 0:
                continue
            # Under ZeRO 3 a parameter is empty here, and DeepSpeed notes its size.
            size = getattr(parameter, "ds_numel", parameter.numel())
            if getattr(parameter, "model_parallel", False):
                size *= mpu.get_model_parallel_world_size()
            counts[0] += size
            if not any(part in name for part in _EMBEDDINGS):
                counts[1] += size
    torch.distributed.all_reduce(counts)
    total, non_embedding = counts.tolist()
    return int(total), int(non_embedding)
