"""The rows of a run, from the keys of its YAML that lay them, whichever engine trains it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.injection import Rows
from kisl_plugin.local.checks import VALUES, Given
from kisl_plugin.local.config import Config
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.local.keys import HONOURED
from kisl_plugin.plan import InjectionPlan
from kisl_plugin.yamls import read_yamls

NEEDED = ("data_path", "vocab_file", "seq_length", "train_iters")
READ = (*NEEDED, "train_batch_size", "split", "seed", "kisl")
# Under other values than these GPT-NeoX lays rows that only it can lay: its default, what is expected, the reason.
LAID: Mapping[str, tuple[Any, tuple[Any, ...], str]] = {
    "train_data_paths": (None, (None, []), "GPT-NeoX alone draws rows from weighted corpora"),
    "train_epochs": (None, (None,), "GPT-NeoX alone knows how many rows there are; give train_iters"),
    "pack_impl": ("packed", ("packed",), "GPT-NeoX alone lays rows that are not packed"),
    "dataset_impl": ("gpt2", ("gpt2",), "its rows are no rows of text"),
    "data_impl": ("infer", ("infer", "mmap"), "GPT-NeoX alone reads it"),
    "curriculum_learning": (None, (None, {}, {"enabled": False}), "it cuts rows off"),
    "tokenizer_type": ("GPT2BPETokenizer", ("HFTokenizer",), "statements are looked up as HFTokenizer makes them"),
}


@dataclass(frozen=True)
class Run:
    """A run with a `kisl` section, laid out."""

    config: Config
    data: RunData
    plan: InjectionPlan

    @property
    def corpus(self) -> Path:
        """Common beginning of the background's .bin and .idx."""
        return Path(self.config["data_path"])

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json."""
        return Path(self.config["vocab_file"])

    @property
    def on_one_device(self) -> str:
        """What is to be known where train_batch_size is not given; else empty."""
        if self.config["train_batch_size"] is not None:
            return ""
        return f"train_batch_size is not given: {self.config.batch} rows a step are taken, those of one device"

    @property
    def rows(self) -> Rows:
        """Row i is what sample i is trained on."""
        return self.data.train

    @cached_property
    def background(self) -> Rows:
        """The rows without statements; row i of the run is made of row i modulo their number. Laid when asked for."""
        return read_data(replace(self.config, values={**self.config.values, "kisl": None})).train


def read_run(paths: Sequence[Path]) -> Run:
    """Lay the rows of a run's YAMLs.

    Raises:
        InputError: a key is missing or wrong, the rows are such as only GPT-NeoX lays, or the injection does not fit.
    """
    config = _config(paths)
    data = read_data(config)
    if data.plan is None:
        raise InputError(f"{config.where}: kisl is missing; without it no row holds a statement that was planned")
    return Run(config, data, data.plan)


def _config(paths: Sequence[Path]) -> Config:
    yamls = read_yamls(paths)
    given = Given(yamls.values, yamls.files, yamls.where)
    for key, (default, allowed, reason) in LAID.items():
        value = yamls.values.get(key, default)
        if value not in allowed:
            raise InputError(
                f"{yamls.file_of(key)}: {key} is {value!r}; the rows of such a run cannot be checked: {reason}. "
                "kisl corpus audit PREFIX --triples FILE counts in its corpora"
            )
    values = {key: _value(key, given) for key in READ}
    # Nothing is held out here, and how a batch is cut into micro batches changes no row.
    batch = {"train_micro_batch_size_per_gpu": _batch(given), "gradient_accumulation_steps": 1}
    return Config({**values, **batch, "eval_interval": 1, "eval_iters": 0}, yamls.where)


def _batch(given: Given) -> int:
    """Rows a step: train_batch_size, which need not be given to a run on one device."""
    total, micro = (_value(key, given) for key in ("train_batch_size", "train_micro_batch_size_per_gpu"))
    if total is None and micro is None:
        raise InputError(f"{given.where}: train_batch_size is missing; it decides how many rows the run has")
    steps = _value("gradient_accumulation_steps", given)
    return int(total if total is not None else micro * steps)


def _value(key: str, given: Given) -> Any:
    default, kinds = HONOURED[key]
    value = given.values.get(key)
    if value is None:
        if key in NEEDED:
            raise InputError(f"{given.where}: {key} is missing; it decides what the run's rows hold")
        return default
    right, expected = VALUES.get(key, (lambda _: True, ""))
    if not isinstance(value, kinds) or isinstance(value, bool) or not right(value):
        raise given.wrong(key, value, expected or f"a value of type {kinds[0].__name__}")
    return value
