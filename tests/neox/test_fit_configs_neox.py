"""The real GPT-NeoX reads the YAMLs that test a prediction, and builds their model."""

from pathlib import Path
from typing import Any

import pytest
from asking import facts_of

from kisl_plugin.fit.predict import MeasuredSweep, Prediction, write_configs

SWEEP = MeasuredSweep(
    triples=2581, tokens_per_statement=13.8, source="wikidata_six", seq_length=2048, vocabulary=32_000
)
TOKENS = 60 * 10**9
ASKED = {1_900_000_000: (1, 2, 64), 7_000_000_000: (2, 8, 64)}


def _prediction(params: int) -> Prediction:
    return Prediction(
        params=params,
        tokens=TOKENS,
        compute=6.0 * params * TOKENS,
        f_star=200.0,
        interval=(150.0, 260.0),
        interval_missing="",
        source="the infusion law F*(C) of 5 models at D = 58B",
        decades=0.4,
        words="0.4 decades beyond the largest measured C",
        triples=2581,
        caveats=(),
    )


@pytest.fixture(scope="module")
def facts(neox_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("plans")
    paths = {params: write_configs(_prediction(params), folder, SWEEP) for params in ASKED}
    yamls = {path.stem: gpus for params, gpus in ASKED.items() for path in paths[params]}
    return facts_of(folder, yamls, ["predicted_1.9b_60b_f200"], neox_dir)


def test_gpt_neox_reads_them_and_trains_on_the_tokens_that_were_asked_for(facts: dict[str, Any]) -> None:
    assert [name.rpartition("_f")[2] for name in facts["yamls"]] == ["160", "200", "240"] * 2
    for name, reads in facts["yamls"].items():
        for read in reads:
            assert read["kisl"]["frequency"] == int(name.rpartition("_f")[2])
            tokens = read["train_batch_size"] * read["train_iters"] * read["seq_length"]
            assert tokens == pytest.approx(TOKENS, rel=1e-4)
            assert not read["is_pipe_parallel"]


def test_its_own_model_has_the_parameters_that_the_header_says(facts: dict[str, Any]) -> None:
    built = facts["models"]["predicted_1.9b_60b_f200"]
    assert built["vocabulary"] == 32_000
    assert built["parameters"] == pytest.approx(1.9e9, rel=0.01)
    assert built["biases"] == []
