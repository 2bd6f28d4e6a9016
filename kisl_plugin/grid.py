"""The runs of the grid: model × token budget × frequency."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from kisl_plugin.errors import InputError
from kisl_plugin.files import write_atomically
from kisl_plugin.neox_config import LlamaShape
from kisl_plugin.plan import InjectionSettings

# The one table of model shapes.

VOCABULARY = 32_000  # Llama-2's
DEMO_VOCABULARY = 4_096  # of the tokenizer that `kisl demo` trains


@dataclass(frozen=True)
class Model:
    """A size of the grid. `nominal`: the parameters that the name promises; the shape is within 1 % of them.

    The last three decide nothing but memory and speed: `micro_batch` rows are what one GPU takes at once (None: all
    that its share of the batch holds), `recompute` drops activations and computes them again in the backward pass,
    and `model_parallel` GPUs share each layer.
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
# Micro batches are for GPUs of 80 GB by reckoning, not by trial (60 bytes per token, layer and unit of width without
# recomputing, 12 per logit, 20 per parameter), and divide the batch on up to 64 GPUs.
MODELS = (
    #              layers  hidden  heads  inner
    Model("137m", 137e6, _llama(12, 768, 12, 2176), micro_batch=8),
    Model("300m", 300e6, _llama(18, 1024, 16, 2880), micro_batch=8),
    Model("562m", 562e6, _llama(24, 1280, 20, 3520), micro_batch=8),
    Model("1b", 1.05e9, _llama(24, 1792, 14, 4864), micro_batch=4),
    Model("3b", 3.0e9, _llama(36, 2560, 20, 6848), micro_batch=4, recompute=True),
)

# Beyond the grid: Llama-2's own, all but its 70B, which shares keys among heads as no other does.
LLAMA2 = (
    Model("llama2_7b", 6.74e9, _llama(32, 4096, 32, 11008)),
    Model("llama2_13b", 13.0e9, _llama(40, 5120, 40, 13824)),
)

# For a CPU: `tiny` is the demo's shape. Three sizes, which is what an infusion law takes.
TINY_MODELS = (
    Model("tiny", 0.63e6, _llama(2, 64, 4, 192, DEMO_VOCABULARY)),
    Model("tiny_1m", 1.0e6, _llama(2, 96, 6, 256, DEMO_VOCABULARY)),
    Model("tiny_2m", 2.0e6, _llama(4, 128, 8, 448, DEMO_VOCABULARY)),
)


# The one table of training settings, the same for every size; `choices` says why each is what it is.


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
    clipping: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    seed: int
    facts: Facts
    vocab_file: str
    data_path: str
    split: str
    checkpoint_factor: int
    log_interval: int
    eval_iters: int
    attention: str
    machine: Mapping[str, Any]


# One GPU or many: bfloat16 gradients are summed in fp32, so that a run does not depend on how many GPUs share a batch.
# ZeRO-1 shares out the optimizer's state. No pipeline (0): upstream's evaluation fails with one.
_GPU = {
    "pipe_parallel_size": 0,
    "model_parallel_size": 1,
    "precision": "bfloat16",
    "bf16": {"enabled": True},
    "data_types": {"grad_accum_dtype": "fp32"},
    "zero_optimization": {"stage": 1},
    "distributed_backend": "nccl",
    "num_workers": 2,
}

# No CUDA: fp32, gloo, and none of the kernels that GPT-NeoX compiles.
_CPU = {
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
}

GRID = Training(
    frequencies=(0, 10, 50, 100, 200, 500, 1000, 2000, 5000),
    budget=58e9,
    seq_length=2048,
    batch=512,
    lr=3e-4,
    min_lr=3e-5,
    warmup=0.01,
    clipping=1.0,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    eps=1e-8,
    seed=1234,
    # 48.2 characters a statement; 3.5 characters a token, names being rarer than words.
    facts=Facts(source="wikidata_six", count=2581, tokens=48.2 / 3.5, template=0),
    vocab_file="data/tokenizer.json",
    data_path="data/fineweb_edu_text_document",
    split="999, 1, 0",
    checkpoint_factor=1000,
    log_interval=10,
    eval_iters=10,
    attention="flash",
    machine=_GPU,
)

