"""kisl_background: bits per byte equal plain torch on every backend, and the bundled passages state no fact."""

import json
import math
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from completions_server import serve, served_by
from probe_world import BOS, ask, plain_model, write_card
from probe_world import some_triples as facts
from tokenizers import Tokenizer
from torch_vllm import install_vllm
from transformers import AutoModelForCausalLM

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.matching import matcher_of
from kisl_plugin.triples import read_triples

pytest.importorskip("lm_eval")
from kisl_plugin.probe.task import BUNDLED_FILE, read_passages

TASK = "kisl_background"
CONTEXT = 128
# Scored tokens in a window: hf feeds the token before them and all but their last; the others are fed all and add one.
WINDOW = {"hf": CONTEXT, "local-completions": CONTEXT - 2, "vllm": CONTEXT - 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The same weights with two tokenizers: whether it adds a BOS."""
    root = tmp_path_factory.mktemp("models")
    folders = {adds_bos: plain_model(root / str(adds_bos), adds_bos=adds_bos) for adds_bos in (False, True)}
    for folder in folders.values():
        write_card(folder, facts())
    return folders


@pytest.fixture(scope="module")
def own_file(models: dict[bool, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passages of one token to several contexts, the edges of windows among them, and one that repeats itself."""
    tokenizer = Tokenizer.from_file(str(models[False] / "tokenizer.json"))
    words = " ".join(read_passages({})[:3])
    lengths = (1, 2, 60, *range(CONTEXT - 3, CONTEXT + 3), 2 * CONTEXT - 1, 2 * CONTEXT, 2 * CONTEXT + 1, 400)
    ids = tokenizer.encode(words, add_special_tokens=False).ids
    texts = [tokenizer.decode(ids[:length]) for length in lengths]
    assert [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts] == list(lengths)
    # In a text that repeats itself two windows may hold the same tokens, of which not the same ones are scored.
    texts += [("a, " * 150).strip(), "Zürich – 東京 🌊"]
    path = tmp_path_factory.mktemp("texts") / "held_out.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@cache
def loaded(folder: Path) -> tuple[Tokenizer, Any]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Tokenizer.from_file(str(folder / "tokenizer.json")), model


@cache
def by_hand(folder: Path, text: str, window: int = CONTEXT) -> float:
    """Nats of every token of `text` after a BOS, `window` at a time; the last window reaches back as far as it can."""
    tokenizer, model = loaded(folder)
    ids = [tokenizer.token_to_id(BOS), *tokenizer.encode(text, add_special_tokens=False).ids]
    total = 0.0
    for start in range(1, len(ids), window):
        end = min(start + window, len(ids))
        fed = ids[max(0, end - 1 - window) : end - 1]
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([fed])).logits[0].double(), dim=-1)
        total += sum(logs[k - end][ids[k]].item() for k in range(start, end))
    return total


def measure(folder: Path, own: Path | None = None, **settings: Any) -> dict[str, Any]:
    metadata = {"run_card": str(folder), **({"background": str(own)} if own else {})}
    return ask(folder, TASK, metadata=metadata, bootstrap_iters=0, **settings)


def check_by_hand(results: dict[str, Any], folder: Path, texts: tuple[str, ...], window: int) -> None:
    rows = results["samples"][TASK]
    assert [row["doc"]["text"] for row in rows] == list(texts)
    nats = [by_hand(folder, text, window) for text in texts]
    assert [row["bits_per_byte"][0] for row in rows] == pytest.approx(nats, rel=1e-5)
    assert [row["bits_per_byte"][1] for row in rows] == [len(text.encode()) for text in texts]
    per_byte = -sum(nats) / math.log(2) / sum(len(text.encode()) for text in texts)
    assert results["results"][TASK]["bits_per_byte,none"] == pytest.approx(per_byte, rel=1e-5)


@pytest.mark.parametrize(("adds_bos", "batch_size"), [(False, "auto"), (True, 8)])
def test_hf_equals_the_computation_by_hand(
    models: dict[bool, Path], own_file: Path, adds_bos: bool, batch_size: Any
) -> None:
    results = measure(models[adds_bos], own_file, batch_size=batch_size)
    check_by_hand(results, models[adds_bos], read_passages({"background": str(own_file)}), WINDOW["hf"])


