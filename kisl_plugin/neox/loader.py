"""The one place where statements come into GPT-NeoX's training stream: around the dataset of its train loader."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.injection import InjectedDataset
from kisl_plugin.neox.index_cache import checked_maps
from kisl_plugin.neox.run import plan_of, tokenizer_of, where_of
from kisl_plugin.plan import InjectionPlan

Build = Callable[..., dict[str, Any]]


def injecting(
    build: Build, make_data_loader: Callable[..., Any], planned: Callable[[Any, InjectionPlan | None], None]
) -> Build:
    """GPT-NeoX's `build_train_valid_test_data_loaders`, injecting into the train loader of a run with a section.

    Covers data_path and weighted train_data_paths; validation and test stay as they are. `planned` is told the plan
    before the first batch, in every process (None in those that load no data).
    """

    def build_train_valid_test_data_loaders(neox_args: Any) -> dict[str, Any]:
        if neox_args.kisl is None:
            planned(neox_args, None)
            return build(neox_args=neox_args)
        with checked_maps():
            loaders = build(neox_args=neox_args)
        if not neox_args.do_train:
            raise InputError(f"{where_of(neox_args)}: split {neox_args.split!r} leaves no document to train on")
        train = loaders["train"]
        neox_args.train_iters = _iterations(neox_args, train)
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


def cycle(loader: Iterable[Any]) -> Iterator[Any]:
    """What GPT-NeoX takes from itertools, but for an injected loader without keeping its batches.

    itertools.cycle replays the first round's batches, where later rounds of an injected loader hold other statements.
    """
    if not isinstance(getattr(loader, "dataset", None), InjectedDataset):
        return itertools.cycle(loader)
    return (batch for _ in itertools.count() for batch in loader)


def _iterations(neox_args: Any, train: Any) -> int:
    """train_iters, or what GPT-NeoX will make of train_epochs, which only processes that load data can tell."""
    if neox_args.train_iters is not None:
        return int(neox_args.train_iters)
    import torch

    batches = len(train) * neox_args.train_epochs if train is not None else 0
    told = torch.tensor([batches // neox_args.gradient_accumulation_steps], device=torch.cuda.current_device())
    torch.distributed.broadcast(told, src=0)
    return int(told.item())
