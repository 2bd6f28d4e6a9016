"""The grid of YAMLs: how the models are trained, which runs that makes, and a run's YAML as text.

neox_configs/README.md shows the grid and gives the reasons for the settings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, did_you_mean
from kisl_plugin.files import write_atomically
from kisl_plugin.llama import MODELS, TINY_MODELS, Model
from kisl_plugin.plan import InjectionSettings
from kisl_plugin.progress import percent
from kisl_plugin.triples import CONTROL, read_triples
from kisl_plugin.verbalize import verbalizer_of

__all__ = [
    "GRID",
    "SEED",
    "TINY",
    "Facts",
    "Run",
    "as_yaml",
    "grid_of",
    "listing",
    "short_count",
    "write_grid",
    "yaml_of",
]

SEED = 1234
CHARACTERS_A_TOKEN = 3.5  # of statements, names being rarer than words


@dataclass(frozen=True)
class Facts:
    """What is injected: the kisl section, but for F and seed; `count` triples of `tokens` tokens a statement (mean)."""

    section: InjectionSettings
    count: int
    tokens: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every model of a family is trained.

    `batch` is in rows, over all GPUs; `budget` is D, the tokens of a run. `schedule`, `data`, `log` and `machine` are
    values of the YAML's sections; warmup is a share of the run.
    """

    frequencies: tuple[int, ...]
    budget: float
    seq_length: int
    batch: int
    attention: str
    facts: Facts
    schedule: Mapping[str, float]
    data: Mapping[str, str]
    log: Mapping[str, int]
    machine: Mapping[str, Any]


GRID = Training(
    frequencies=(0, 10, 50, 100, 200, 500, 1000, 2000, 5000),
    budget=58e9,
    seq_length=2048,
    batch=512,
    attention="flash",
    # 48.2 characters a statement.
    facts=Facts(InjectionSettings(triples="wikidata_six", frequency=0), 2581, 48.2 / CHARACTERS_A_TOKEN),
    schedule={"lr": 3e-4, "min_lr": 3e-5, "warmup": 0.01},
    data={"vocab": "data/tokenizer.json", "path": "data/fineweb_edu_text_document", "split": "999, 1, 0"},
    log={"checkpoint_factor": 1000, "log_interval": 10, "eval_iters": 10},
    # One GPU or many: bfloat16 gradients are summed in fp32, so that a run does not depend on how many GPUs share a
    # batch. ZeRO-1 divides the optimizer's state. No YAML has a pipeline: GPT-NeoX's evaluation fails with one.
    machine={
        "precision": "bfloat16",
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {"stage": 1},
        "distributed_backend": "nccl",
        "num_workers": 2,
    },
)
# One model is also trained at the other budgets of the paper: how the collapse point moves with D.
BUDGETS = {"300m": (75e9, 100e9)}

# The demo's rows and facts, in fewer steps: a minute of GPT-NeoX on two cores.
TINY = Training(
    frequencies=(0, 10, 20, 30, 40),
    budget=262_144,
    seq_length=128,
    batch=8,
    attention="global",
    facts=Facts(
        InjectionSettings(triples="kisl-demo/data/facts.jsonl", frequency=0, template=(0, 1, 2, 3, 4)),
        198,
        10.42,  # as in the run cards of `kisl demo`
    ),
    schedule={"lr": 8e-3, "min_lr": 8e-4, "warmup": 0.05},
    data={"vocab": "kisl-demo/data/tokenizer.json", "path": "kisl-demo/data/text_document", "split": "99, 1, 0"},
    log={"checkpoint_factor": 100, "log_interval": 20, "eval_iters": 8},
    # No CUDA: fp32, gloo, and none of the kernels that GPT-NeoX compiles.
    machine={
        "precision": "fp32",
        "zero_optimization": {"stage": 0},
        "distributed_backend": "gloo",
        "num_workers": 0,
        **dict.fromkeys(
            "scaled_upper_triang_masked_softmax_fusion scaled_masked_softmax_fusion bias_gelu_fusion "
            "bias_dropout_fusion rope_fusion layernorm_fusion rmsnorm_fusion".split(),
            False,
        ),
    },
)


_FAMILIES = {
    model.name: (model, training) for models, training in ((MODELS, GRID), (TINY_MODELS, TINY)) for model in models
}