# At these sizes one model is trained at the other budgets too: how the collapse point moves with D.
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
    clipping=1.0,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    eps=1e-8,
    seed=1234,
    # As the run cards of `kisl demo` say.
    facts=Facts(source="kisl-demo/data/facts.jsonl", count=198, tokens=22.36, template=(0, 1, 2, 3, 4)),
    vocab_file="kisl-demo/data/tokenizer.json",
    data_path="kisl-demo/data/text_document",
    split="95, 5, 0",
    checkpoint_factor=100,
    log_interval=20,
    eval_iters=8,
    attention="global",
    machine=_CPU,
)


# A model of a size that is not in the table: a shape of the table's proportions with nearly as many parameters.

NEAR, NEAR_LLAMA2 = 0.01, 0.05  # as the table's are to their names; and "7B" means Llama-2's 6.74B
FURTHEST = 0.03
LARGEST = 80e9  # 16 GPUs share a layer; more takes a pipeline
MOST_LAYERS = 160
STEP = 64  # of the inner width, for the GPU's matrix units
INNER = 2.75  # inner width to width, in the middle of the table's
# Width to depth in the table and in Llama-2's 70B, by parameters without embeddings.
_SHAPES = [model.shape for model in (*TINY_MODELS, *MODELS, *LLAMA2)]
_PROPORTIONS = sorted(
    [(float(s.parameters_non_embedding), s.hidden / s.layers) for s in _SHAPES] + [(68.5e9, 8192 / 80)]
)
# What a parameter takes with ZeRO-1 on 8 GPUs or more, and what the parameters may take of a GPU's 80 GB.
BYTES_A_PARAMETER, BYTES_OF_A_GPU = 9.5, 50e9


def model_of(params: int, vocabulary: int = VOCABULARY) -> Model:
    """A Llama of nearly N = `params` parameters: the table's own, Llama-2's, or one of their proportions.

    It is fitted into memory as the next larger one of the table is; from some 5B on, GPUs share layers.

    Raises:
        InputError: no shape comes within a few per cent, or it is too large to be trained without a pipeline.
    """
    if params > LARGEST:
        raise InputError(
            f"params = {params:,}: YAMLs are made for at most {LARGEST:.2g}; beyond, write one of your own"
        )
    parallel = _model_parallel(params)
    known = _known(params, vocabulary)
    shape = known.shape if known else _nearest(params, vocabulary, parallel)
    like = next((model for model in MODELS if model.shape.parameters >= params), MODELS[-1])
    return replace(like, name=f"{params:.3g}", nominal=params, shape=shape, model_parallel=parallel)


def _known(params: int, vocabulary: int) -> Model | None:
    limits = [*((model, NEAR) for model in (*TINY_MODELS, *MODELS)), *((model, NEAR_LLAMA2) for model in LLAMA2)]
    fitting = (m for m, near in limits if m.shape.vocabulary == vocabulary and _off(m.shape, params) <= near)
    return next(fitting, None)


def _off(shape: LlamaShape, params: int) -> float:
    return abs(shape.parameters / params - 1)


def _model_parallel(params: int) -> int:
    """How many GPUs must share a layer: a power of two."""
    shared = BYTES_A_PARAMETER * params / BYTES_OF_A_GPU
    return int(2 ** max(0, np.ceil(np.log2(shared))))


def _nearest(params: int, vocabulary: int, parallel: int) -> LlamaShape:
    best = min(_shapes(params, vocabulary, parallel), key=lambda shape: _strangeness(shape, params), default=None)
    if best is None or _off(best, params) > FURTHEST:
        raise InputError(
            f"params = {params:,}: no Llama with a vocabulary of {vocabulary:,} comes within {FURTHEST:.0%} of it; "
            "ask for another size"
        )
    return best


def _shapes(params: int, vocabulary: int, parallel: int) -> Iterator[LlamaShape]:
    """Depths and widths around the table's proportions, each with the inner width that comes nearest to `params`."""
    size = 16 if params < 10e6 else 64 if params < 1e9 else 128
    step, proportion = size * parallel, _proportion(params)
    for layers in range(2, MOST_LAYERS + 1):
        widest = max(1, int(3 * proportion * layers / step))
        for heads in range(parallel, widest * parallel + 1, parallel):
            bare = LlamaShape(layers=layers, hidden=heads * size, heads=heads, inner=0, vocabulary=vocabulary)
            inner = STEP * round((params - bare.parameters) / (3 * layers * bare.hidden) / STEP)
            if 2 <= inner / bare.hidden <= 4:
                yield replace(bare, inner=inner)


