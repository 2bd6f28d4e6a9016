"""On every backend the probe's numbers are those of plain torch, one text at a time, on every item."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from completions_server import Served, serve, served_by
from probe_world import (
    BOS,
    VOCABULARY,
    ByHand,
    ask,
    byte_level_bpe,
    check_by_hand,
    llama,
    measured,
    save_model,
    some_triples,
    write_card,
)
from torch_vllm import install_vllm
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from kisl_plugin.verbalize import question, statement

pytest.importorskip("lm_eval")
FORMS = ("kisl_wikidata", "kisl_wikidata_statement", "kisl_wikidata_paraphrase")
# In this statement template one of the two relations begins with its object: there the context is empty.
OBJECT_FIRST = 1


def make_model(folder: Path, **settings: Any) -> Path:
    save_model(folder, byte_level_bpe([statement(triple) for triple in some_triples()]), **settings)
    write_card(folder, some_triples(), form="statement", template=OBJECT_FIRST)
    return folder


def teach(folder: Path) -> None:
    """Train until greedy decoding says some of the facts: recall is then 0 and 1, and perplexities differ widely."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    known = some_triples()[::2]
    texts = [f"{question(triple)} {triple.object}" for triple in known]
    texts += [statement(triple, OBJECT_FIRST) for triple in known]
    batch = [torch.tensor([tokenizer.encode(BOS + text, add_special_tokens=False)]) for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(20):
        for ids in batch:
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[bool, str], Path]:
    """The same weights with four tokenizers: whether it adds a BOS, and the side on which it pads."""
    root = tmp_path_factory.mktemp("models")
    folders = {}
    for adds_bos in (False, True):
        for side in ("left", "right"):
            folder = make_model(root / f"{adds_bos}_{side}", adds_bos=adds_bos, settings={"padding_side": side})
            folders[adds_bos, side] = folder
    teach(folders[False, "left"])
    for folder in folders.values():
        if folder != folders[False, "left"]:
            shutil.copy(folders[False, "left"] / "model.safetensors", folder)
    return folders


@pytest.fixture(scope="module")
def judges(models: dict[tuple[bool, str], Path]) -> dict[bool, ByHand]:
    return {adds_bos: ByHand(models[adds_bos, "left"], adds_bos=adds_bos) for adds_bos in (False, True)}


@pytest.fixture(scope="module")
def served(models: dict[tuple[bool, str], Path]) -> Iterator[Served]:
    with serve(models[False, "left"]) as server:
        yield server


def test_the_taught_model_tells_the_measures_apart(judges: dict[bool, ByHand], models: Any) -> None:
    rows = ask(models[False, "left"])["samples"]["kisl_wikidata"]
    hands = [[judges[False].score(*pair) for pair in row["arguments"]] for row in rows]
    assert {scored[row["target"]].greedy for row, scored in zip(rows, hands, strict=True)} == {True, False}
    for other in ("sum_acc", "byte_acc"):
        pairs = [measured({**row["doc"], "group": ""}, scored) for row, scored in zip(rows, hands, strict=True)]
        assert any(values["acc"] != values[other] for values in pairs), other
    assert any(len({option.tokens for option in scored}) > 1 for scored in hands)