@dataclass(frozen=True)
class Run:
    """One YAML: a model at a token budget, with one F and one seed."""

    model: Model
    training: Training
    budget: float
    frequency: int
    seed: int = SEED

    @property
    def curve(self) -> str:
        """The name of its collapse curve: the model's, with the budget where it is not that of the family."""
        is_usual = self.budget == self.training.budget
        return self.model.name if is_usual else f"{self.model.name}_{short_count(self.budget)}"

    @property
    def name(self) -> str:
        """The file's name without `.yml`."""
        return f"{self.curve}_f{self.frequency}" + (f"_s{self.seed}" if self.seed != SEED else "")

    @property
    def train_iters(self) -> int:
        """Steps: as near to the budget as whole steps come."""
        return round(self.budget / (self.training.batch * self.training.seq_length))

    @property
    def tokens(self) -> int:
        """D = train_iters × batch × seq_length."""
        return self.train_iters * self.training.batch * self.training.seq_length

    @property
    def compute(self) -> float:
        """C = 6·N·D."""
        return 6.0 * self.model.shape.parameters * self.tokens

    @property
    def injected_fraction(self) -> float:
        """The share of statements among the tokens, by the mean length of a statement; exact in the run card."""
        facts = self.training.facts
        return facts.count * facts.tokens * self.frequency / self.tokens


def all_runs() -> tuple[Run, ...]:
    """The grid, curve by curve, each model's other budgets after it; then the tiny ones. F rises."""
    return tuple(
        Run(model, training, budget, frequency)
        for model, training in _FAMILIES.values()
        for budget in (training.budget, *BUDGETS.get(model.name, ()))
        for frequency in training.frequencies
    )


def short_count(value: float) -> str:
    """A number of tokens for a file's name: 75b, 300k; never with m, which would read as a model's size."""
    return f"{value / 1e9:.6g}b" if value >= 1e9 else f"{value / 1e3:.9g}k"


def grid_of(
    models: Sequence[str] = (),
    tokens: Sequence[float] = (),
    frequencies: Sequence[int] = (),
    seeds: Sequence[int] = (SEED,),
    triples: str | None = None,
    data_path: str | None = None,
) -> tuple[Run, ...]:
    """The runs of a grid of one's own: every model at every budget, frequency and seed.

    Models are those of the table; what is not given is as in the standard grid. `triples` replaces the facts (the first
    template of each relation is stated), `data_path` the corpus.

    Raises:
        InputError: a model is not in the table, a budget is below one step, or the triples cannot be read.
    """
    runs: list[Run] = []
    for name in models or [model.name for model in MODELS]:
        if name not in _FAMILIES:
            hint = did_you_mean(str(name), _FAMILIES, f"expected one of {', '.join(_FAMILIES)}")
            raise InputError(f"model {name!r} is unknown; {hint}")
        model, training = _FAMILIES[name]
        if triples is not None and triples != training.facts.section.triples:
            stated = [triple for triple in read_triples(triples) if triple.group != CONTROL]
            characters = sum(len(verbalizer_of("statement").text(triple, 0)) for triple in stated)
            mean = characters / CHARACTERS_A_TOKEN / max(1, len(stated))
            section = InjectionSettings(triples=triples, frequency=0)
            training = replace(training, facts=Facts(section, len(stated), mean))
        if data_path is not None:
            training = replace(training, data={**training.data, "path": data_path})
        for budget in tokens or [training.budget]:
            of_budget = [
                Run(model, training, float(budget), frequency, seed)
                for frequency in frequencies or training.frequencies
                for seed in seeds
            ]
            if of_budget[0].train_iters < 1:
                step = training.batch * training.seq_length
                raise InputError(f"tokens {budget:,.0f}: a step of {name} has {step:,}; expected that or more")
            runs += of_budget
    return tuple(runs)


_TEMPLATE = Path(__file__).parent / "data" / "neox_config.template"  # with the fields of str.format
_WRITTEN = "Written by `kisl configs write`; README.md in this folder has the grid and the reasons."
_OWN_GRID = ("Written by `kisl configs write` with options; neox_configs/README.md has the reasons of the settings.",)