def _strangeness(shape: LlamaShape, params: int) -> float:
    """How far a shape is from what was asked (in per cents) and from the table's proportions."""
    wanted = _proportion(shape.parameters_non_embedding)
    return float(
        (log(shape.parameters / params) / 0.01) ** 2
        + (log(shape.hidden / shape.layers / wanted) / 0.3) ** 2
        + (log(shape.inner / shape.hidden / INNER) / 0.05) ** 2
    )


def _proportion(params: float) -> float:
    sizes, proportions = zip(*_PROPORTIONS, strict=True)
    return float(np.exp(np.interp(log(params), np.log(sizes), np.log(proportions))))


# The runs of the grid: model × token budget × frequency.


@dataclass(frozen=True)
class Series:
    """The runs that one collapse curve takes: one model at one token budget."""

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
        """One run for each frequency."""
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
        """The share of the tokens that are statements, by the mean length of a statement; the run card says exactly."""
        facts = self.series.training.facts
        return facts.count * facts.tokens * self.frequency / self.series.tokens


def all_series() -> tuple[Series, ...]:
    """The grid, then each model's other budgets beside it, then the tiny ones."""
    found = []
    for model in MODELS:
        found.append(Series(model.name, model, GRID, GRID.budget))
        for budget in BUDGETS.get(model.name, ()):
            found.append(Series(f"{model.name}_{budget / 1e9:.0f}b", model, GRID, budget))
    found += [Series(model.name, model, TINY, TINY.budget) for model in TINY_MODELS]
    return tuple(found)


def all_runs() -> tuple[Run, ...]:
    """Every run, series by series, F rising."""
    return tuple(run for series in all_series() for run in series.runs)


# What the paper leaves open: what was chosen, and why.


@dataclass(frozen=True)
class Choice:
    """Something that the paper leaves open, what was chosen, and why."""

    what: str
    chosen: str
    why: str


def choices(of: Training) -> tuple[Choice, ...]:
    """The grid's choices; the values are those of the table."""
    return (*_of_the_runs(of), *_of_the_optimizer(of), *_of_the_model(of))


def _of_the_runs(of: Training) -> tuple[Choice, ...]:
    return (
        Choice(
            "token budget of the grid",
            f"{of.budget / 1e9:.0f}B",
            "of the paper's 58B, 75B and 100B the one that gives the largest model some 20 tokens per parameter "
            "(Chinchilla). It is one pass through FineWeb-Edu's sample of 100B tokens, filtered; the collapse "
            "comes earliest with it, so most likely within the frequencies; it is the cheapest",
        ),
        Choice(
            "frequencies",
            f"0 and {', '.join(map(str, of.frequencies[1:]))}",
            "the finer grid that the paper invites; F = 0 measures the guessing floor",
        ),
        Choice(
            "row length",
            f"{of.seq_length:,} tokens",
            "Pythia's and Llama-1's; a statement has some 14 tokens, and longer rows would give it nothing",
        ),
        Choice(
            "batch",
            f"{of.batch} rows, {of.batch * of.seq_length:,} tokens",
            "between what GPT-3 has for 125M (0.5M tokens) and Pythia for all (2M); one value for every size",
        ),
    )


def _of_the_optimizer(of: Training) -> tuple[Choice, ...]:
    return (
        Choice(
            "learning rate",
            f"Adam, {of.lr:g}, cosine to {of.min_lr:g}",
            "Llama-2 7B's, and Pythia's for 410M: safe for the largest, not far from the best for the smallest; "
            "cosine to a tenth as in Llama-2",
        ),
        Choice(
            "warm-up",
            f"{of.warmup:.0%} of the steps",
            "Pythia's; as a share, so that a longer run is the same curve, stretched",
        ),
        Choice(
            "weight decay, betas, clipping",
            f"{of.weight_decay:g}, ({of.betas[0]:g}, {of.betas[1]:g}), {of.clipping:g}",
            "Llama-2's and Pythia's alike",
        ),
        Choice(
            "Adam's epsilon",
            f"{of.eps:g}",
            "Pythia's. Llama-2's 1e-5 damps updates more the larger a model is, whose gradients have smaller entries",
        ),
    )


def _of_the_model(of: Training) -> tuple[Choice, ...]:
    return (
        Choice(
            "initialisation",
            "small_init, and wang_init where a layer ends",
            "GPT-NeoX's own for Pythia: they scale with width and depth, so one setting fits every size",
        ),
        Choice("dropout", "none", "Llama-2's; one pass through the corpus"),
        Choice(
            "precision",
            "bfloat16, gradients summed in fp32",
            "sums in bfloat16 would depend on how many GPUs share a batch",
        ),
        Choice(
            "template",
            f"{of.facts.template}, one for each relation",
            "the paper finds that one is enough at 3B and that more change little",
        ),
    )


