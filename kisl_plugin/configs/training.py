"""The one table of training settings, the same for every size; `choices` says why each is what it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