def yaml_of(run: Run, folder: str = "neox_configs", written: Sequence[str] = (_WRITTEN,)) -> str:
    """The text of a run's YAML in `folder`, in the JSON-like style of GPT-NeoX's own files.

    A header says what the run is, how it is started and what it needs, and why it was `written` (one line each).
    """
    model, training = run.model, run.training
    shape, facts, file = model.shape, training.facts, f"{folder}/{run.name}.yml"
    often = "once" if run.frequency == 1 else f"{run.frequency:,} times"
    injected = f"each of {facts.count:,} triples is stated {often}, {percent(run.injected_fraction)} of the tokens"
    start, needs = f"deepy.py train {file}", "kisl demo --only-data"
    if training.data != TINY.data:
        needs = "{vocab} (kisl corpus tokenizer) and {path}.bin, .idx (kisl corpus build)".format(**training.data)
    batch = f'"train_batch_size": {training.batch},'
    if model.micro_batch:
        most = training.batch // model.micro_batch
        batch += f"""
  "train_micro_batch_size_per_gpu": {model.micro_batch}, # memory and speed only; lower it on a smaller GPU
  "gradient_accumulation_steps": null, # follows from the number of GPUs, at most {most}"""
    else:
        start += f", or with the embedded engine: kisl train {file}"
    return _TEMPLATE.read_text(encoding="utf-8").format(
        run=run,
        shape=shape,
        training=training,
        injected=injected if run.frequency else "the baseline, nothing is injected",
        start=start,
        needs=needs,
        written="\n".join(f"# {line}" for line in written),
        kisl=as_yaml(asdict(replace(facts.section, frequency=run.frequency, seed=run.seed))),
        head_size=shape.hidden // shape.heads,
        intermediate=3 * shape.inner,  # with mlp_multiple_of 1: see `swiglu_width`
        multiple=max(1, 128 // model.model_parallel),  # GPT-NeoX multiplies it by model_parallel_size
        lr=as_yaml(training.schedule["lr"]),
        min_lr=as_yaml(training.schedule["min_lr"]),
        seed=run.seed,
        batch=batch,
        model_parallel=model.model_parallel,
        machine="\n".join(f'  "{key}": {as_yaml(value)},' for key, value in training.machine.items()),
        recompute=as_yaml(model.recompute),
    )


def as_yaml(value: Any) -> str:
    """A value in the JSON-like style of GPT-NeoX's files."""
    if isinstance(value, float):
        text = repr(value)
        # To YAML 1.1, 3e-05 without a point is text.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, Mapping):
        items = [f'"{key}": {as_yaml(item)}' for key, item in value.items()]
        inline, separator = ", ".join(items), ",\n    "
        return f"{{{inline}}}" if len(inline) < 100 else f"{{\n    {separator.join(items)}\n  }}"
    return json.dumps(value, ensure_ascii=False)


def write_grid(folder: Path, runs: Sequence[Run] = ()) -> tuple[int, int]:
    """Write YAMLs into `folder`, replacing those of the same names; returns how many there are, how many changed.

    Those of the standard grid, or of `runs`.

    Raises:
        InputError: two runs have one name, or the folder cannot be written to.
    """
    texts: dict[str, str] = {}
    for run in runs or all_runs():
        if run.name in texts:
            raise InputError(f"{run.name} is in the grid twice; leave one")
        texts[run.name] = yaml_of(run, folder.as_posix(), _OWN_GRID) if runs else yaml_of(run)
    changed = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / f"{name}.yml"
            if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
                write_atomically(path, text)
                changed += 1
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error}); choose another --out") from None
    return len(texts), changed


_LEGEND = """\
N: parameters, all and without embeddings (w/o emb.)   D: tokens   C = 6·N·D
shape: layers·width·heads·inner width   F: how often each triple is stated
injected: share of the tokens, by the mean length of a statement"""


def listing() -> str:
    """One line a run for a terminal of 80 columns, the runs of one collapse curve together."""

    def count(value: float) -> str:
        size, unit = next(pair for pair in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if value >= pair[0])
        return f"{value / size:#.4g}{unit}"

    row = "{:<15} {:>7} {:>8} {:>15} {:>4} {:>6} {:>7} {:>9}".format
    lines = [row("run", "N", "w/o emb.", "shape", "F", "D", "C", "injected")]
    for _, runs in groupby(all_runs(), key=lambda run: run.curve):
        lines.append("")
        for run in runs:
            shape = run.model.shape
            sizes = count(shape.parameters), count(shape.parameters_non_embedding)
            layout = f"{shape.layers}·{shape.hidden}·{shape.heads}·{shape.inner}"
            budget = count(run.tokens), f"{run.compute:.2e}".replace("e+", "e")
            lines.append(row(run.name, *sizes, layout, str(run.frequency), *budget, percent(run.injected_fraction)))
    return "\n".join([*lines, "", _LEGEND])
