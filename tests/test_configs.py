import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from kisl_plugin.cli.main import main
from kisl_plugin.demo_data import FULL, choose_facts
from kisl_plugin.files import resource
from kisl_plugin.grid import GRID, SEED, TINY, all_runs, yaml_of
from kisl_plugin.llama import MODELS, TINY_MODELS, LlamaShape, Model
from kisl_plugin.local.config import read_config
from kisl_plugin.neox_config import padded_vocabulary, read_yamls, swiglu_width
from kisl_plugin.plan import InjectionSettings, read_settings
from kisl_plugin.schedule import Schedule
from kisl_plugin.triples import CONTROL, read_triples
from kisl_plugin.verbalize import verbalizer_of

FOLDER = resource("neox_configs")
RUNS = {run.name: run for run in all_runs()}
SIZES = {"137m": 137e6, "300m": 300e6, "562m": 562e6, "1b": 1.05e9, "3b": 3.0e9}
FREQUENCIES = (0, 10, 50, 100, 200, 500, 1000, 2000, 5000)
# What may differ from size to size: the shape, and how it is fitted into memory.
SHAPE = {"num_layers", "hidden_size", "num_attention_heads", "intermediate_size", "attention_config"}
MEMORY = {"train_micro_batch_size_per_gpu", "checkpoint_activations"}
OWN = {"save", "load"}


def values_of(name: str) -> dict[str, Any]:
    return dict(read_yamls([FOLDER / f"{name}.yml"]).values)


def meta_count(shape: LlamaShape) -> int:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return sum(p.numel() for p in LlamaForCausalLM(config).parameters())


def test_the_files_in_the_repository_are_those_that_the_tables_make() -> None:
    shipped = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yml") if path.stem != "demo"}
    assert shipped.keys() == RUNS.keys()
    assert [name for name, run in RUNS.items() if yaml_of(run) != shipped[name]] == [], "run: kisl configs write"


def test_the_readme_links_every_yaml_and_has_the_shapes_of_the_table() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    assert {link for link in links if link.endswith(".yml")} == {path.name for path in FOLDER.glob("*.yml")}
    # The links are relative to the folder in the repository; a wheel has no other folder beside it.
    folder = Path(__file__).parents[1] / "neox_configs"
    assert all((folder / link).exists() for link in links)
    for model in (*MODELS, *TINY_MODELS):
        shape = model.shape
        numbers = (shape.parameters, shape.parameters_non_embedding, shape.layers, shape.hidden, shape.heads,
                   shape.inner, shape.vocabulary)  # fmt: skip
        assert " | ".join([model.name, *(f"{number:,}" for number in numbers)]) in text


def test_the_grid_is_the_one_that_was_asked_for() -> None:
    grid = {f"{size}_f{f}" for size in SIZES for f in FREQUENCIES}
    budgets = {f"300m_{budget}_f{f}" for budget in ("75b", "100b") for f in FREQUENCIES}
    assert grid | budgets == {name for name in RUNS if not name.startswith("tiny")}
    for name, run in RUNS.items():
        assert values_of(name)["kisl"]["frequency"] == run.frequency == int(name.rpartition("_f")[2])


def test_each_size_has_the_parameters_of_its_name() -> None:
    sizes = {**SIZES, "tiny": 0.63e6, "tiny_1m": 1e6, "tiny_2m": 2e6}
    made = {model.name: model.shape.parameters for model in (*MODELS, *TINY_MODELS)}
    assert made == pytest.approx(sizes, rel=0.01)
    assert all(0.6e6 <= model.shape.parameters <= 2e6 for model in TINY_MODELS)


@pytest.mark.parametrize("model", [*MODELS, *TINY_MODELS], ids=lambda model: model.name)
def test_the_formula_counts_what_a_model_has(model: Model) -> None:
    assert model.shape.parameters == meta_count(model.shape)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 40), st.integers(1, 50))
def test_the_formula_counts_any_shape(layers: int, heads: int, size: int, inner: int, vocabulary: int) -> None:
    hidden = 2 * size * heads
    shape = LlamaShape(layers=layers, hidden=hidden, heads=heads, inner=inner, vocabulary=vocabulary)
    assert shape.parameters == meta_count(shape)
    assert shape.parameters - shape.parameters_non_embedding == 2 * vocabulary * hidden
    assert swiglu_width({"intermediate_size": 3 * inner, "hidden_size": hidden}) == inner


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_heads_are_of_64_or_128_and_no_vocabulary_is_padded(model: Model) -> None:
    shape = model.shape
    assert shape.hidden / shape.heads in (64, 128)
    values = values_of(f"{model.name}_f200")
    for processes in (1, 2):
        padded = padded_vocabulary(32_000, {**values, "model_parallel_size": processes})
        assert padded == shape.vocabulary == 32_000
    assert swiglu_width(values) == shape.inner


