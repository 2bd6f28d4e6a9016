"""The file of a sweep, sweep.yml, and the runs that it makes: one for each combination of its lists.

A run's folder is named for its inputs, a hash of them included, so another value of any input is another run.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin import grid, llama
from kisl_plugin.errors import InputError, did_you_mean, is_whole
from kisl_plugin.files import sha256, sha256_of_files, write_atomically
from kisl_plugin.indexed import IndexedDataset, file_of
from kisl_plugin.neox_config import (
    ROUNDING_KEYS,
    Yamls,
    missing_files,
    missing_files_error,
    padded_vocabulary,
    read_yamls,
    swiglu_width,
)
from kisl_plugin.plan import read_settings
from kisl_plugin.triples import read_triples, triples_to_jsonl

__all__ = ["Sweep", "SweepRun", "missing_inputs", "read_sweep", "refuse_missing_inputs", "vocabulary_of"]

# Keys of the kisl section that the file may give, each as one value or a list of values.
_SECTION_KEYS = ("triples", "frequency", "form", "template", "spacing", "window", "max_fraction")
_KEYS = ("models", "tokens", "seed", *_SECTION_KEYS, "data_path", "engine", "tasks", "overrides", "slurm", "gpus")
# The keys of a YAML that the sweep itself fills in, and where they are given.
_OWN_KEYS = {"train_iters": "tokens", "seed": "seed", "data_path": "data_path", "kisl": "triples, frequency, …",
             "save": "--out", "load": "--out"}  # fmt: skip

_NAMES_IN_ERROR = 5


@dataclass(frozen=True)
class SweepRun:
    """One run, and where its files are below `out`.

    Attributes:
        name: of its folder; ends with a hash of everything that decides its result.
        model: the name of its size.
        engine: neox, local or a plugin's.
        tasks: what the probe asks.
        values: the YAML, by GPT-NeoX's keys.
        params: N by the YAML's shape.
        tokens: D.
        data: the fingerprints of corpus and tokenizer; None for what is missing.
        out: the folder of the sweep.
        slurm: how a job is submitted.
    """

    name: str
    model: str
    engine: str
    tasks: tuple[str, ...]
    values: Mapping[str, Any]
    params: int
    tokens: int
    data: Mapping[str, str | None]
    out: Path
    slurm: Mapping[str, Any]

    @property
    def train_iters(self) -> int:
        """Steps of the run."""
        return int(self.values["train_iters"])

    @property
    def flops(self) -> float:
        """C = 6·N·D."""
        return 6.0 * self.params * self.tokens

    @property
    def config(self) -> Path:
        """The YAML."""
        return self.out / "configs" / f"{self.name}.yml"

    @property
    def folder(self) -> Path:
        """Checkpoints, log and finished model: the YAML's `save`."""
        return self.out / "runs" / self.name

    @property
    def model_folder(self) -> Path:
        """The finished model in Hugging Face's format, with its run card."""
        return self.folder / "hf"

    @property
    def log(self) -> Path:
        """What training, export and probe print."""
        return self.folder / "sweep.log"

    @property
    def results(self) -> Path:
        """lm_eval's results of these tasks; other tasks have a folder of their own."""
        return self.out / "results" / self.name / "+".join(self.tasks)

    def write_config(self) -> None:
        """Write the YAML, unless it stands."""
        start = "deepy.py train" if self.engine == "neox" else "kisl train"
        lines = [
            f"# {self.name}: N = {self.params:,}, D = {self.tokens:,}, C = 6·N·D = {self.flops:.3g}.",
            f"# Written by `kisl sweep`, which runs: {start} {self.config}",
            "{",
            *(f"  {json.dumps(key)}: {grid.as_yaml(value)}," for key, value in self.values.items()),
            "}\n",
        ]
        text = "\n".join(lines)
        if not self.config.is_file() or self.config.read_text(encoding="utf-8") != text:
            self.config.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config, text)


