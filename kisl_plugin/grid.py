"""The grid of YAMLs: the tables of model sizes and training settings, the runs they make, and a run's YAML as text.

Shapes and settings are decided here alone; neox_configs/README.md shows the grid and gives the reasons.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf, log, log2
from pathlib import Path
from typing import Any

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.neox_config import LlamaShape
from kisl_plugin.plan import InjectionSettings

__all__ = [
    "DEMO_VOCABULARY",
    "GRID",
    "SEED",
    "TINY",
    "VOCABULARY",
    "Facts",
    "Model",
    "Run",
    "Series",
    "Training",
    "all_runs",
    "listing",
    "model_of",
    "percent",
    "write_grid",
    "yaml_of",
]

SEED = 1234
VOCABULARY = 32_000  # Llama-2's
DEMO_VOCABULARY = 4_096  # of the tokenizer that `kisl demo` trains


@dataclass(frozen=True)
class Model:
    """A size of the grid. `nominal`: the parameters that the name promises; the shape is within 1 % of them.

    The last three affect memory and speed only: `micro_batch` rows are what one GPU processes at once (None: all of its
    share of the batch), `recompute` drops activations and computes them again in the backward pass, and
    `model_parallel` GPUs share each layer.
    """

    name: str
    nominal: float
    shape: LlamaShape
    micro_batch: int | None = None
    recompute: bool = False
    model_parallel: int = 1


def _llama(layers: int, hidden: int, heads: int, inner: int, vocabulary: int = VOCABULARY) -> LlamaShape:
    return LlamaShape(layers=layers, hidden=hidden, heads=heads, inner=inner, vocabulary=vocabulary)


# Head size 64 below 1B and 128 from there, as Pythia has it. The swiglu layers are some 2.7 to 2.8 times as wide as the
# model (Llama-2 7B: 2.69), in steps of 64 for the GPU's matrix units, so that the total comes close to the name.
# Micro batches are computed for GPUs of 80 GB, not tried (60 bytes per token, layer and unit of width without
# recomputing, 12 per logit, 20 per parameter), and divide the batch on up to 64 GPUs.
MODELS = (
    #              layers  hidden  heads  inner
    Model("137m", 137e6, _llama(12, 768, 12, 2176), micro_batch=8),
    Model("300m", 300e6, _llama(18, 1024, 16, 2880), micro_batch=8),
    Model("562m", 562e6, _llama(24, 1280, 20, 3520), micro_batch=8),
    Model("1b", 1.05e9, _llama(24, 1792, 14, 4864), micro_batch=4),
    Model("3b", 3.0e9, _llama(36, 2560, 20, 6848), micro_batch=4, recompute=True),
)
# Beyond the grid: Llama-2's own, except its 70B, which shares keys among heads.
LLAMA2 = (
    Model("llama2_7b", 6.74e9, _llama(32, 4096, 32, 11008)),
    Model("llama2_13b", 13.0e9, _llama(40, 5120, 40, 13824)),
)
# For a CPU: `tiny` is the demo's shape. Three sizes, the fewest that give an infusion law.
TINY_MODELS = (
    Model("tiny", 0.63e6, _llama(2, 64, 4, 192, DEMO_VOCABULARY)),
    Model("tiny_1m", 1.0e6, _llama(2, 96, 6, 256, DEMO_VOCABULARY)),
    Model("tiny_2m", 2.0e6, _llama(4, 128, 8, 448, DEMO_VOCABULARY)),
)


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
        "scaled_upper_triang_masked_softmax_fusion": False,
        "scaled_masked_softmax_fusion": False,
        "bias_gelu_fusion": False,
        "bias_dropout_fusion": False,
        "rope_fusion": False,
        "layernorm_fusion": False,
        "rmsnorm_fusion": False,
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


LARGEST_MODEL = 80e9  # 16 GPUs share a layer; more needs a pipeline
# What a parameter takes with ZeRO-1 on 8 GPUs or more, and what the parameters may take of a GPU's 80 GB.
BYTES_A_PARAMETER, BYTES_OF_A_GPU = 9.5, 50e9
_MOST_LAYERS = 160
_INNER_STEP, _INNER_RATIO = 64, 2.75  # of the inner width: its multiple, and its ratio to the width in the table
# Width / depth of the table's shapes and of Llama-2's 70B, by parameters without embeddings.
_PROPORTIONS = sorted(
    [
        *((float(m.shape.parameters_non_embedding), m.shape.hidden / m.shape.layers)
          for m in (*TINY_MODELS, *MODELS, *LLAMA2)),
        (68.5e9, 8192 / 80),
    ]
)  # fmt: skip


def model_of(params: int, vocabulary: int = VOCABULARY) -> Model:
    """A Llama of nearly N = `params` parameters: the table's own (within 1 %), Llama-2's (5 %), or one of their kind.

    Micro batch and recomputing are those of the next larger model of the table; from some 5B on, GPUs share layers.

    Raises:
        InputError: no shape comes within 3 %, or the model is too large to be trained without a pipeline.
    """
    if params > LARGEST_MODEL:
        raise InputError(
            f"params = {params:,}: YAMLs are made for at most {LARGEST_MODEL:.2g}; beyond, write one of your own"
        )
    # The smallest power of two of GPUs whose memory holds the parameters.
    parallel = int(2 ** max(0, ceil(log2(BYTES_A_PARAMETER * params / BYTES_OF_A_GPU))))

    tabled = [*((model.shape, 0.01) for model in (*TINY_MODELS, *MODELS)), *((model.shape, 0.05) for model in LLAMA2)]
    shape = next(
        (s for s, near in tabled if s.vocabulary == vocabulary and abs(s.parameters / params - 1) <= near),
        None,
    )
    shape = shape or _nearest_shape(params, vocabulary, parallel)
    like = next((model for model in MODELS if model.shape.parameters >= params), MODELS[-1])
    return replace(like, name=f"{params:.3g}", nominal=params, shape=shape, model_parallel=parallel)


def _nearest_shape(params: int, vocabulary: int, parallel: int) -> LlamaShape:
    """Of the depths and widths around the table's proportions, the shape that is closest to those and to `params`."""

    def width_to_depth(parameters: float) -> float:
        sizes, ratios = zip(*_PROPORTIONS, strict=True)
        return float(np.exp(np.interp(log(parameters), np.log(sizes), np.log(ratios))))

    head_size = 16 if params < 10e6 else 64 if params < 1e9 else 128
    best, least = None, inf
    for layers in range(2, _MOST_LAYERS + 1):
        widest = max(1, int(3 * width_to_depth(params) * layers / (head_size * parallel)))
        for heads in range(parallel, widest * parallel + 1, parallel):
            bare = _llama(layers, heads * head_size, heads, 0, vocabulary)
            inner = _INNER_STEP * round((params - bare.parameters) / (3 * layers * bare.hidden) / _INNER_STEP)
            if not 2 <= inner / bare.hidden <= 4:
                continue
            shape = replace(bare, inner=inner)
            # Squared distances in units of what is acceptable: 1 % in size, 30 % and 5 % in the two proportions.
            proportion = width_to_depth(shape.parameters_non_embedding)
            penalty = (
                (log(shape.parameters / params) / 0.01) ** 2
                + (log(shape.hidden / shape.layers / proportion) / 0.3) ** 2
                + (log(inner / shape.hidden / _INNER_RATIO) / 0.05) ** 2
            )
            if penalty < least:
                best, least = shape, penalty
    if best is None or abs(best.parameters / params - 1) > 0.03:
        raise InputError(
            f"params = {params:,}: no Llama with a vocabulary of {vocabulary:,} is within 3 %; choose another size"
        )
    return best


FOLDER = "neox_configs"
_WRITTEN = ("Written by `kisl configs write`; README.md in this folder has the grid and the reasons.",)


def yaml_of(run: Run, folder: str = FOLDER, written: Sequence[str] = _WRITTEN) -> str:
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