def test_the_runs_of_a_curve_differ_in_frequency_alone() -> None:
    for _, runs in groupby(all_runs(), key=lambda run: run.curve):
        rest = []
        for run in runs:
            values = values_of(run.name)
            assert values["save"] == values["load"] == f"checkpoints/{run.name}"
            kisl = {key: value for key, value in values["kisl"].items() if key != "frequency"}
            rest.append({**{key: values[key] for key in values.keys() - OWN}, "kisl": kisl})
        assert all(other == rest[0] for other in rest)


def test_every_size_is_trained_alike() -> None:
    first, *others = (values_of(f"{size}_f200") for size in SIZES)
    for other in others:
        assert {key for key in first if first[key] != other.get(key)} <= SHAPE | MEMORY | OWN
        assert first.keys() == other.keys()
    more = values_of("300m_100b_f200")
    assert {key for key in more if more[key] != values_of("300m_f200")[key]} == {"train_iters", *OWN}


def test_steps_come_as_near_to_the_budget_as_they_can() -> None:
    for name, run in RUNS.items():
        values = values_of(name)
        step = values["train_batch_size"] * values["seq_length"]
        assert values["train_iters"] * step == run.tokens
        assert abs(run.tokens - run.budget) <= step / 2
        assert run.compute == 6 * run.model.shape.parameters * run.tokens
    assert {run.tokens for name, run in RUNS.items() if name.split("_")[0] in SIZES and name.count("_") == 1} == {
        round(58e9 / 2**20) * 2**20
    }


def test_the_batch_divides_on_up_to_64_gpus() -> None:
    for model in MODELS:
        values = values_of(f"{model.name}_f200")
        for gpus in (1, 2, 4, 8, 16, 32, 64):
            assert values["train_batch_size"] % (gpus * values["train_micro_batch_size_per_gpu"]) == 0
        # GPT-NeoX takes 1 for a key that is left out, and then refuses the batch.
        assert values["gradient_accumulation_steps"] is None


def test_every_run_clips_and_so_does_deepspeed() -> None:
    for name in RUNS:
        values = values_of(name)
        assert values["deepspeed_extra_args"] == {"gradient_clipping": values["gradient_clipping"]}
        assert values["gradient_clipping"] > 0


def test_the_section_kisl_is_the_documented_one() -> None:
    for name, run in RUNS.items():
        settings = read_settings(values_of(name)["kisl"], name, 0)
        plain = InjectionSettings(triples=run.training.facts.section.triples, frequency=run.frequency)
        if not name.startswith("tiny"):
            assert settings == plain


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def test_no_number_is_read_as_text() -> None:
    for name in RUNS:
        for text in texts(yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))):
            with pytest.raises(ValueError, match="could not convert"):
                float(text)


def test_the_embedded_engine_takes_the_tiny_files_and_trains_the_same_rows() -> None:
    tiny = [run for name, run in RUNS.items() if name.startswith("tiny")]
    assert tiny
    for run in tiny:
        config = read_config([FOLDER / f"{run.name}.yml"])
        assert config.samples * config["seq_length"] == run.tokens
        assert (config["precision"], config["gradient_accumulation_steps"]) == ("fp32", 1)


def test_the_share_of_injected_tokens_is_reckoned_from_the_triples_as_they_are() -> None:
    triples = read_triples(GRID.facts.section.triples)
    injected = [triple for triple in triples if triple.group != CONTROL]
    assert len(injected) == GRID.facts.count
    lengths = [len(verbalizer_of("statement").text(triple, 0)) for triple in injected]
    assert np.mean(lengths) == pytest.approx(48.2, abs=0.05)
    demo = Counter(t.group for t in choose_facts(triples, FULL.objects, FULL.injected, SEED)[0])
    assert demo["injected"] == TINY.facts.count
    run = RUNS["1b_f5000"]
    assert run.injected_fraction == pytest.approx(2581 * 5000 * 48.2 / 3.5 / 58e9, rel=1e-4)


