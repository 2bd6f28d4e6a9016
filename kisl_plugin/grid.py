"""The grid of YAMLs: how its models are trained, which runs that makes, and a run's YAML as text.

neox_configs/README.md shows the grid and gives the reasons for the settings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.plan import InjectionSettings
from kisl_plugin.sizes import MODELS, TINY_MODELS, Model

__all__ = [
    "GRID",
    "SEED",
    "TINY",
    "Facts",
    "Run",
    "Series",
    "Training",
    "all_runs",
    "listing",
    "percent",
    "write_grid",
    "yaml_of",
]

SEED = 1234


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is injected. `count` triples of `tokens` tokens a statement (on average): the injected share follows."""

    source: str
    count: int
    tokens: float
    template: int | tuple[int, ...]
    form: str = "statement"
    spacing: str = "shuffled"
    window: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every model of a family is trained.

    `batch` is in rows, over all GPUs; `warmup` is a share of the run; `budget` is D, the tokens of a run.
    """

    frequencies: tuple[int, ...]
    budget: float
    seq_length: int
    batch: int
    lr: float
    min_lr: float
    warmup: float
    facts: Facts
    vocab_file: str
    data_path: str
    split: str
    checkpoint_factor: int
    log_interval: int
    eval_iters: int
    attention: str
    machine: Mapping[str, Any]


GRID = Training(
    frequencies=(0, 10, 50, 100, 200, 500, 1000, 2000, 5000),
    budget=58e9,
    seq_length=2048,
    batch=512,
    lr=3e-4,
    min_lr=3e-5,
    warmup=0.01,
    # 48.2 characters a statement; 3.5 characters a token, names being rarer than words.
    facts=Facts(source="wikidata_six", count=2581, tokens=48.2 / 3.5, template=0),
    vocab_file="data/tokenizer.json",
    data_path="data/fineweb_edu_text_document",
    split="999, 1, 0",
    checkpoint_factor=1000,
    log_interval=10,
    eval_iters=10,
    attention="flash",
    # One GPU or many: bfloat16 gradients are summed in fp32, so that a run does not depend on how many GPUs share a
    # batch. ZeRO-1 divides the optimizer's state. No pipeline (0): GPT-NeoX's evaluation fails with one.
    machine={
        "pipe_parallel_size": 0,
        "model_parallel_size": 1,
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

# The demo's learning rate, batch, rows and facts, in fewer steps: a minute of GPT-NeoX on two cores.
TINY = Training(
    frequencies=(0, 10, 20, 30, 40),
    budget=262_144,
    seq_length=128,
    batch=8,
    lr=8e-3,
    min_lr=8e-4,
    warmup=0.05,
    # As in the run cards of `kisl demo`.
    facts=Facts(source="kisl-demo/data/facts.jsonl", count=198, tokens=22.36, template=(0, 1, 2, 3, 4)),
    vocab_file="kisl-demo/data/tokenizer.json",
    data_path="kisl-demo/data/text_document",
    split="95, 5, 0",
    checkpoint_factor=100,
    log_interval=20,
    eval_iters=8,
    attention="global",
    # No CUDA: fp32, gloo, and none of the kernels that GPT-NeoX compiles.
    machine={
        "pipe_parallel_size": 0,
        "model_parallel_size": 1,
        "precision": "fp32",
        "zero_optimization": {"stage": 0},
        "distributed_backend": "gloo",
        "num_workers": 0,
        **dict.fromkeys(
            (
                "scaled_upper_triang_masked_softmax_fusion",
                "scaled_masked_softmax_fusion",
                "bias_gelu_fusion",
                "bias_dropout_fusion",
                "rope_fusion",
                "layernorm_fusion",
                "rmsnorm_fusion",
            ),
            False,
        ),
    },
)


@dataclass(frozen=True)
class Series:
    """The runs of one collapse curve: one model at one token budget."""

    name: str
    model: Model
    training: Training
    budget: float

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
    def runs(self) -> tuple["Run", ...]:
        """One run for each frequency, rising."""
        return tuple(Run(self, frequency) for frequency in self.training.frequencies)


@dataclass(frozen=True)
class Run:
    """One YAML."""

    series: Series
    frequency: int

    @property
    def name(self) -> str:
        """The file's name without `.yml`."""
        return f"{self.series.name}_f{self.frequency}"

    @property
    def injected_fraction(self) -> float:
        """The share of statements among the tokens, by the mean length of a statement; exact in the run card."""
        facts = self.series.training.facts
        return facts.count * facts.tokens * self.frequency / self.series.tokens


