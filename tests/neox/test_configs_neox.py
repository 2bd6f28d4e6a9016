from pathlib import Path
from typing import Any

import pytest
from asking import facts_of

from kisl_plugin.files import resource
from kisl_plugin.grid import all_runs

RUNS = {run.name: run for run in all_runs()}
GPUS = {name: (1, 2) if run.model.micro_batch is None else (1, 2, 64) for name, run in RUNS.items()}
# The densest run of each model: its YAML is the one whose model is built.
BUILT = {run.name: run.model for run in all_runs() if run.name == f"{run.model.name}_f{run.training.frequencies[-1]}"}


@pytest.fixture(scope="module")
def facts(neox_dir: Path) -> dict[str, Any]:
    """What the real GPT-NeoX made of every YAML, in a process of its own."""
    return facts_of(resource("neox_configs"), GPUS, list(BUILT), neox_dir)


def test_gpt_neox_loads_every_yaml_and_trains_on_the_same_tokens_on_any_number_of_gpus(facts: dict[str, Any]) -> None:
    assert facts["yamls"].keys() == RUNS.keys()
    for name, run in RUNS.items():
        micro = run.model.micro_batch
        kind = ("fp32", "global") if micro is None else ("bfloat16", "flash")
        for gpus, read in zip(GPUS[name], facts["yamls"][name], strict=True):
            batch = read["train_micro_batch_size_per_gpu"] * read["gradient_accumulation_steps"] * gpus
            assert batch == read["train_batch_size"] == run.training.batch
            assert batch * read["train_iters"] * read["seq_length"] == run.tokens
            assert micro in (None, read["train_micro_batch_size_per_gpu"])
            assert (read["precision"], *set(read["attention_config"])) == kind
            assert not read["is_pipe_parallel"]


def test_the_section_kisl_is_a_field_of_its_arguments(facts: dict[str, Any]) -> None:
    for name, run in RUNS.items():
        assert all(read["kisl"]["frequency"] == run.frequency for read in facts["yamls"][name])


def test_deepspeed_is_told_to_clip_and_to_sum_gradients_in_fp32(facts: dict[str, Any]) -> None:
    for name, run in RUNS.items():
        for read in facts["yamls"][name]:
            deepspeed = read["deepspeed"]
            assert deepspeed["gradient_clipping"] == 1.0
            if run.model.micro_batch is not None:
                assert deepspeed["bf16"] == {"enabled": True}
                assert deepspeed["data_types"] == {"grad_accum_dtype": "fp32"}
                assert deepspeed["zero_optimization"]["stage"] == 1


@pytest.mark.parametrize("name", BUILT)
def test_its_own_model_has_the_parameters_of_the_formula(facts: dict[str, Any], name: str) -> None:
    built, shape = facts["models"][name], BUILT[name].shape
    assert built["vocabulary"] == shape.vocabulary
    assert built["parameters"] == shape.parameters
    assert built["parameters"] - sum(built["embeddings"]) == shape.parameters_non_embedding
    assert len(built["embeddings"]) == 2
    assert built["biases"] == []
