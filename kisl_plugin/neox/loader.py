"""The one place where statements enter GPT-NeoX's training stream: around the dataset of its train loader."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kisl_plugin.errors import InputError
from kisl_plugin.injection import InjectedDataset
from kisl_plugin.neox.run import plan_of, tokenizer_of, where_of
from kisl_plugin.plan import InjectionPlan

_IntArray = NDArray[np.integer[Any]]


def inject_into_loader(
    build: Callable[..., dict[str, Any]],
    make_data_loader: Callable[..., Any],
    planned: Callable[[Any, InjectionPlan | None], None],
) -> Callable[..., dict[str, Any]]:
    """GPT-NeoX's `build_train_valid_test_data_loaders`, injecting into the train loader of a run with a section.

    Covers data_path and weighted train_data_paths; validation and test stay as they are.

    Args:
        build: GPT-NeoX's own function.
        make_data_loader: GPT-NeoX's function from a dataset to its loader.
        planned: called in every process, before the first batch, with the arguments and the plan (None in processes
            that load no data, and in a run without a section).
    """

    def build_train_valid_test_data_loaders(neox_args: Any) -> dict[str, Any]:
        if neox_args.kisl is None:
            planned(neox_args, None)
            return build(neox_args=neox_args)
        cache_maps_by_content()
        loaders = build(neox_args=neox_args)
        if not neox_args.do_train:
            raise InputError(f"{where_of(neox_args)}: split {neox_args.split!r} leaves no document to train on")
        train = loaders["train"]
        if neox_args.train_iters is None:
            # What GPT-NeoX will make of train_epochs; only the processes that load data can tell.
            import torch

            batches = len(train) * neox_args.train_epochs if train is not None else 0
            steps = torch.tensor([batches // neox_args.gradient_accumulation_steps], device=torch.cuda.current_device())
            torch.distributed.broadcast(steps, src=0)
            neox_args.train_iters = int(steps.item())
        plan = None
        if train is not None:
            tokenizer = tokenizer_of(neox_args)
            plan = plan_of(neox_args, tokenizer)
            statements = [statement.tokens for statement in plan.statements]
            injected = InjectedDataset(train.dataset, statements, plan.schedule, tokenizer.eod)
            loaders["train"] = make_data_loader(injected, neox_args=neox_args)
        planned(neox_args, plan)
        return loaders

    return build_train_valid_test_data_loaders


def cache_maps_by_content() -> None:
    """Give GPT-NeoX's cached index maps a name that also holds what they are made from.

    Upstream's name holds the number of samples, seq_length, seed and packing. The split and the lengths of the
    documents are not in it, so that a map of another split, or of a corpus that has changed, would be used in silence.
    Nothing else enters a map: with both in its name, every process of every node finds the right one.
    """
    from megatron.data import gpt2_dataset

    build = gpt2_dataset._build_index_mappings

    def build_index_mappings(
        name: str, data_prefix: str, documents: _IntArray, sizes: _IntArray, *rest: Any, **named: Any
    ) -> Any:
        digest = hashlib.sha256(np.ascontiguousarray(sizes).data)
        digest.update(np.ascontiguousarray(documents).data)
        return build(name, f"{data_prefix}_{digest.hexdigest()[:16]}", documents, sizes, *rest, **named)

    gpt2_dataset._build_index_mappings = build_index_mappings


def cycle(loader: Iterable[Any]) -> Iterator[Any]:
    """What GPT-NeoX takes from itertools, but for an injected loader without keeping its batches.

    itertools.cycle replays the first round's batches, where later rounds of an injected loader hold other statements.
    """
    if not isinstance(getattr(loader, "dataset", None), InjectedDataset):
        return itertools.cycle(loader)
    return (batch for _ in itertools.count() for batch in loader)