@dataclass(frozen=True)
class Sweep:
    """All runs of a file. `gpus`: of each run on one machine; None for all of them (neox) or one."""

    where: str
    out: Path
    engine: str
    runs: tuple[SweepRun, ...]
    gpus: int | None = None

    def only(self, patterns: Sequence[str]) -> "Sweep":
        """The sweep of the runs whose name matches one of the patterns, as in a shell; without patterns the whole one.

        Raises:
            InputError: a pattern matches no run; the message lists some names.
        """
        for pattern in patterns:
            if not any(fnmatchcase(run.name, pattern) for run in self.runs):
                names = [run.name for run in self.runs[:_NAMES_IN_ERROR]]
                names += ["…"] if len(self.runs) > _NAMES_IN_ERROR else []
                raise InputError(
                    f"{self.where}: --only {pattern!r} matches none of its {len(self.runs)} runs; expected a name, or "
                    f"a pattern such as '*_f200_*'. The names: {', '.join(names)}"
                )
        chosen = (run for run in self.runs if any(fnmatchcase(run.name, pattern) for pattern in patterns))
        return replace(self, runs=tuple(chosen)) if patterns else self


def read_sweep(source: Path | str | Mapping[str, Any], out: Path = Path()) -> Sweep:
    """Read a sweep from its file, or from a mapping with the file's keys. Everything that it makes is below `out`.

    Raises:
        InputError: a key is unknown or its value wrong, a model cannot be made, or the triples cannot be read.
    """
    if isinstance(source, Mapping):
        file = _File("the sweep", source)
    else:
        file = _File(str(source), read_yamls([Path(source)]).values)
    for key in file.values:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS, f"expected one of {', '.join(_KEYS)}")
            raise InputError(f"{file.where}: {key} is unknown; {hint}")
    engine = file.value("engine", "neox", lambda v: isinstance(v, str), "neox or local")
    if engine not in ("neox", "local"):
        from kisl_plugin.hookspecs import manager

        if manager().hook.kisl_engine(name=engine) is None:
            raise InputError(f"{file.where}: engine is {engine!r}; expected neox, local, or one that a plugin adds")
    models = file.list_of("models", (), lambda v: isinstance(v, str) and bool(v), "names or YAMLs")
    labels = [Path(model).stem if _is_own_yaml(model) else model for model in models]
    budgets = [float(tokens) for tokens in file.list_of("tokens", [0], _is_count, "numbers above 0")]
    seeds = file.list_of("seed", [grid.SEED], is_whole, "whole numbers")
    # Sections of models that are left out for now do no harm.
    names = [*labels, *(model.name for model in (*llama.MODELS, *llama.TINY_MODELS))]
    data_path = file.value("data_path", None, lambda v: isinstance(v, str) and bool(v), "a path")
    tasks = file.list_of("tasks", ["kisl"], lambda v: isinstance(v, str) and bool(v), "names of tasks")
    tasks = list(dict.fromkeys(name.strip() for text in tasks for name in text.split(",")))
    overrides = file.value("overrides", {}, lambda v: isinstance(v, Mapping), "keys of GPT-NeoX and values")
    slurm = file.value("slurm", {}, lambda v: isinstance(v, Mapping), "options and values")
    sections = {key: file.alternatives(key) for key in _SECTION_KEYS if file.values.get(key) is not None}
    # What the names of the runs tell apart, besides model, tokens, frequency and seed.
    varied = [key for key, options in sections.items() if len(options) > 1 and key != "frequency"]

    inputs = _Inputs()
    runs: dict[str, SweepRun] = {}
    for model, label in zip(models, labels, strict=True):
        yamls, frequencies = _base(model, file.where)
        base = _override(yamls, _of_model(overrides, label, names), f"{file.where}: overrides")
        options = sections if "frequency" in sections or not frequencies else {**sections, "frequency": frequencies}
        for budget, seed, *choice in product(budgets, seeds, *options.values()):
            section = {**(base.get("kisl") or {}), **dict(zip(options, choice, strict=True)), "seed": seed}
            values = {**base, "kisl": section, "seed": seed}
            values |= {} if data_path is None else {"data_path": data_path}
            tokens, params = _size(values, budget, label, inputs, file.where)
            data, digest = _identity(values, engine, inputs, file.where)
            frequency = section["frequency"]
            each = frequency.values() if isinstance(frequency, Mapping) else [frequency]
            parts = [label, *([grid.short_count(budget)] if budget else []), f"f{'-'.join(map(str, each))}"]
            parts += [*(_slug(section[key]) for key in varied), f"s{seed}", digest]
            name = "_".join(parts)
            if name in runs:
                raise InputError(f"{file.where}: the run {name} is in it twice; leave out what is listed twice")
            values |= {"save": str(out / "runs" / name), "load": str(out / "runs" / name)}
            job = _of_model(slurm, label, names)
            runs[name] = SweepRun(name, label, engine, tuple(tasks), values, params, tokens, data, out, job)
    gpus = file.value("gpus", None, lambda v: is_whole(v, 1), "a whole number, 1 or more")
    return Sweep(file.where, out, engine, tuple(runs.values()), gpus)