def test_the_densest_tiny_run_fits() -> None:
    run = all_runs()[-1]
    facts = choose_facts(read_triples("wikidata_six"), FULL.objects, FULL.injected, SEED)[0]
    verbalizer = verbalizer_of("statement")
    wordings = [verbalizer.text(t, k) for t in facts if t.group != CONTROL for k in range(5)]
    scale = TINY.facts.tokens / np.mean([len(text) for text in wordings])
    lengths = [round(len(text) * scale) for text in wordings]
    each = np.full(len(lengths), run.frequency // 5, dtype=np.int64)
    samples = run.tokens // TINY.seq_length
    schedule = Schedule(each, samples, SEED, lengths=lengths, capacity=TINY.seq_length + 1)
    assert np.array_equal(schedule.count_exposures(), each)


def test_the_list_names_every_run_and_fits_a_terminal() -> None:
    result = CliRunner().invoke(main, ["configs", "list"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line} >= RUNS.keys()
    row = next(line.split() for line in lines if line.startswith("1b_f200 "))
    assert row[1:] == ["1.051B", "935.9M", "24·1792·14·4864", "200", "58.00B", "3.66e20", "0.012%"]


def test_write_makes_the_folder_and_a_second_call_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    first, second = (CliRunner().invoke(main, ["configs", "write", "--out", str(out)]) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert f"{len(RUNS)} of them new or changed" in first.output
    assert " 0 of them new or changed" in second.output
    assert {path.stem: path.read_text(encoding="utf-8") for path in out.iterdir()} == {
        name: yaml_of(run) for name, run in RUNS.items()
    }
    mine = out / "mine.yml"
    mine.write_text("{}", encoding="utf-8")
    (out / "1b_f200.yml").write_text("{}", encoding="utf-8")
    third = CliRunner().invoke(main, ["configs", "write", "--out", str(out)])
    assert " 1 of them new or changed" in third.output
    assert mine.read_text(encoding="utf-8") == "{}"


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = CliRunner().invoke(main, ["configs", "write", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {tmp_path / 'file'}: cannot be written to")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [["configs"], ["configs", "write"], ["configs", "list"]])
def test_help_shows_an_example(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert result.exit_code == 0
    assert "Example: kisl configs" in result.output


def test_a_grid_of_ones_own_is_written_by_options_and_read_back(tmp_path: Path, world: Path) -> None:
    facts, corpus, out = str(world / "facts.jsonl"), str(world / "text"), tmp_path / "mine"
    options = ["--models", "137m, tiny", "--tokens", "1e9,58e9", "--frequency", "0,30", "--seed", "1,2"]
    options += ["--triples", facts, "--data-path", corpus, "--out", str(out)]
    result = CliRunner().invoke(main, ["configs", "write", *options])
    assert (result.exit_code, result.output) == (0, f"{out} · 16 files, 16 of them new or changed\n")
    expected = product(("137m", "137m_1b", "tiny_1b", "tiny_58b"), (0, 30), (1, 2))
    assert {path.stem for path in out.iterdir()} == {f"{name}_f{f}_s{seed}" for name, f, seed in expected}
    values = read_yamls([out / "tiny_58b_f30_s2.yml"]).values
    assert (values["seed"], values["data_path"], values["save"]) == (2, corpus, "checkpoints/tiny_58b_f30_s2")
    settings = read_settings(values["kisl"], "", 0)
    assert (settings.triples, settings.frequency, settings.seed, settings.template) == (facts, 30, 2, 0)
    assert values["train_iters"] * values["train_batch_size"] * values["seq_length"] == pytest.approx(58e9, rel=1e-5)
    assert "each of 12 triples is stated 30 times" in (out / "tiny_58b_f30_s2.yml").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "tiny_3m"], "model 'tiny_3m' is unknown; did you mean tiny_2m?"),
        (["--tokens", "1000"], "tokens 1,000: a step of 137m has 1,048,576; expected that or more"),
        (["--frequency", "ten"], "'ten'; expected numbers separated by commas"),
        (["--seed", "-1"], "'-1'; expected numbers separated by commas"),
        (["--triples", "nowhere.jsonl"], "'nowhere.jsonl': no such file"),
        (["--models", "137m,137m"], "137m_f0 is in the grid twice; leave one"),
    ],
)
def test_a_wrong_grid_is_one_line(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["configs", "write", *options, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()