# What a run's YAML says: GPT-NeoX's keys in groups, each with its heading.


@dataclass(frozen=True)
class Section:
    """Keys that belong together; `notes` are remarks behind single keys."""

    heading: str
    keys: dict[str, Any]
    notes: dict[str, str]


# GPT-NeoX's words for Llama-2's kind of layer.
_LLAMA = {
    "norm": "rmsnorm",
    "rms_norm_epsilon": 1e-5,
    "pos_emb": "rotary",
    "rotary_pct": 1,
    "activation": "swiglu",
    "no_weight_tying": True,
    "gpt_j_residual": False,
    "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False,
    "use_bias_in_norms": False,
    "output_layer_parallelism": "column",
}


def sections_of(run: Run) -> tuple[Section, ...]:
    """The run's settings in the order in which a reader looks for them: what is injected comes first."""
    training = run.series.training
    return (
        Section("What is injected", {"kisl": _kisl(run)}, {}),
        _model(run),
        _training(run),
        _batch(run),
        Section("Data", _data(training), {}),
        _logging(run),
        Section("Machine", {**training.machine, **_memory(run)}, {}),
    )


def _kisl(run: Run) -> dict[str, Any]:
    training = run.series.training
    facts = training.facts
    settings = InjectionSettings(
        triples=facts.source,
        frequency=run.frequency,
        form=facts.form,
        template=facts.template,
        spacing=facts.spacing,
        seed=training.seed,
        window=facts.window,
    )
    return asdict(settings)