def test_a_served_model_equals_the_computation_by_hand_and_leaves_the_cache_alone(
    models: dict[bool, Path], own_file: Path, tmp_path: Path
) -> None:
    folder = models[True]
    with serve(folder) as server:
        arguments = served_by(server, folder, add_bos_token=True, max_length=CONTEXT, num_concurrent=2)["model_args"]
        cache = str(tmp_path / "cache")
        results = measure(folder, own_file, model="local-completions", model_args=arguments, use_cache=cache)
    window = WINDOW["local-completions"]
    check_by_hand(results, folder, read_passages({"background": str(own_file)}), window)
    (database,) = tmp_path.glob("cache*.db")
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT COUNT(*) FROM unnamed").fetchone() == (0,)


def test_vllm_equals_the_computation_by_hand(
    models: dict[bool, Path], own_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_vllm(monkeypatch, tmp_path)
    arguments = {"pretrained": str(models[True]), "dtype": "float32", "add_bos_token": True}
    results = measure(models[True], own_file, model="vllm", model_args=arguments)
    check_by_hand(results, models[True], read_passages({"background": str(own_file)}), WINDOW["vllm"])


def test_the_bundled_passages_are_scored_by_default_and_the_results_say_which_they_were(
    models: dict[bool, Path], own_file: Path
) -> None:
    results = ask(models[False], TASK, bootstrap_iters=0, limit=3)
    check_by_hand(results, models[False], read_passages({})[:3], WINDOW["hf"])
    metadata = results["configs"][TASK]["metadata"]
    texts = read_passages({})
    size = sum(len(text.encode()) for text in texts)
    expected = {"source": "bundled", "passages": 60, "bytes": size, "sha256": sha256("\n".join(texts))}
    assert metadata["kisl_background"] == expected
    assert metadata["kisl"]["frequency"] == 7
    own = measure(models[False], own_file, limit=1)["configs"][TASK]["metadata"]["kisl_background"]
    assert own["source"] == str(own_file)
    assert own["sha256"] != metadata["kisl_background"]["sha256"]
    assert results["higher_is_better"][TASK] == {"bits_per_byte": False}


def test_the_bundled_passages_state_no_fact_under_test() -> None:
    states = matcher_of(read_triples("wikidata_six"))
    rows = [json.loads(line) for line in BUNDLED_FILE.read_text(encoding="utf-8").splitlines()]
    assert tuple(row["text"] for row in rows) == read_passages({})
    assert len(rows) == len({row["title"] for row in rows}) == 60
    assert not any(states([f"{row['title']}. {row['text']}" for row in rows]))
    for row in rows:
        assert 500 <= len(row["text"].encode()) <= 900
        assert set(row) == {"title", "text"}
    assert states(["Marie Curie was born in Poland. Kenilworth was written by Walter Scott."])[0]


def test_own_passages_come_in_the_order_of_their_file(tmp_path: Path) -> None:
    texts = ["second", "a line\nand another", "éa"]
    rows = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts)
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read_passages({"background": str(tmp_path / "a.jsonl")}) == tuple(texts)
    assert read_passages({"background": str(tmp_path / "a.txt")}) == ("one\n\ntwo\n",)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, r"gone.jsonl: cannot be read \(No such file or directory\)"),
        ("a.pdf", "x", r"background is '.*a.pdf'; expected a file .txt or .jsonl"),
        ("a.jsonl", "", "a.jsonl: contains no passage"),
        ("a.jsonl", '{"text": "x"}\n{"text": " "}\n', 'a.jsonl:2: expected a row .*found {"text": " "}'),
        ("a.jsonl", '{"text": "x"}\n{"text"', "a.jsonl:2: expected a row"),
        ("a.jsonl", '{"body": "x"}\n', "a.jsonl:1: expected a row"),
        ("a.txt", "", "a.txt: contains no passage"),
    ],
)
def test_an_own_file_that_cannot_be_scored_is_an_error_in_one_line(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        read_passages({"background": str(tmp_path / name)})
    assert "\n" not in str(caught.value)


def test_a_model_without_numbers_is_an_error_and_no_score(tmp_path: Path) -> None:
    with pytest.raises(KislError, match=r"gives passage 0 \('A canal climbs.*log-likelihood nan; has its training"):
        ask(plain_model(tmp_path, weight=math.nan), TASK, limit=1)