def all_series() -> tuple[Series, ...]:
    """The grid, each model's other budgets after it, then the tiny ones."""
    series = []
    for model in MODELS:
        series.append(Series(model.name, model, GRID, GRID.budget))
        for budget in BUDGETS.get(model.name, ()):
            series.append(Series(f"{model.name}_{budget / 1e9:.0f}b", model, GRID, budget))
    return (*series, *(Series(model.name, model, TINY, TINY.budget) for model in TINY_MODELS))


def all_runs() -> tuple[Run, ...]:
    """Every run, series by series, F rising."""
    return tuple(run for series in all_series() for run in series.runs)


_FOLDER = "neox_configs"
_WRITTEN = ("Written by `kisl configs write`; README.md in this folder has the grid and the reasons.",)


def yaml_of(run: Run, folder: str = _FOLDER, written: Sequence[str] = _WRITTEN) -> str:
    """The text of a run's YAML in `folder`, in the JSON-like style of GPT-NeoX's own files.

    A header says what the run is, how it is started and what it needs, and why it was `written` (one line each).
    """
    series, model, training = run.series, run.series.model, run.series.training
    shape, facts, file = model.shape, training.facts, f"{folder}/{run.name}.yml"
    often = "once" if run.frequency == 1 else f"{run.frequency:,} times"
    injected = (
        f"F = {run.frequency}: each of {facts.count:,} triples is stated {often}, "
        f"{percent(run.injected_fraction)} of the tokens"
    )
    start, needs = f"deepy.py train {file}", "kisl demo --only-data"
    batch = f'"train_batch_size": {training.batch},'
    if model.micro_batch:
        needs = f"{training.vocab_file} (kisl corpus tokenizer) and {training.data_path}.bin, .idx (kisl corpus build)"
        most = training.batch // model.micro_batch
        batch += f"""
  "train_micro_batch_size_per_gpu": {model.micro_batch}, # memory and speed only; lower it on a smaller GPU
  "gradient_accumulation_steps": null, # follows from the number of GPUs, at most {most}"""
    else:
        start += f", or with the embedded engine: kisl train {file}"
    header = [
        f"{run.name} · {injected if run.frequency else 'F = 0: the baseline, nothing is injected'}.",
        f"N = {shape.parameters:,} parameters, {shape.parameters_non_embedding:,} without embeddings. "
        f"D = {series.tokens:,} tokens. C = 6·N·D = {series.compute:.3g}.",
        f"Run:   {start}",
        f"Needs: {needs}",
        *written,
    ]
    injection = InjectionSettings(
        triples=facts.source, frequency=run.frequency, form=facts.form, template=facts.template,
        spacing=facts.spacing, seed=SEED, window=facts.window,
    )  # fmt: skip
    machine = {
        **training.machine,
        "model_parallel_size": model.model_parallel,
        "checkpoint_activations": model.recompute,
        "checkpoint_num_layers": 1,
    }
    comment = "\n".join(f"# {line}" for line in header)
    multiple = max(1, 128 // model.model_parallel)  # GPT-NeoX multiplies it by model_parallel_size
    return f"""{comment}
{{
  # What is injected
  "kisl": {_as_yaml(asdict(injection))},

  # Model: Llama-2's shape
  "num_layers": {shape.layers},
  "hidden_size": {shape.hidden},
  "num_attention_heads": {shape.heads}, # of size {shape.hidden // shape.heads}
  "intermediate_size": {shape.intermediate_size}, # swiglu: the true inner width is a third, {shape.inner:,}
  "seq_length": {training.seq_length},
  "max_position_embeddings": {training.seq_length},
  "norm": "rmsnorm",
  "rms_norm_epsilon": 1.0e-05,
  "pos_emb": "rotary",
  "rotary_pct": 1,
  "activation": "swiglu",
  "no_weight_tying": true,
  "gpt_j_residual": false,
  "use_bias_in_attn_linear": false,
  "use_bias_in_mlp": false,
  "use_bias_in_norms": false,
  "output_layer_parallelism": "column",
  "make_vocab_size_divisible_by": {multiple}, # a vocabulary of {shape.vocabulary:,} is not padded
  "init_method": "small_init",
  "output_layer_init_method": "wang_init",
  "attention_config": [[["{training.attention}"], {shape.layers}]],

  # Training: the same for every size
  "optimizer": {{"type": "Adam", "params": {{"lr": {_as_yaml(training.lr)}, "betas": [0.9, 0.95], "eps": 1.0e-08}}}},
  "lr_decay_style": "cosine",
  "min_lr": {_as_yaml(training.min_lr)},
  "warmup": {training.warmup},
  "weight_decay": 0.1,
  "gradient_clipping": 1.0,
  "deepspeed_extra_args": {{"gradient_clipping": 1.0}}, # without it DeepSpeed does not clip
  "hidden_dropout": 0,
  "attention_dropout": 0,
  "seed": {SEED},

  # Tokens
  "train_iters": {series.train_iters}, # × {training.batch} rows × {training.seq_length:,} = {series.tokens:,} tokens
  {batch}

  # Data
  "tokenizer_type": "HFTokenizer",
  "vocab_file": "{training.vocab_file}",
  "data_path": "{training.data_path}",
  "data_impl": "mmap",
  "split": "{training.split}",

  # Checkpoints (a second call resumes) and log
  "save": "checkpoints/{run.name}",
  "load": "checkpoints/{run.name}",
  "checkpoint_factor": {training.checkpoint_factor},
  "keep_last_n_checkpoints": 2,
  "log_interval": {training.log_interval},
  "steps_per_print": {training.log_interval},
  "eval_interval": 1000,
  "eval_iters": {training.eval_iters},

  # Machine
{_as_lines(machine, 2)},
}}
"""


def _as_yaml(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        # To YAML 1.1, 3e-05 without a point is text.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, Mapping):
        inline = ", ".join(f'"{key}": {_as_yaml(item)}' for key, item in value.items())
        return f"{{{inline}}}" if len(inline) < 100 else f"{{\n{_as_lines(value, 4)}\n  }}"
    return json.dumps(value, ensure_ascii=False)


def _as_lines(values: Mapping[str, Any], indent: int) -> str:
    return ",\n".join(f'{" " * indent}"{key}": {_as_yaml(value)}' for key, value in values.items())


def write_grid(folder: Path) -> tuple[int, int]:
    """Write the YAMLs into `folder`, replacing those of the same names; returns how many there are, how many changed.

    Raises:
        InputError: the folder cannot be written to.
    """
    changed = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for run in all_runs():
            path, text = folder / f"{run.name}.yml", yaml_of(run)
            if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
                write_atomically(path, text)
                changed += 1
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error}); choose another --out") from None
    return len(all_runs()), changed