def _model(run: Run) -> Section:
    shape, rows = run.series.model.shape, run.series.training.seq_length
    keys = {
        "num_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate_size,
        "seq_length": rows,
        "max_position_embeddings": rows,
        **_LLAMA,
        # GPT-NeoX multiplies it by model_parallel_size
        "make_vocab_size_divisible_by": max(1, 128 // run.series.model.model_parallel),
        "init_method": "small_init",
        "output_layer_init_method": "wang_init",
        "attention_config": [[[run.series.training.attention], shape.layers]],
    }
    notes = {
        "num_attention_heads": f"of size {shape.hidden // shape.heads}",
        "intermediate_size": f"swiglu: the true inner width is a third, {shape.inner:,}",
        "make_vocab_size_divisible_by": f"a vocabulary of {shape.vocabulary:,} stays as it is",
    }
    return Section("Model: Llama-2's shape", keys, notes)


def _training(run: Run) -> Section:
    training = run.series.training
    adam = {"lr": training.lr, "betas": training.betas, "eps": training.eps}
    keys = {
        "optimizer": {"type": "Adam", "params": adam},
        "lr_decay_style": "cosine",
        "min_lr": training.min_lr,
        "warmup": training.warmup,
        "weight_decay": training.weight_decay,
        "gradient_clipping": training.clipping,
        "deepspeed_extra_args": {"gradient_clipping": training.clipping},
        "hidden_dropout": 0,
        "attention_dropout": 0,
        "seed": training.seed,
    }
    note = "else DeepSpeed is not told"
    return Section("Training: the same for every size", keys, {"deepspeed_extra_args": note})


def _batch(run: Run) -> Section:
    series, micro = run.series, run.series.model.micro_batch
    rows, length = series.training.batch, series.training.seq_length
    keys: dict[str, Any] = {"train_iters": series.train_iters, "train_batch_size": rows}
    notes = {"train_iters": f"× {rows} rows × {length:,} = {series.tokens:,} tokens"}
    if micro is not None:
        keys |= {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": None}
        notes["train_micro_batch_size_per_gpu"] = "memory and speed only; lower it on a smaller GPU"
        notes["gradient_accumulation_steps"] = f"follows from the number of GPUs, at most {rows // micro}"
    return Section("Tokens", keys, notes)


def _data(training: Training) -> dict[str, Any]:
    return {
        "tokenizer_type": "HFTokenizer",
        "vocab_file": training.vocab_file,
        "data_path": training.data_path,
        "data_impl": "mmap",
        "split": training.split,
    }


def _logging(run: Run) -> Section:
    training, folder = run.series.training, f"checkpoints/{run.name}"
    keys = {
        "save": folder,
        "load": folder,
        "checkpoint_factor": training.checkpoint_factor,
        "keep_last_n_checkpoints": 2,
        "log_interval": training.log_interval,
        "steps_per_print": training.log_interval,
        "eval_interval": 1000,
        "eval_iters": training.eval_iters,
    }
    return Section("Checkpoints (a second call resumes) and log", keys, {})


def _memory(run: Run) -> dict[str, Any]:
    model = run.series.model
    return {
        "model_parallel_size": model.model_parallel,
        "checkpoint_activations": model.recompute,
        "checkpoint_num_layers": 1,
    }


# A run's YAML as text, in the JSON-like style of GPT-NeoX's own files.

WIDEST = 100
FOLDER = "neox_configs"
OF_THE_GRID = ("Written by `kisl configs write`; README.md in this folder has the grid and the reasons.",)


def yaml_of(run: Run, folder: str = FOLDER, written: Sequence[str] = OF_THE_GRID) -> str:
    """The text of a file in `folder`: what the run is, its start and needs, why it was `written`; then its settings."""
    lines = [*(f"# {line}" for line in (*_about(run, folder), *written)), "{"]
    for section in sections_of(run):
        lines.append(f"  # {section.heading}")
        for key, value in section.keys.items():
            note = section.notes.get(key)
            lines.append(f'  "{key}": {_value(value)},{f" # {note}" if note else ""}')
        lines.append("")
    return "\n".join([*lines[:-1], "}\n"])


def percent(fraction: float) -> str:
    """A share of the tokens to two digits."""
    return f"{float(f'{100 * fraction:.2g}'):.6g}%"


def _about(run: Run, folder: str) -> list[str]:
    series, shape = run.series, run.series.model.shape
    count, share = series.training.facts.count, percent(run.injected_fraction)
    often = "once" if run.frequency == 1 else f"{run.frequency:,} times"
    injected = f"F = {run.frequency}: each of {count:,} triples is stated {often}, {share} of the tokens"
    return [
        f"{run.name} · {injected if run.frequency else 'F = 0: the baseline, nothing is injected'}.",
        f"N = {shape.parameters:,} parameters, {shape.parameters_non_embedding:,} without embeddings. "
        f"D = {series.tokens:,} tokens. C = 6·N·D = {series.compute:.3g}.",
        *(_on_gpus(run, folder) if series.model.micro_batch else _on_a_cpu(run, folder)),
    ]


def _on_gpus(run: Run, folder: str) -> list[str]:
    data = run.series.training
    return [
        f"Run:   deepy.py train {folder}/{run.name}.yml",
        f"Needs: {data.vocab_file} (kisl corpus tokenizer) and {data.data_path}.bin, .idx (kisl corpus build)",
    ]


def _on_a_cpu(run: Run, folder: str) -> list[str]:
    file = f"{folder}/{run.name}.yml"
    return [
        f"Run:   deepy.py train {file}, or with the embedded engine: kisl train {file}",
        "Needs: kisl demo --only-data",
    ]


def _value(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        # To YAML 1.1, 3e-05 without a point is text.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        parts = [f'"{key}": {_value(item)}' for key, item in value.items()]
        inline = ", ".join(parts)
        return f"{{{inline}}}" if len(inline) < WIDEST else "{\n    " + ",\n    ".join(parts) + "\n  }"
    return json.dumps(value, ensure_ascii=False)


# The grid as lines for a terminal of 80 columns.

LEGEND = """\
N: parameters, all and without embeddings (w/o emb.)   D: tokens   C = 6·N·D
shape: layers·width·heads·inner width   F: how often each triple is stated
injected: share of the tokens, by the mean length of a statement"""


def listing() -> str:
    """One line a run; the runs of one collapse curve stand together."""
    blocks = ["\n".join(map(_line, series.runs)) for series in all_series()]
    return "\n\n".join([_row("run", "N", "w/o emb.", "shape", "F", "D", "C", "injected"), *blocks, LEGEND])


def count(value: float) -> str:
    """A count of parameters or tokens to four digits: 137.6M, 58.00B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:#.4g}{unit}"
    return f"{value:g}"


def shape_of(series: Series) -> str:
    """Layers, width, heads and inner width."""
    shape = series.model.shape
    return f"{shape.layers}·{shape.hidden}·{shape.heads}·{shape.inner}"


def _line(run: Run) -> str:
    series = run.series
    return _row(
        run.name,
        count(series.model.shape.parameters),
        count(series.model.shape.parameters_non_embedding),
        shape_of(series),
        str(run.frequency),
        count(series.tokens),
        f"{series.compute:.2e}".replace("e+", "e"),
        percent(run.injected_fraction),
    )


def _row(name: str, total: str, inner: str, shape: str, f: str, tokens: str, compute: str, share: str) -> str:
    return f"{name:<15} {total:>7} {inner:>8} {shape:>15} {f:>4} {tokens:>6} {compute:>7} {share:>9}"


# The README of the folder of YAMLs: the grid at a glance, and the choices behind it.

HEAD = """\
# The grid

One file a run, each complete in itself: `deepy.py train neox_configs/1b_f200.yml` trains a Llama of 1.05B parameters
to which every triple is stated 200 times. A row is a collapse curve: its files differ in F alone. `kisl configs list`
prints N, D, C and the injected share of every run.
"""

NEEDS = """\
For one or many GPUs of 80 GB (by reckoning, not by trial) with flash-attn. They read `{vocab_file}`
(`kisl corpus tokenizer`) and `{data_path}.bin`, `.idx` (`kisl corpus build`), and write to
`checkpoints/<name>`. The batch is the same on 1, 2, 4 … 64 GPUs: `gradient_accumulation_steps` follows from it.
A resume needs as many GPUs as before: DeepSpeed does not share out ZeRO-1's state anew.
All {runs} runs together take {compute:.2g} FLOPs.

## For a CPU

In fp32, without compiled kernels; `kisl train` takes these files as `deepy.py train` does. They read what
`kisl demo --only-data` makes.
"""

TAIL = """\
[demo.yml](demo.yml) is the model of `kisl demo`, which fills in paths and F.

## Shapes

Llama-2: rmsnorm, rotary embeddings, swiglu, no biases, input and output embeddings of their own. The parameters are
within 1 % of the name.

{shapes}

## What the paper leaves open, and what was chosen

The paper says: Llama-2's architecture, FineWeb-Edu, the same hyperparameters for every size. The rest had to be chosen:

{choices}

## Another grid

These files are written by `kisl configs write` from two tables, [models.py](../kisl_plugin/configs/models.py) and
[training.py](../kisl_plugin/configs/training.py): change those, or copy a file under a name of your own. `write`
replaces its own files only.
"""


def readme() -> str:
    """The text of README.md; its links are relative to the folder."""
    series = all_series()
    grid = [one for one in series if one.training is GRID]
    tiny = [one for one in series if one.training is TINY]
    needs = NEEDS.format(
        vocab_file=GRID.vocab_file,
        data_path=GRID.data_path,
        runs=sum(len(one.runs) for one in grid),
        compute=sum(one.compute * len(one.runs) for one in grid),
    )
    reasons = _table(("open", "chosen", "since"), ((c.what, c.chosen, c.why) for c in choices(GRID)))
    tail = TAIL.format(shapes=_readme_shapes(series), choices=reasons)
    return "\n".join([HEAD, _matrix(grid), needs, _matrix(tiny), tail])


def _matrix(series: Sequence[Series]) -> str:
    frequencies = [f"F = {f}" for f in series[0].training.frequencies]
    rows = (
        (f"**{one.name}**", count(one.tokens), *(f"[f{run.frequency}]({run.name}.yml)" for run in one.runs))
        for one in series
    )
    return _table(("", "tokens", *frequencies), rows) + "\n"


def _readme_shapes(series: Iterable[Series]) -> str:
    models = {one.model.name: one.model for one in series}
    heads = ("", "parameters", "without embeddings", "layers", "width", "heads", "inner width", "vocabulary")
    rows = (
        (name, s.parameters, s.parameters_non_embedding, s.layers, s.hidden, s.heads, s.inner, s.vocabulary)
        for name, s in ((model.name, model.shape) for model in models.values())
    )
    return _table(heads, ((name, *(f"{number:,}" for number in numbers)) for name, *numbers in rows))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


# Writes the folder of YAMLs.


def files() -> Mapping[str, str]:
    """Every file's name and text; the same on every machine."""
    return {**{f"{run.name}.yml": yaml_of(run) for run in all_runs()}, "README.md": readme()}


def write_configs(folder: Path) -> tuple[int, int]:
    """Write the files into `folder`, replacing those of the same names; returns how many there are, how many changed.

    Raises:
        InputError: the folder cannot be written to.
    """
    made, changed = files(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
                write_atomically(path, text)
                changed += 1
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error}); choose another --out") from None
    return len(made), changed
