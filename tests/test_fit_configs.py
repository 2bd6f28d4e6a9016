import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.files import resource
from kisl_plugin.fit.predict import MeasuredSweep, Prediction, frequencies_of, write_configs
from kisl_plugin.grid import GRID
from kisl_plugin.llama import BYTES_A_PARAMETER, BYTES_OF_A_GPU, LLAMA2, MODELS, LlamaShape, model_of
from kisl_plugin.local.config import read_config
from kisl_plugin.neox_config import padded_vocabulary, read_yamls, swiglu_width
from kisl_plugin.plan import read_settings

SWEEP = MeasuredSweep(
    triples=2_000,
    tokens_per_statement=12.0,
    source="data/mine.jsonl",
    form="statement",
    template=(0, 2),
    spacing="even",
    window=(0.1, 0.9),
    seq_length=2048,
    vocabulary=32_000,
)
SETTINGS_OF_EVERY_SIZE = (
    "optimizer lr_decay_style min_lr warmup weight_decay gradient_clipping seed init_method seq_length "
    "train_batch_size precision norm pos_emb activation data_path vocab_file"
).split()


def prediction(
    f_star: float | None = 200.0, params: int = 7 * 10**9, tokens: int = 2 * 10**12, **more: Any
) -> Prediction:
    known = {
        "interval": (f_star * 0.7, f_star * 1.4) if f_star else None,
        "interval_missing": "",
        "source": "the infusion law F*(C) of 5 models at D = 58B",
        "decades": 1.9,
        "words": "1.9 decades beyond the largest measured C",
        "triples": 2_000,
        "caveats": (),
    }
    return Prediction(params=params, tokens=tokens, compute=6.0 * params * tokens, f_star=f_star, **{**known, **more})


def shape_in(values: Any, vocabulary: int) -> LlamaShape:
    """The shape that GPT-NeoX gives a model of these keys."""
    return LlamaShape(
        layers=values["num_layers"],
        hidden=values["hidden_size"],
        heads=values["num_attention_heads"],
        inner=swiglu_width(values),
        vocabulary=vocabulary,
    )


@given(st.floats(2.5, 1e7))
def test_the_frequencies_bracket_the_prediction(f_star: float) -> None:
    found = frequencies_of(f_star)
    assert found[0] <= f_star <= found[-1]
    assert abs(found[0] - 0.8 * f_star) <= 0.5 + 1e-6
    assert abs(found[-1] - 1.2 * f_star) <= 0.5 + 1e-6
    assert min(abs(frequency - f_star) for frequency in found) <= 0.5
    assert len(found) == 3 or f_star < 5


@pytest.mark.parametrize(
    ("f_star", "expected"), [(0.3, (1,)), (1.0, (1,)), (1.3, (1, 2)), (2.4, (2, 3)), (4.0, (3, 4, 5))]
)
def test_frequencies_that_coincide_are_written_once(f_star: float, expected: tuple[int, ...], tmp_path: Path) -> None:
    assert frequencies_of(f_star) == expected
    paths = write_configs(prediction(f_star), tmp_path, SWEEP)
    assert [path.stem for path in paths] == [f"predicted_7b_2t_f{frequency}" for frequency in expected]


@settings(max_examples=8, deadline=None)
@given(st.floats(math.log(5e6), math.log(80e9)), st.floats(math.log(1e8), math.log(4e12)), st.floats(0.5, 5000.0))
def test_every_written_yaml_is_accepted_and_says_what_was_asked(
    tmp_path_factory: pytest.TempPathFactory, log_params: float, log_tokens: float, f_star: float
) -> None:
    params, tokens = round(math.exp(log_params)), round(math.exp(log_tokens))
    assume(1.2 * f_star * 2_000 * 12 < 0.9 * tokens)
    folder = tmp_path_factory.mktemp("yamls")
    paths = write_configs(prediction(f_star, params, tokens), folder, SWEEP)
    assert [read_config([path])["train_iters"] for path in paths]
    for path, frequency in zip(paths, frequencies_of(f_star), strict=True):
        values = dict(read_yamls([path]).values)
        kisl = read_settings(values["kisl"], str(path), 0)
        assert (kisl.triples, kisl.frequency, kisl.template, kisl.spacing, kisl.window) == (
            "data/mine.jsonl",
            frequency,
            (0, 2),
            "even",
            (0.1, 0.9),
        )
        step = values["train_batch_size"] * values["seq_length"]
        assert abs(values["train_iters"] * step - tokens) <= step / 2
        shape = shape_in(values, 32_000)
        assert shape.parameters == pytest.approx(params, rel=0.05)
        header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        assert any(f"N = {shape.parameters:,} parameters" in line for line in header)
        assert max(map(len, header)) <= 140


def test_what_is_not_asked_is_as_in_the_grid(tmp_path: Path) -> None:
    grid = read_yamls([resource("neox_configs") / "3b_f200.yml"]).values
    for path in write_configs(prediction(), tmp_path, SWEEP):
        values = read_yamls([path]).values
        assert values.keys() == grid.keys()
        assert {key: values[key] for key in SETTINGS_OF_EVERY_SIZE} == {
            key: grid[key] for key in SETTINGS_OF_EVERY_SIZE
        }
        assert values["save"] == values["load"] == f"checkpoints/{path.stem}"


