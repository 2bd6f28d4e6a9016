"""The one place where statements enter GPT-NeoX's training stream: around the dataset of its train loader."""

import glob
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.checkpoints import hold_worker_lock, refuse_other_run
from kisl_plugin.errors import InputError
from kisl_plugin.files import wait_for_lock
from kisl_plugin.injection import InjectedDataset
from kisl_plugin.neox import run
from kisl_plugin.plan import InjectionPlan
from kisl_plugin.runcard import write_run_card
from kisl_plugin.triples import triples_to_jsonl


def hook_into_training() -> None:
    """Hook into GPT-NeoX's loading and saving; its modules must be importable.

    Statements go into the train loader, whether its rows come from data_path or from weighted train_data_paths;
    validation and test stay as they are. A run without a `kisl` section passes through untouched.
    """
    import megatron.checkpointing as checkpointing
    import megatron.data.data_utils as data_utils
    import megatron.training as training

    build: Any = training.build_train_valid_test_data_loaders
    original_train: Any = training.train
    log: Any = training.training_log
    save: Any = checkpointing.save_ds_checkpoint
    plan: InjectionPlan | None = None
    start: run.RunStart | None = None
    saved: int | None = None
    counted = exposures = 0  # samples of which the exposures were counted, and those exposures
    lock = ExitStack()  # never closed: the lock ends with this process
    counts: tuple[int, int] | None = None

    def build_train_valid_test_data_loaders(neox_args: Any) -> dict[str, Any]:
        nonlocal plan, start
        if neox_args.rank == 0 and neox_args.save is not None:
            lock.enter_context(hold_worker_lock(Path(neox_args.save), run.where_of(neox_args)))
        if neox_args.kisl is None:
            if neox_args.rank == 0:
                run.check_start(neox_args, None)
            return dict(build(neox_args=neox_args))
        cache_maps_by_content()
        loaders = dict(build(neox_args=neox_args))
        if not neox_args.do_train:
            raise InputError(f"{run.where_of(neox_args)}: split {neox_args.split!r} leaves no document to train on")
        train = loaders["train"]  # None in processes that load no data
        if neox_args.train_iters is None:
            # What GPT-NeoX will make of train_epochs; only the processes that load data can tell.
            import torch

            batches = len(train) * neox_args.train_epochs if train is not None else 0
            steps = torch.tensor([batches // neox_args.gradient_accumulation_steps], device=torch.cuda.current_device())
            torch.distributed.broadcast(steps, src=0)
            neox_args.train_iters = int(steps.item())
        if train is not None:
            tokenizer = run.tokenizer_of(neox_args)
            plan = run.injection_plan(neox_args, tokenizer)
            statements = [statement.tokens for statement in plan.statements]
            injected = InjectedDataset(train.dataset, statements, plan.schedule, tokenizer.eod)
            loaders["train"] = data_utils.make_data_loader(injected, neox_args=neox_args)
        if neox_args.rank == 0:  # before the model is built: the run must go on as its checkpoint began
            start = run.check_start(neox_args, plan)
        return loaders

    def train(neox_args: Any, **others: Any) -> Any:
        nonlocal saved
        saved = neox_args.iteration or None  # that of the checkpoint which was loaded, in every process
        if plan is not None and neox_args.rank == 0:
            print(f"kisl: {plan.describe()}", flush=True)
        return original_train(neox_args=neox_args, **others)

    def training_log(*, neox_args: Any, iteration: int, **others: Any) -> Any:
        nonlocal counted, exposures
        result = log(neox_args=neox_args, iteration=iteration, **others)
        if plan is not None and neox_args.rank == 0 and iteration % neox_args.log_interval == 0:
            samples = iteration * neox_args.train_batch_size
            exposures += plan.schedule.exposures_in(counted, samples)
            counted = samples
            print(f"kisl: {exposures:,} of {plan.schedule.exposures:,} exposures", flush=True)
        return result

    def save_ds_checkpoint(iteration: int, model: Any, neox_args: Any) -> None:
        nonlocal counts, saved
        if neox_args.kisl is not None:
            if iteration == saved:
                return  # GPT-NeoX saves again when it ends; what `latest` names is never written anew
            counts = counts or run.count_over_processes(model)
            if neox_args.rank == 0 and plan is not None and start is not None:
                refuse_other_run(Path(neox_args.save), start.run_id)
                # The card is written first: what `latest` names has one at any moment.
                card = run.run_card(neox_args, plan, iteration, counts, start)
                write_run_card(Path(neox_args.save) / f"global_step{iteration}", card, triples_to_jsonl(plan.triples))
        save(iteration, model, neox_args)
        saved = iteration

    training.train, training.training_log = train, training_log
    training.build_train_valid_test_data_loaders = build_train_valid_test_data_loaders
    checkpointing.save_ds_checkpoint = save_ds_checkpoint
    data_utils.cycle = cycle


def cache_maps_by_content() -> None:
    """Give GPT-NeoX's cached index maps a name that also holds what they are made from.

    Upstream's name holds the number of samples, seq_length, seed and packing. The split and the lengths of the
    documents are not in it, so that a map of another split, or of a corpus that has changed, would be used in silence.
    Nothing else enters a map: with both in its name, every process of every node finds the right one. A map that was
    cut off by a crash is made again; runs that start together on one corpus wait for each other's maps.
    """
    import torch
    from megatron.data import gpt2_dataset

    build = gpt2_dataset._build_index_mappings

    def build_index_mappings(
        name: str, data_prefix: str, documents: NDArray[np.int32], sizes: NDArray[np.int32], *rest: Any, **named: Any
    ) -> Any:
        digest = hashlib.sha256(np.ascontiguousarray(sizes).data)
        digest.update(np.ascontiguousarray(documents).data)
        prefix = Path(f"{data_prefix}_{digest.hexdigest()[:16]}")
        with ExitStack() as stack:
            if torch.distributed.get_rank() == 0:  # which makes the maps
                stack.enter_context(wait_for_lock(prefix.with_name(f"{prefix.name}.lock")))
                for path in prefix.parent.glob(f"{glob.escape(prefix.name)}_{name}_indexmap_*.npy"):
                    try:
                        np.load(path, mmap_mode="r")
                    except (EOFError, OSError, ValueError):
                        print(f"kisl: {path} is cut off and is made again")
                        path.unlink()
            return build(name, str(prefix), documents, sizes, *rest, **named)

    gpt2_dataset._build_index_mappings = build_index_mappings


def cycle(loader: Iterable[Any]) -> Iterator[Any]:
    """What GPT-NeoX takes from itertools, but for an injected loader without keeping its batches.

    itertools.cycle replays the first round's batches, where later rounds of an injected loader hold other statements.
    """
    if not isinstance(getattr(loader, "dataset", None), InjectedDataset):
        return itertools.cycle(loader)
    return (batch for _ in itertools.count() for batch in loader)
