"""The exposures that the model was really trained on, in every layout that GPT-NeoX trains in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from running import changed, count_statements, fed_rows, neox_settings, train
from tiny_world import write_yaml
from tokenizers import Tokenizer

from kisl_plugin.local.config import read_config
from kisl_plugin.local.data import read_data
from kisl_plugin.triples import CONTROL, read_triples
from kisl_plugin.verbalize import statement

FAST: dict[str, dict[str, Any]] = {
    "one process, workers": {"num_workers": 2},
    "data parallel 2, accumulation 2, ZeRO-1": {
        "num_gpus": 2,
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": 1},
    },
    "pipeline 2": {"num_gpus": 2, "pipe_parallel_size": 2, "num_layers": 2},
}
SLOW: dict[str, dict[str, Any]] = {
    "one process": {},
    "data parallel 2": {"num_gpus": 2},
    "gradient accumulation 2": {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2},
    "tensor parallel 2": {"num_gpus": 2, "model_parallel_size": 2},
    "pipeline 1": {"pipe_parallel_size": 1},
    "pipeline 1, accumulation 2": {
        "pipe_parallel_size": 1,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
    },
    "ZeRO-1": {"zero_optimization": {"stage": 1}},
    "data parallel 2, ZeRO-1": {"num_gpus": 2, "zero_optimization": {"stage": 1}},
    "activation checkpointing": {"checkpoint_activations": True, "checkpoint_num_layers": 1},
    "activation checkpointing, pipeline 1": {
        "checkpoint_activations": True,
        "checkpoint_num_layers": 1,
        "pipe_parallel_size": 1,
    },
    "bf16": {"precision": "bfloat16", "zero_optimization": {"stage": 0}},
    "bf16, ZeRO-1 as in the grid": {
        "precision": "bfloat16",
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {"stage": 1},
    },
    "even spacing, window": {"kisl.spacing": "even", "kisl.window": [0.25, 0.75]},
}
# Keys of how a run is laid out over processes, which the local engine does without.
LAYOUT = ("num_gpus", "gradient_accumulation_steps", "train_micro_batch_size_per_gpu", "data_types")
WEIGHTED = {
    "data_path": None,
    **dict.fromkeys(("train_data_paths", "valid_data_paths", "test_data_paths")),
    "train_data_weights": [3.0, 1.0],
}


def both(layouts: dict[str, dict[str, Any]], *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(changes, id=name, marks=marks) for name, changes in layouts.items()]


@pytest.mark.parametrize("changes", both(FAST) + both(SLOW, pytest.mark.matrix))
def test_in_any_layout_the_model_is_trained_on_the_local_engines_rows_and_each_statement_f_times(
    changes: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    values = with_section(world, tmp_path, changes)
    config, compiled = write_yaml(tmp_path / "run.yml", values), tmp_path / "compiled"
    train(config, tmp_path, tmp_path / "log", TORCH_EXTENSIONS_DIR=str(compiled))
    assert not compiled.exists()
    rows = fed_rows(tmp_path / "log")
    assert counted(rows, world) == expected(world)
    same = {key: value for key, value in values.items() if key not in LAYOUT}
    data = read_data(read_config([write_yaml(tmp_path / "local.yml", same)]))
    np.testing.assert_array_equal(rows, [data.train[i]["text"][1:] for i in range(len(data.train))])


@pytest.mark.matrix
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pack_impl": "pack_until_overflow"}, id="pack_until_overflow"),
        pytest.param({"pack_impl": "pack_until_overflow", "num_gpus": 2}, id="pack_until_overflow, data parallel 2"),
        pytest.param({"train_iters": None, "train_epochs": 1, "lr_decay_iters": 50}, id="one epoch"),
        pytest.param({"train_iters": None, "train_epochs": 2, "lr_decay_iters": 100}, id="two epochs"),
        pytest.param(
            {"train_iters": None, "train_epochs": 2, "lr_decay_iters": 100, "num_gpus": 2, "pipe_parallel_size": 2},
            id="two epochs, pipeline 2",
        ),
        pytest.param(WEIGHTED, id="weighted paths"),
        pytest.param({**WEIGHTED, "num_gpus": 2}, id="weighted paths, data parallel 2"),
    ],
)
def test_whatever_the_rows_are_made_of_each_statement_is_trained_on_f_times(
    changes: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    placed = {key: [str(world / "text")] * 2 if key.endswith("_paths") else value for key, value in changes.items()}
    values = with_section(world, tmp_path, placed)
    train(write_yaml(tmp_path / "run.yml", values), tmp_path, tmp_path / "log")
    assert counted(fed_rows(tmp_path / "log"), world) == expected(world)


def with_section(world: Path, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    return changed(neox_settings(world, folder / "run"), changes)


def counted(rows: NDArray[np.int64], world: Path) -> dict[str, int]:
    tokenizer = Tokenizer.from_file(str(world / "tokenizer.json"))
    texts = [statement(triple) for triple in read_triples(str(world / "facts.jsonl"))]
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    counts = count_statements(rows, tokens, tokenizer.token_to_id("<|endoftext|>"))
    return dict(zip(texts, counts, strict=True))


def expected(world: Path, frequency: int = 3) -> dict[str, int]:
    triples = read_triples(str(world / "facts.jsonl"))
    return {statement(triple): 0 if triple.group == CONTROL else frequency for triple in triples}