# ---- the values of the file


@dataclass(frozen=True)
class _File:
    where: str
    values: Mapping[str, Any]

    def value(self, key: str, default: Any, accepts: Callable[[Any], bool], expected: str) -> Any:
        value = self.values.get(key)
        if value is not None and not accepts(value):
            raise InputError(f"{self.where}: {key} is {value!r}; expected {expected}")
        return default if value is None else value

    def list_of(self, key: str, default: Sequence[Any], accepts: Callable[[Any], bool], expected: str) -> list[Any]:
        """One value or a list of values, as a list of one or more."""
        value = self.values.get(key)
        if value is None and default:
            return list(default)
        values = value if isinstance(value, list) else [value]
        if not values or not all(map(accepts, values)):
            raise InputError(f"{self.where}: {key} is {value!r}; expected {expected}, one or a list")
        return values

    def alternatives(self, key: str) -> list[Any]:
        """The values of a key of the kisl section. A list that is one value by itself (template: [0, 1]) is one."""
        value = self.values[key]

        def check(one: Any) -> None:
            read_settings({"triples": "-", "frequency": 0, key: one}, self.where, 0)

        try:
            check(value)
        except InputError:
            if not isinstance(value, list) or not value:
                raise
            for one in value:
                check(one)
            return value
        return [value]


def _is_count(value: Any) -> bool:
    # To YAML 1.1, 58e9 is text.
    try:
        return not isinstance(value, bool) and 0 < float(value) < inf
    except (TypeError, ValueError):
        return False


def _of_model(section: Mapping[str, Any], label: str, names: Sequence[str]) -> dict[str, Any]:
    """What a section says for one model: a key that is a model's name holds what differs for that model."""
    return {**{key: value for key, value in section.items() if key not in names}, **(section.get(label) or {})}


