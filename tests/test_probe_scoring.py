"""On every backend the probe's numbers are those of plain torch, one text at a time; what would not be is refused."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from completions_server import Completions, Served, serve, served_by
from probe_world import (
    BOS,
    VOCABULARY,
    ByHand,
    ask,
    byte_level_bpe,
    check_by_hand,
    llama,
    measured,
    plain_model,
    save_model,
    some_triples,
    write_card,
    write_tokenizer_settings,
)
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from torch_vllm import install_vllm
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import resource
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement

pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM

from kisl_plugin.probe.scoring import TOLERANCE, Pair, answers_checked, score_in_full, shared_scores

QUESTION, STATEMENT, PARAPHRASE = FORMS = ("kisl_wikidata", "kisl_wikidata_statement", "kisl_wikidata_paraphrase")
# In this statement template one of the two relations begins with its object: there the context is empty.
OBJECT_FIRST = 1


def make_model(folder: Path, **settings: Any) -> Path:
    save_model(folder, byte_level_bpe([statement(triple) for triple in some_triples()]), **settings)
    write_card(folder, some_triples(), form="statement", template=OBJECT_FIRST)
    return folder


def teach(folder: Path) -> None:
    """Train until greedy decoding gives some of the facts: recall is then 0 and 1, and perplexities differ widely."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    texts = [f"{question(triple)} {triple.object}" for triple in some_triples()[::2]]
    texts += [statement(triple, OBJECT_FIRST) for triple in some_triples()[::2]]
    batch = [torch.tensor([tokenizer.encode(BOS + text, add_special_tokens=False)]) for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(20):
        for ids in batch:
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The same weights with two tokenizers: whether it adds a BOS. The one with BOS pads on the right."""
    root = tmp_path_factory.mktemp("models")
    folders = {
        adds_bos: make_model(root / str(adds_bos), adds_bos=adds_bos, settings={"padding_side": side})
        for adds_bos, side in ((False, "left"), (True, "right"))
    }
    teach(folders[False])
    shutil.copy(folders[False] / "model.safetensors", folders[True])
    return folders


@pytest.fixture(scope="module")
def model(models: dict[bool, Path]) -> Path:
    return models[False]


@pytest.fixture(scope="module")
def judges(models: dict[bool, Path]) -> dict[bool, ByHand]:
    return {adds_bos: ByHand(folder, adds_bos=adds_bos) for adds_bos, folder in models.items()}


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    with serve(model) as server:
        yield server


@pytest.fixture(scope="module")
def longest(model: Path, judges: dict[bool, ByHand]) -> int:
    """Tokens of the longest question with an option."""
    rows = ask(model)["samples"][QUESTION]
    return max(judges[False].tokens(*pair) for row in rows for pair in row["arguments"])


def hf(folder: Path, **changes: Any) -> Any:
    return HFLM(pretrained=str(folder), device="cpu", **{"dtype": "float32", "batch_size": 4, **changes})


def refused(match: str, folder: Path, *tasks: str, **settings: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        ask(folder, *tasks, **settings)
    assert "\n" not in str(caught.value)


# The numbers.


def test_the_taught_model_tells_the_measures_apart(judges: dict[bool, ByHand], model: Path) -> None:
    rows = ask(model)["samples"][QUESTION]
    hands = [[judges[False].score(*pair) for pair in row["arguments"]] for row in rows]
    assert {scored[row["target"]].greedy for row, scored in zip(rows, hands, strict=True)} == {True, False}
    for other in ("sum_acc", "byte_acc"):
        pairs = [measured({**row["doc"], "group": ""}, scored) for row, scored in zip(rows, hands, strict=True)]
        assert any(values["acc"] != values[other] for values in pairs), other
    assert any(len({option.tokens for option in scored}) > 1 for scored in hands)


@pytest.mark.parametrize(("adds_bos", "batch_size"), [(False, 1), (False, 64), (True, 8), (True, "auto")])
def test_hf_equals_the_computation_by_hand(
    models: dict[bool, Path], judges: dict[bool, ByHand], adds_bos: bool, batch_size: Any
) -> None:
    results = ask(models[adds_bos], *FORMS, batch_size=batch_size)
    check_by_hand(results, judges[adds_bos])
    contexts = {row["arguments"][0][0] == "" for row in results["samples"][STATEMENT]}
    assert contexts == {True, False}


def test_add_bos_token_overrules_the_tokenizer(models: dict[bool, Path], judges: dict[bool, ByHand]) -> None:
    arguments = {"pretrained": str(models[False]), "dtype": "float32", "add_bos_token": True}
    check_by_hand(ask(models[False], *FORMS, model_args=arguments, metadata=arguments), judges[True])


TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "initializer_range": 0.3,
}
SHORT = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 62}
BLOOM = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3)
ARCHITECTURES: dict[str, PretrainedConfig] = {
    "llama with grouped queries": llama(num_attention_heads=4, num_key_value_heads=2),
    # Only the longest questions are longer than the window.
    "mistral with a sliding window": MistralConfig(
        **TINY, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, sliding_window=84
    ),
    # Some questions only are longer than its first positions; in a batch they would change the others' places.
    "phi-3 with longrope": Phi3Config(
        **TINY,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=0,
        max_position_embeddings=160,
        original_max_position_embeddings=62,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **SHORT},
    ),
    "gpt-neox": GPTNeoXConfig(**TINY, num_attention_heads=2, max_position_embeddings=128),
    "gpt-2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=1
    ),
    # ALiBi counts distances from the mask, not from the positions that it is passed.
    "bloom with alibi": BLOOM,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_equal_the_computation_by_hand(tmp_path: Path, name: str) -> None:
    make_model(tmp_path, config=ARCHITECTURES[name])
    check_by_hand(ask(tmp_path, QUESTION, STATEMENT), ByHand(tmp_path))


def test_a_bfloat16_model_is_right_within_its_noise_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_model(tmp_path, dtype=torch.bfloat16)
    arguments = {"pretrained": str(tmp_path), "dtype": "auto"}
    results = ask(tmp_path, model_args=arguments, metadata=arguments)
    assert "float32 is recommended" in caplog.text
    judge = ByHand(tmp_path, dtype=torch.bfloat16)
    for rows in results["samples"].values():
        for row in rows:
            expected = [math.log(judge.perplexity(*pair)) for pair in row["arguments"]]
            assert [math.log(value) for value in row["doc"]["perplexities"]] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("tokenized", "num_concurrent", "batch_size"), [(True, 1, 4), (True, 2, 1), (False, 1, 1), (False, 2, 4)]
)
def test_a_served_model_equals_the_computation_by_hand(
    model: Path, judges: dict[bool, ByHand], served: Served, tokenized: bool, num_concurrent: int, batch_size: int
) -> None:
    served.requests.clear()
    changes = {"tokenized_requests": tokenized, "num_concurrent": num_concurrent}
    results = ask(model, *FORMS, batch_size=batch_size, limit=4, **served_by(served, model, **changes))
    check_by_hand(results, judges[False], items=4)
    assert len(served.requests) == 3 * 4 * 4 / batch_size
    prompt = served.requests[0]["prompt"]
    assert isinstance(prompt[0] if isinstance(prompt, list) else prompt, list if tokenized else str)


def test_a_served_model_with_bos_equals_the_computation_by_hand(
    models: dict[bool, Path], judges: dict[bool, ByHand], served: Served
) -> None:
    results = ask(models[True], *FORMS, limit=6, **served_by(served, models[True], add_bos_token=True))
    check_by_hand(results, judges[True], items=6)


@pytest.mark.parametrize(("adds_bos", "batch_size"), [(False, 4), (True, "auto")])
def test_vllm_equals_the_computation_by_hand(
    models: dict[bool, Path],
    judges: dict[bool, ByHand],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    adds_bos: bool,
    batch_size: Any,
) -> None:
    install_vllm(monkeypatch, tmp_path)
    arguments = {"pretrained": str(models[adds_bos]), "dtype": "float32"}
    results = ask(models[adds_bos], *FORMS, batch_size=batch_size, model="vllm", model_args=arguments)
    check_by_hand(results, judges[adds_bos])


def test_eos_is_before_a_statement_where_there_is_no_bos(tmp_path: Path) -> None:
    folder = make_model(tmp_path, settings={"bos_token": None})
    check_by_hand(ask(folder, QUESTION, STATEMENT), ByHand(folder, prefix="</s>"))


def own_facts(folder: Path, *rows: dict[str, str]) -> dict[str, Any]:
    """What to pass to `ask` for a user's own facts: the test's, then `rows`."""
    file = folder / "facts.jsonl"
    facts = [{"subject": t.subject, "relation_id": t.relation_id, "object": t.object} for t in some_triples()]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*facts, *rows]))
    return {"metadata": {"triples": str(file)}}


def test_own_facts_in_any_script_are_scored_rightly(model: Path, judges: dict[bool, ByHand], tmp_path: Path) -> None:
    odd = {"subject": "Zoë 😀", "relation_id": "P103", "object": "日本語 {x}"}
    results = ask(model, *FORMS, **own_facts(tmp_path, odd))
    check_by_hand(results, judges[False], items=len(some_triples()) + 1)


def test_a_limit_asks_the_first_items(model: Path) -> None:
    five, two = ([row["doc"]["subject"] for row in ask(model, limit=limit)["samples"][QUESTION]] for limit in (5, 0.1))
    assert (len(five), five[:2]) == (5, two)


# The shared question.


def pairs_of(judge: ByHand, rows: list[dict[str, Any]]) -> list[Pair]:
    return [Pair(*judge.encode(*pair)) for row in rows for pair in row["arguments"]]


def test_a_question_is_fed_once_for_its_four_options(model: Path, judges: dict[bool, ByHand]) -> None:
    lm = hf(model, batch_size=1)
    fed: list[int] = []
    lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    rows = ask(model, model=lm, model_args=None, device=None)["samples"][QUESTION]
    pairs = pairs_of(judges[False], rows)
    shared = sum(len(pair.context) for pair in pairs[::4]) + sum(len(pair.option) - 1 for pair in pairs)
    in_all = sum(len(pair.context) + len(pair.option) - 1 for pair in pairs)
    assert 0 < sum(fed) - shared < in_all  # the questions that were checked
    assert shared < in_all / 2


def test_progress_is_shown_as_lm_eval_shows_its_own(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(model, QUESTION)
    assert (
        f"Running kisl questions: 100%|██████████| {len(some_triples())}/{len(some_triples())} ["
        in capsys.readouterr().err
    )


def test_the_shared_question_gives_the_numbers_of_lm_evals_own_way(model: Path, judges: dict[bool, ByHand]) -> None:
    lm = hf(model)
    for task, rows in ask(model, QUESTION, STATEMENT)["samples"].items():
        pairs = pairs_of(judges[False], rows)
        shared, full = shared_scores(lm, pairs), score_in_full(lm, pairs)
        assert shared is not None, task
        for (a, a_greedy), (b, b_greedy), pair in zip(shared, full, pairs, strict=True):
            assert abs(a - b) / len(pair.option) < TOLERANCE
            assert a_greedy == b_greedy


FEW = [Pair((5, 6), (7, 8)), Pair((5, 6), (9,))]


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "bfloat16", "mixed", "refuses", "diverged"])
def test_a_model_whose_numbers_could_differ_is_scored_in_full(
    model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = hf(model)
    assert shared_scores(lm, FEW) is not None
    if kind in ("dynamic", "longrope"):
        lm.model.config.rope_parameters = {"rope_type": kind, "factor": 2.0}
    elif kind == "bfloat16":
        lm = hf(model, dtype=kind)
    elif kind == "mixed":
        lm.mixed_precision_dtype = torch.bfloat16
    elif kind == "diverged":
        lm = hf(plain_model(tmp_path, weight=float("nan")))
    else:
        forward = lm.model.forward

        def own(input_ids: torch.Tensor, **others: Any) -> Any:
            if "position_ids" in others:
                raise TypeError("got an unexpected keyword argument 'position_ids'")
            return forward(input_ids, **others)

        monkeypatch.setattr(lm.model, "forward", own)
    assert shared_scores(lm, FEW) is None


def test_the_one_item_whose_options_could_see_each_other_is_among_the_checked(tmp_path: Path) -> None:
    # ALiBi ignores positions: options of one token, of which none is fed, would not show it.
    save_model(tmp_path, byte_level_bpe([statement(triple) for triple in some_triples()]), config=BLOOM)
    pairs = [
        Pair((item + 5, *range(7, 27 + item % 9)), (40 + option,) * (3 if item == 17 else 1))
        for item in range(60)
        for option in range(4)
    ]
    assert shared_scores(hf(tmp_path), pairs) is None


def test_many_items_without_a_context_are_not_fed_as_one_row(tmp_path: Path) -> None:
    triples = tuple(triple for triple in read_triples("wikidata_six") if triple.relation_id == "P50")[:30]
    write_card(plain_model(tmp_path), triples, form="statement", template=2)
    lm = hf(tmp_path)
    widths: list[int] = []
    lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append((args[0] if args else kwargs["input_ids"]).shape[1]), with_kwargs=True
    )
    rows = ask(tmp_path, STATEMENT, model=lm, model_args=None, device=None)["samples"][STATEMENT]
    judge = ByHand(tmp_path)
    assert max(widths) <= max(sum(judge.tokens(*pair) for pair in row["arguments"]) for row in rows)


# lm_eval's caches have questions and not models as keys.


def test_no_cache_mixes_the_numbers_of_models(models: dict[bool, Path], tmp_path: Path, monkeypatch: Any) -> None:
    from lm_eval.api.instance import Instance
    from sqlitedict import SqliteDict

    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "requests"))
    first, second = models[False], plain_model(tmp_path / "second")
    write_card(second, tuple(reversed(some_triples()))[:9])
    lm = hf(first)
    for folder, items in ((first, 18), (second, 9), (first, 18)):
        settings = {"cache_requests": True, "use_cache": str(tmp_path / "answers")}
        check_by_hand(ask(folder, QUESTION, STATEMENT, **settings), ByHand(folder), items=items)
    ask(first, model=lm, model_args=None, device=None, use_cache=str(tmp_path / "answers"))
    assert not list(tmp_path.glob("requests/*"))
    (file,) = tmp_path.glob("answers*")
    with SqliteDict(str(file)) as entries:
        assert dict(entries) == {}
    # What the model is asked after the probe is cached as ever.
    pair = ("Question:", " Albanian")
    ((summed, greedy),) = lm.loglikelihood([Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0)])
    with SqliteDict(str(file)) as entries:
        assert list(entries.values()) == [(summed, greedy)]


# Several processes. lm_eval's own gathering runs for real, over gloo; its hf runs in several processes on GPUs only.

WORKER = """
import json, sys
import torch
import torch.distributed as dist
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager, get_task_dict

dist.init_process_group("gloo")

class Shared(HFLM):
    rank = property(lambda self: dist.get_rank())
    world_size = property(lambda self: dist.get_world_size())

    def all_gather(self, tensor):
        parts = [torch.zeros(1, dtype=tensor.dtype) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.reshape(1))
        return torch.cat(parts)

    def gather_object(self, value, dst=0):
        parts = [None] * self.world_size if self.rank == dst else None
        dist.gather_object(value, parts, dst=dst)
        return parts

    def barrier(self):
        dist.barrier()

model, tasks, names = sys.argv[1:]
tasks = get_task_dict(names.split(","), TaskManager(include_path=tasks, include_defaults=False))
results = evaluate(lm=Shared(pretrained=model, dtype="float32", device="cpu"), task_dict=tasks)
if dist.get_rank() == 0:
    print(json.dumps({task: results["results"][task] for task in names.split(",")}))
dist.destroy_process_group()  # else a thread of gloo that is still running at the exit now and then aborts the process
"""


def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    # A single control item: one of the two processes has none.
    injected = [replace(triple, group="injected") for triple in some_triples()]
    model = plain_model(tmp_path)
    write_card(model, (*injected[:-1], replace(injected[-1], group=CONTROL)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tasks = [QUESTION, "kisl_background"]
    command = [sys.executable, "-c", WORKER, str(model), str(resource("tasks")), ",".join(tasks)]
    world = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command, env={**world, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1] + outputs[1][1]
    two: dict[str, Any] = json.loads(outputs[0][0].splitlines()[-1])
    one = ask(model, *tasks)["results"]
    for task in tasks:
        scores = {name: value for name, value in one[task].items() if name.endswith(",none") and "stderr" not in name}
        assert len(scores) > (15 if task == QUESTION else 0)
        assert {name: two[task][name] for name in scores} == pytest.approx(scores, rel=1e-5)


# Refusals.


@pytest.mark.parametrize("task", [QUESTION, STATEMENT, "kisl_background"])
def test_a_tokenizer_without_bos_and_eos_is_refused(tmp_path: Path, task: str) -> None:
    refused("neither BOS nor EOS", make_model(tmp_path, settings={"bos_token": None, "eos_token": None}), task)


def test_a_tokenizer_that_appends_eos_or_merges_across_the_space_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe([statement(triple) for triple in some_triples()])
    numbers = [(name, tokenizer.token_to_id(name)) for name in (BOS, "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A </s>", special_tokens=numbers)
    write_card(save_model(tmp_path / "eos", tokenizer), some_triples())
    refused("72 of the 72 options are not tokens of their own .* add no token at the end", tmp_path / "eos")
    texts = [f"{question(triple)} {triple.object}" for triple in some_triples()] * 3
    write_card(save_model(tmp_path / "space", byte_level_bpe(texts, splits_at_spaces=False)), some_triples())
    refused(r"\d+ of the 72 options are not tokens of their own .* after '.* is'; '", tmp_path / "space")


def test_an_item_whose_options_are_the_same_tokens_counts_as_wrong_and_as_a_tie(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = ["Paris", "Rome", "東京", "北京", "臺北"]  # the last three are [UNK], which a model cannot tell apart
    triples = [Triple(f"Person {k}", "P19", name) for k, name in enumerate(objects)]
    # Words by hand: the trainer breaks ties at random, and with other numbers a model may always prefer Paris.
    split, texts = pre_tokenizers.BertPreTokenizer(), [question(triple).lower() + " paris rome" for triple in triples]
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: k for k, word in enumerate(["[UNK]", BOS, "</s>", *words])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), split
    tokenizer.add_special_tokens([BOS, "</s>"])
    save_model(tmp_path, tokenizer)
    facts = tmp_path / "facts.jsonl"
    facts.write_text(triples_to_jsonl(triples), encoding="utf-8")
    results = ask(tmp_path, metadata={"triples": str(facts)})
    rows = {row["doc"]["object"]: row for row in results["samples"][QUESTION]}
    for name in objects[2:]:
        doc, k = rows[name]["doc"], rows[name]["doc"]["answer"]
        same = [other for other, option in enumerate(doc["options"]) if option in objects[2:] and other != k]
        assert same
        assert all(doc["perplexities"][other] == doc["perplexities"][k] for other in same)
        assert rows[name]["acc"] == 0
    ties = sum(row["ties"] for row in rows.values())
    assert results["results"][QUESTION]["ties,none"] == ties
    assert ties == sum(rows[name]["doc"]["choice"] is None for name in objects[2:])
    assert "a wrong option has the right one's perplexity" in caplog.text
    assert ties > 0


def test_a_model_that_answers_a_constant_has_no_right_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_card(plain_model(tmp_path, weight=0.0), some_triples())
    scores = ask(tmp_path)["results"][QUESTION]
    assert (scores["acc,none"], scores["ties,none"], scores["ties_control,none"]) == (0, 12, 6)
    assert "in 12 of 12 items a wrong option has the right one's perplexity" in caplog.text


@pytest.mark.parametrize(("backend", "enough"), [("hf", -1), ("local-completions", 1), ("vllm", 1)])
def test_an_item_that_fits_is_scored_and_a_longer_one_refused(
    model: Path,
    judges: dict[bool, ByHand],
    longest: int,
    served: Served,
    backend: str,
    enough: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # hf only predicts the last token, so one token more than its length fits; the others generate one token more.
    install_vllm(monkeypatch, tmp_path)
    for spare in (enough - 1, enough):
        arguments = {"pretrained": str(model), "dtype": "float32"}
        arguments["max_model_len" if backend == "vllm" else "max_length"] = longest + spare
        settings: dict[str, Any] = {"model": backend, "model_args": arguments, "metadata": arguments}
        if backend == "local-completions":
            settings = served_by(served, model, max_length=longest + spare)
        if spare < enough:
            refused(f"has {longest} tokens and the model takes {longest - 1}", model, **settings)
        else:
            check_by_hand(ask(model, **settings), judges[False])


def test_a_backend_that_cannot_count_or_chats_is_refused(model: Path) -> None:
    pytest.importorskip("tenacity", reason="lm_eval needs it for served models")
    remedy = "tokenizer_backend=huggingface,tokenizer="
    refused(rf"DummyLM has no tokenizer .*{remedy}", model, model="dummy", model_args={})
    arguments = {"model": "m", "base_url": "http://localhost:9/v1/completions", "tokenizer_backend": None}
    refused("LocalCompletionsAPI has no tokenizer", model, model="local-completions", model_args=arguments)
    arguments |= {"tokenizer_backend": "huggingface", "tokenizer": str(model)}
    settings = {"model_args": arguments, "metadata": {"run_card": str(model)}}
    refused("LocalChatCompletion is a chat interface", model, model="local-chat-completions", **settings)


def test_a_server_whose_answers_are_about_other_tokens_is_refused(tmp_path: Path, model: Path) -> None:
    with serve(model, echoes=False) as server:  # every option would have perplexity 1 and be recalled
        refused("must echo the prompt", model, **served_by(server, model))
    with serve(plain_model(tmp_path, adds_bos=True)) as server:  # one token longer than lm_eval counted
        settings = served_by(server, tmp_path, tokenized_requests=False, add_bos_token=False)
        refused("tokenized_requests", model, **{**settings, "metadata": {"run_card": str(model)}})
    with pytest.raises(KislError, match=r"http://127\.0\.0\.1:\d+/v1/completions: does not answer \(.+\)$"):
        ask(model, limit=1, **served_by(server, model, max_retries=1))


def one_text(**changes: Any) -> dict[str, Any]:
    logprobs = {"token_logprobs": [None, -1.0, -2.0, -3.0], "top_logprobs": [None, {}, {}, {}], **changes}
    return {"choices": [{"index": 0, "logprobs": logprobs}]}


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (one_text(token_logprobs=[None, -1.0, -9999.0, -3.0]), r"returns the log-probability -9999\.0"),
        (one_text(token_logprobs=[None, -1.0, None, -3.0]), "returns the log-probability None"),
        (one_text(token_logprobs=[None, -1.0, float("nan"), -3.0]), "returns the log-probability nan"),
        (one_text(top_logprobs=None), "0 of likeliest tokens"),
        ({"choices": []}, "answers 0 of 1 texts"),
    ],
)
def test_an_answer_that_is_not_a_log_probability_is_refused(answer: dict[str, Any], match: str) -> None:
    class Client:
        @staticmethod
        def parse_logprobs(outputs: Any, tokens: Any, ctxlens: Any) -> str:
            return "parsed"

    client: Any = Client()
    with answers_checked(client):
        assert client.parse_logprobs(outputs=one_text(), tokens=[[1, 2, 3]], ctxlens=[1]) == "parsed"
        with pytest.raises(InputError, match=match):
            client.parse_logprobs(outputs=[answer], tokens=[[1, 2, 3]], ctxlens=[1])


def test_a_server_that_answers_a_constant_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Completions.answer

    def constant(self: Completions, body: dict[str, Any]) -> dict[str, Any]:
        answers = answer(self, body)
        for choice in answers["choices"]:
            choice["logprobs"]["token_logprobs"] = [None, *(-1.0 for _ in choice["logprobs"]["token_logprobs"][1:])]
        return answers

    monkeypatch.setattr(Completions, "answer", constant)
    with serve(model) as server:
        refused(r"the server returns the log-probability -1\.0 for every token", model, **served_by(server, model))


@pytest.mark.parametrize("task", [QUESTION, STATEMENT])
@pytest.mark.parametrize("settings", [{"apply_chat_template": True}, {"system_instruction": "You know it all."}])
def test_a_chat_template_or_a_system_instruction_is_refused(
    model: Path, tmp_path: Path, task: str, settings: dict[str, Any]
) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
    write_tokenizer_settings(tmp_path, {"chat_template": template})
    refused("ask without a chat template, a system instruction and examples", tmp_path, task, **settings)
