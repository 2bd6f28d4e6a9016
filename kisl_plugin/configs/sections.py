"""What a run's YAML says: GPT-NeoX's keys in groups, each with its heading."""

from dataclasses import asdict, dataclass
from typing import Any

from kisl_plugin.configs.grid import Run
from kisl_plugin.configs.training import Training
from kisl_plugin.settings import InjectionSettings


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