def _override(base: Yamls, overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The YAML's values with other ones."""
    changes: dict[str, Any] = {}
    for key, value in overrides.items():
        own = str(key).replace("-", "_").split(".")[0]
        if own in _OWN_KEYS:
            raise InputError(f"{where}.{key}: the sweep fills it in; give it as {_OWN_KEYS[own]}")
        if key == "micro_batch":
            changes |= {"train_micro_batch_size_per_gpu": value, "gradient_accumulation_steps": None}
        else:
            changes[str(key)] = value
    return dict(base.override(changes, where).values)


# ---- the runs


def _is_own_yaml(model: str) -> bool:
    return model.endswith((".yml", ".yaml")) or "/" in model


def _base(model: str, where: str) -> tuple[Yamls, list[int]]:
    """The YAML of a model before the sweep changes it, and the frequencies of its grid (none for a user's own)."""
    if _is_own_yaml(model):
        return read_yamls([Path(model)]), []
    try:
        run = grid.grid_of([model])[0]
    except InputError as error:
        raise InputError(f"{where}: {error}, or a YAML of your own") from None
    return Yamls(yaml.safe_load(grid.yaml_of(run))), list(run.training.frequencies)


def _size(values: dict[str, Any], budget: float, label: str, inputs: "_Inputs", where: str) -> tuple[int, int]:
    """D and N of a run. `train_iters` is set so that D is as near to the budget as whole steps come (0: it stays)."""
    try:
        step = _batch(values) * values["seq_length"]
        if budget:
            values["train_iters"] = round(budget / step)
        tokens = values["train_iters"] * step
        shape = llama.LlamaShape(
            layers=values["num_layers"],
            hidden=values["hidden_size"],
            heads=values["num_attention_heads"],
            inner=swiglu_width(values),
            vocabulary=padded_vocabulary(inputs.vocabulary(values.get("vocab_file")), values),
        )
        params = shape.parameters - (0 if values.get("no_weight_tying") else shape.vocabulary * shape.hidden)
    except KeyError as error:
        raise InputError(f"{where}: the YAML of {label} has no {error.args[0]}") from None
    except (TypeError, ZeroDivisionError):
        raise InputError(f"{where}: the YAML of {label}: a size that is no whole number above 0") from None
    if tokens < 1:
        raise InputError(f"{where}: tokens {budget:,.0f}: a step of {label} has {step:,}; expected that or more")
    return tokens, params


def _batch(values: Mapping[str, Any]) -> int:
    whole = values.get("train_batch_size")
    steps = values.get("gradient_accumulation_steps") or 1
    return int(whole if whole else values["train_micro_batch_size_per_gpu"] * steps)


def _identity(
    values: Mapping[str, Any], engine: str, inputs: "_Inputs", where: str
) -> tuple[dict[str, str | None], str]:
    """The fingerprints of a run's data, and a short hash of everything that decides its result."""
    settings = read_settings(values["kisl"], where, values["seed"])
    data = {"corpus": inputs.corpus(values.get("data_path")), "tokenizer": inputs.file(values.get("vocab_file"))}
    decisive = {key: value for key, value in values.items() if key not in ROUNDING_KEYS}
    decisive |= {
        "engine": engine,
        "train_batch_size": _batch(values),
        "kisl": {**asdict(settings), "triples": inputs.triples(settings.triples)},
        # What is missing counts by its path until it is there.
        "data_path": data["corpus"] or values.get("data_path"),
        "vocab_file": data["tokenizer"] or values.get("vocab_file"),
    }
    return data, sha256(json.dumps(decisive, sort_keys=True, default=str))[:6]


def _slug(value: Any) -> str:
    """A value as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", Path(value).stem if isinstance(value, str) else str(value)).strip("-")


class _Inputs:
    """The content of input files, each read once for all runs; None for what is missing."""

    def __init__(self) -> None:
        def corpus(prefix: str | None) -> str | None:
            if prefix is None or not all(file_of(Path(prefix), ending).is_file() for ending in (".bin", ".idx")):
                return None
            return IndexedDataset(Path(prefix)).fingerprint()

        self.corpus: Callable[[str | None], str | None] = cache(corpus)
        self.file: Callable[[str | None], str | None] = cache(
            lambda file: sha256_of_files(file) if file and Path(file).is_file() else None
        )
        self.triples: Callable[[str], str] = cache(lambda source: sha256(triples_to_jsonl(read_triples(source))))
        self.vocabulary: Callable[[str | None], int] = cache(vocabulary_of)


def vocabulary_of(file: str | None) -> int:
    """How many tokens a tokenizer.json has; where there is none yet, the number of the grid's or the demo's."""
    try:
        tokenizer = json.loads(Path(str(file)).read_text(encoding="utf-8"))
        return len({*tokenizer["model"]["vocab"], *(token["content"] for token in tokenizer.get("added_tokens", ()))})
    except (OSError, ValueError, KeyError, TypeError):
        return llama.DEMO_VOCABULARY if file == grid.TINY.data["vocab"] else llama.VOCABULARY


def missing_inputs(sweep: Sweep) -> list[str]:
    """The files that the runs need and that are missing, each with the command that makes it."""
    return list(dict.fromkeys(line for run in sweep.runs for line in missing_files(run.values)))


def refuse_missing_inputs(sweep: Sweep) -> None:
    """Check that every file is there."""
    missing = missing_inputs(sweep)
    if missing:
        raise missing_files_error(sweep.where, missing)
