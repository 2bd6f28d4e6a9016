"""Ways of training under which statements could not be injected exactly; they are refused with the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox.planning import where_of

ROWS_ALONE = "statements are spliced into rows of `text` alone, and what belongs to each token would no longer match"


@dataclass(frozen=True)
class Refusal:
    """A key, the values under which injection is exact, what was expected, and why."""

    key: str
    allowed: Callable[[Any], bool]
    expected: str
    reason: str


def _absent(value: Any) -> bool:
    return not value


def _off(value: Any) -> bool:
    return not value or (isinstance(value, dict) and value.get("enabled") is False)


REFUSALS = (
    Refusal("dataset_impl", lambda v: v == "gpt2", "gpt2", "pairwise and online data are no rows of text"),
    Refusal(
        "pack_impl",
        lambda v: v in ("packed", "pack_until_overflow"),
        "packed or pack_until_overflow",
        "unpacked rows are one padded document each, which a statement would push out",
    ),
    Refusal("data_impl", lambda v: v in ("mmap", "cached"), "mmap", "GPT-NeoX opens no data with any other value"),
    Refusal("train_impl", lambda v: v == "normal", "normal", "other objectives do not train on rows of text"),
    Refusal("train_label_data_paths", _absent, "nothing", ROWS_ALONE),
    Refusal("train_reward_data_paths", _absent, "nothing", ROWS_ALONE),
    Refusal("pos_train_data_paths", _absent, "nothing", "pairwise data are no rows of text"),
    Refusal("precompute_model_name", _absent, "nothing", ROWS_ALONE),
    Refusal("curriculum_learning", _off, "nothing", "its shorter sequences would cut statements off"),
    Refusal("eod_mask_loss", _absent, "false", "a statement's first token, after the separator, would not be learned"),
    Refusal("autotuning_run", _absent, "nothing", "it tries other batch sizes, and each has another schedule"),
)


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


def refuse_layouts(neox_args: Any) -> None:
    """Check the arguments of a run that has a `kisl` section.

    Raises:
        InputError: names the first key that stands in the way, its value, what was expected and why.
    """
    for refusal in REFUSALS:
        value = getattr(neox_args, refusal.key, None)
        if not refusal.allowed(value):
            raise InputError(
                f"{where_of(neox_args)}: {refusal.key} is {value!r}; with a kisl section expected {refusal.expected}: "
                f"{refusal.reason}"
            )