@pytest.mark.parametrize("batch_size", [1, 8, 64, "auto"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_hf_equals_the_computation_by_hand(
    models: dict[tuple[bool, str], Path], judges: dict[bool, ByHand], adds_bos: bool, side: str, batch_size: Any
) -> None:
    results = ask(models[adds_bos, side], *FORMS, batch_size=batch_size)
    check_by_hand(results, judges[adds_bos])
    contexts = {row["arguments"][0][0] == "" for row in results["samples"]["kisl_wikidata_statement"]}
    assert contexts == {True, False}


@pytest.mark.parametrize("adds_bos", [False, True])
def test_add_bos_token_overrules_the_tokenizer(
    models: dict[tuple[bool, str], Path], judges: dict[bool, ByHand], adds_bos: bool
) -> None:
    folder = models[not adds_bos, "left"]
    arguments = {"pretrained": str(folder), "dtype": "float32", "add_bos_token": adds_bos}
    check_by_hand(ask(folder, *FORMS, model_args=arguments, metadata=arguments), judges[adds_bos])


TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "initializer_range": 0.3,
}
ARCHITECTURES: dict[str, PretrainedConfig] = {
    "llama with grouped queries": llama(num_attention_heads=4, num_key_value_heads=2),
    # The longest questions only are longer than the window.
    "mistral with a sliding window": MistralConfig(
        **TINY,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        sliding_window=84,
    ),
    # Some questions only are longer than its first positions; in a batch they would change the others' places.
    "phi-3 with longrope": Phi3Config(
        **TINY,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=0,
        max_position_embeddings=160,
        original_max_position_embeddings=62,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 62,
        },
    ),
    "gpt-neox": GPTNeoXConfig(
        **TINY,
        num_attention_heads=2,
        max_position_embeddings=128,
    ),
    "gpt-2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_equal_the_computation_by_hand(tmp_path: Path, name: str) -> None:
    make_model(tmp_path, config=ARCHITECTURES[name])
    check_by_hand(ask(tmp_path, *FORMS), ByHand(tmp_path))


def test_a_bfloat16_model_is_right_within_its_noise_and_the_results_say_so(tmp_path: Path) -> None:
    make_model(tmp_path, dtype=torch.bfloat16)
    arguments = {"pretrained": str(tmp_path), "dtype": "auto"}
    results = ask(tmp_path, *FORMS, model_args=arguments, metadata=arguments)
    judge = ByHand(tmp_path, dtype=torch.bfloat16)
    for task, rows in results["samples"].items():
        assert results["configs"][task]["metadata"]["kisl_probe"]["dtype"] == "bfloat16"
        for row in rows:
            expected = [math.log(judge.perplexity(*pair)) for pair in row["arguments"]]
            assert [math.log(value) for value in row["doc"]["perplexities"]] == pytest.approx(expected, abs=0.1)


def test_float32_is_named_in_the_results(models: dict[tuple[bool, str], Path]) -> None:
    results = ask(models[False, "left"], limit=1)
    probe = results["configs"]["kisl_wikidata"]["metadata"]["kisl_probe"]
    assert (probe["backend"], probe["dtype"]) == ("HFLM", "float32")


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("num_concurrent", [1, 2])
@pytest.mark.parametrize("tokenized", [True, False])
def test_a_served_model_equals_the_computation_by_hand(
    models: dict[tuple[bool, str], Path],
    judges: dict[bool, ByHand],
    served: Served,
    tokenized: bool,
    num_concurrent: int,
    batch_size: int,
) -> None:
    folder = models[False, "left"]
    served.requests.clear()
    changes = {"tokenized_requests": tokenized, "num_concurrent": num_concurrent}
    results = ask(folder, *FORMS, batch_size=batch_size, limit=4, **served_by(served, folder, **changes))
    check_by_hand(results, judges[False], items=4)
    assert len(served.requests) == 3 * 4 * 4 / batch_size
    prompt = served.requests[0]["prompt"]
    first = prompt[0] if isinstance(prompt, list) else prompt
    assert isinstance(first, list if tokenized else str)


def test_a_served_model_with_bos_equals_the_computation_by_hand(
    models: dict[tuple[bool, str], Path], judges: dict[bool, ByHand], served: Served
) -> None:
    folder = models[True, "left"]
    results = ask(folder, *FORMS, limit=6, **served_by(served, folder, add_bos_token=True))
    check_by_hand(results, judges[True], items=6)


@pytest.mark.parametrize("batch_size", [4, "auto"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_vllm_equals_the_computation_by_hand(
    models: dict[tuple[bool, str], Path],
    judges: dict[bool, ByHand],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    adds_bos: bool,
    batch_size: Any,
) -> None:
    install_vllm(monkeypatch, tmp_path)
    folder = models[adds_bos, "left"]
    arguments = {"pretrained": str(folder), "dtype": "float32"}
    results = ask(folder, *FORMS, batch_size=batch_size, model="vllm", model_args=arguments)
    check_by_hand(results, judges[adds_bos])
    probe = results["configs"]["kisl_wikidata"]["metadata"]["kisl_probe"]
    assert (probe["backend"], probe["dtype"]) == ("VLLM", "float32")