def test_without_run_cards_that_say_it_the_facts_are_those_of_the_grid(tmp_path: Path) -> None:
    path = write_configs(prediction(triples=None), tmp_path, MeasuredSweep())[0]
    assert read_yamls([path]).values["kisl"]["triples"] == GRID.facts.section.triples
    assert "replace wikidata_six by their name" in path.read_text(encoding="utf-8")


def test_the_header_says_what_predicted_it_with_the_interval_and_the_exact_size(tmp_path: Path) -> None:
    paths = write_configs(prediction(35.2, triples=100_000), tmp_path / "plans", SWEEP)
    assert [path.name for path in paths] == [f"predicted_7b_2t_f{f}.yml" for f in (28, 35, 42)]
    lines = paths[0].read_text(encoding="utf-8").splitlines()
    header = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    for said in (
        "N = 6,738,415,616 parameters",
        "N is 3.74% below the planned 7,000,000,000",
        "F* = 35.2 (95 % interval 24.6–49.3) for N = 7B, D = 2T",
        "the infusion law F*(C) of 5 models at D = 58B",
        "1.9 decades beyond the largest measured C",
        f"deepy.py train {(tmp_path / 'plans').as_posix()}/predicted_7b_2t_f28.yml",
        "The prediction is for 100,000 triples; this run states those of the sweep, 2,000.",
    ):
        assert said in header, said


def test_a_second_call_changes_nothing_and_another_text_is_not_overwritten(tmp_path: Path) -> None:
    paths = write_configs(prediction(), tmp_path, SWEEP)
    before = {path: path.read_bytes() for path in paths}
    assert write_configs(prediction(), tmp_path, SWEEP) == paths
    paths[-1].write_text("{}", encoding="utf-8")
    paths[0].unlink()
    with pytest.raises(InputError, match=f"{paths[-1].name}: exists with another text"):
        write_configs(prediction(), tmp_path, SWEEP)
    assert not paths[0].exists()
    assert paths[1].read_bytes() == before[paths[1]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"f_star": None, "words": "needs 3 models"}, "no YAMLs without a predicted F.*needs 3 models"),
        ({"triples": 10**10}, "max_fraction allows 95%: plan with fewer --triples or more tokens"),
        ({"tokens": 500_000, "f_star": 2.0}, "tokens = 500,000: 0 rows of 2,048 in batches of 512"),
        ({"tokens": 15 * 10**12}, "a run has 1 to 2,147,483,648 rows"),
        ({"params": 405 * 10**9}, "at most 8e\\+10"),
        ({"params": 1000}, "no Llama with a vocabulary of 32,000"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(asked: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        write_configs(prediction(**asked), tmp_path / "new", SWEEP)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        write_configs(prediction(), tmp_path / "file", SWEEP)


def test_a_card_cannot_break_out_of_the_header_or_the_section(tmp_path: Path) -> None:
    odd = 'x"}\n"train_iters": 1, #'
    values = read_yamls(write_configs(prediction(source=odd), tmp_path, MeasuredSweep(source=odd))[:1]).values
    assert values["kisl"]["triples"] == odd
    assert values["train_iters"] > 1


def test_the_sweep_of_a_cpu_is_tested_on_a_cpu(tmp_path: Path) -> None:
    tiny = MeasuredSweep(triples=198, tokens_per_statement=22.36, seq_length=128, vocabulary=4096)
    for path in write_configs(prediction(40.0, 2 * 10**6, 600_000, triples=198), tmp_path, tiny):
        config = read_config([path])
        assert (config["precision"], config["seq_length"]) == ("fp32", 128)
        assert config.samples * 128 == pytest.approx(600_000, abs=512)
        assert shape_in(config.values, 4096).parameters == 2_000_000


@settings(max_examples=12, deadline=None)
@given(st.floats(math.log(40e6), math.log(80e9)), st.sampled_from([4096, 32_000, 50_304]))
def test_a_size_between_those_of_the_table_has_their_proportions(log_params: float, vocabulary: int) -> None:
    params = round(math.exp(log_params))
    model = model_of(params, vocabulary)
    shape = model.shape
    assert shape.parameters == pytest.approx(params, rel=0.05)
    assert shape.hidden / shape.heads in (64, 128)
    assert shape.heads % model.model_parallel == shape.inner % model.model_parallel == 0
    assert 2.3 <= shape.inner / shape.hidden <= 3.3
    assert 20 <= shape.hidden / shape.layers <= 200
    assert BYTES_A_PARAMETER * params / model.model_parallel <= BYTES_OF_A_GPU


def test_a_size_of_the_table_or_of_llama_2_is_that_very_shape() -> None:
    for known, params in zip(MODELS, (137e6, 300e6, 562e6, 1.05e9, 3e9), strict=True):
        made = model_of(int(params))
        assert made.shape == known.shape
        assert (made.micro_batch, made.recompute, made.model_parallel) == (known.micro_batch, known.recompute, 1)
    assert [model_of(int(params)).shape for params in (6.74e9, 7e9, 13e9)] == [LLAMA2[0], LLAMA2[0], LLAMA2[1]]


def test_gpus_that_share_layers_do_not_pad_the_vocabulary(tmp_path: Path) -> None:
    for params, shared in ((7 * 10**9, 2), (13 * 10**9, 4), (70 * 10**9, 16)):
        path = write_configs(prediction(params=params), tmp_path, SWEEP)[0]
        config = read_config([path])
        assert config["model_parallel_size"] == shared
        assert padded_vocabulary(32_000, config.values) == 32_000