_LEGEND = """\
N: parameters, all and without embeddings (w/o emb.)   D: tokens   C = 6·N·D
shape: layers·width·heads·inner width   F: how often each triple is stated
injected: share of the tokens, by the mean length of a statement"""


def listing() -> str:
    """One line a run for a terminal of 80 columns, the runs of one collapse curve together."""

    def count(value: float) -> str:
        size, unit = next(pair for pair in ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, "")) if value >= pair[0])
        return f"{value / size:#.4g}{unit}"

    def row(*cells: str) -> str:
        return "{:<15} {:>7} {:>8} {:>15} {:>4} {:>6} {:>7} {:>9}".format(*cells)

    blocks = [row("run", "N", "w/o emb.", "shape", "F", "D", "C", "injected")]
    for series in all_series():
        shape = series.model.shape
        same = (count(shape.parameters), count(shape.parameters_non_embedding),
                f"{shape.layers}·{shape.hidden}·{shape.heads}·{shape.inner}")  # fmt: skip
        budget = (count(series.tokens), f"{series.compute:.2e}".replace("e+", "e"))
        rows = [
            row(run.name, *same, str(run.frequency), *budget, percent(run.injected_fraction)) for run in series.runs
        ]
        blocks.append("\n".join(rows))
    return "\n\n".join([*blocks, _LEGEND])


def percent(fraction: float) -> str:
    """A share of the tokens to two digits."""
    return f"{float(f'{100 * fraction:.2g}'):.6g}%"
