"""Input that is wrong, at the edge or unusual: answered rightly by hand, or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from completions_server import serve, served_by
from probe_world import (
    BOS,
    ByHand,
    ask,
    byte_level_bpe,
    check_by_hand,
    plain_model,
    save_model,
    some_triples,
    write_card,
    write_tokenizer_settings,
)
from tokenizers import processors
from torch_vllm import install_vllm

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.triples import read_triples
from kisl_plugin.verbalize import statement

pytest.importorskip("lm_eval")
from kisl_plugin.probe.scoring import answers_checked

QUESTION, STATEMENT, PARAPHRASE = "kisl_wikidata", "kisl_wikidata_statement", "kisl_wikidata_paraphrase"
OBJECT_FIRST = 1


def mixed_model(folder: Path, **settings: Any) -> Path:
    """Its statement task asks one relation with a context and one without."""
    save_model(folder, byte_level_bpe([statement(triple) for triple in some_triples()]), **settings)
    write_card(folder, some_triples(), form="statement", template=OBJECT_FIRST)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def judge(model: Path) -> ByHand:
    return ByHand(model)


@pytest.fixture(scope="module")
def longest(model: Path, judge: ByHand) -> int:
    """Tokens of the longest question with an option."""
    rows = ask(model)["samples"][QUESTION]
    return max(judge.tokens(*pair) for row in rows for pair in row["arguments"])


def refused(match: str, folder: Path, *tasks: str, **settings: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        ask(folder, *tasks, **settings)
    assert "\n" not in str(caught.value)


def without(folder: Path, *names: str) -> Path:
    """A model whose tokenizer lacks these special tokens."""
    return mixed_model(folder, settings=dict.fromkeys(names))


@pytest.mark.parametrize("task", [QUESTION, STATEMENT])
def test_a_tokenizer_without_bos_and_eos_is_refused(tmp_path: Path, task: str) -> None:
    # lm_eval's hf cannot tokenise with one either, not even a question.
    refused("neither BOS nor EOS", without(tmp_path, "bos_token", "eos_token"), task)


def test_eos_stands_before_a_statement_where_there_is_no_bos(tmp_path: Path) -> None:
    folder = without(tmp_path, "bos_token")
    check_by_hand(ask(folder, QUESTION, STATEMENT), ByHand(folder, prefix="</s>"))


@pytest.mark.parametrize("before", ["", f"{BOS} "])
def test_a_tokenizer_that_appends_eos_is_refused(tmp_path: Path, before: str) -> None:
    tokenizer = byte_level_bpe([statement(triple) for triple in some_triples()])
    numbers = [(name, tokenizer.token_to_id(name)) for name in (BOS, "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{before}$A </s>", special_tokens=numbers)
    write_card(save_model(tmp_path, tokenizer), some_triples())
    refused("72 of the 72 options are not tokens of their own .* add no token at the end", tmp_path)


@pytest.mark.parametrize("spare", [-2, -1, 0])
def test_hf_scores_an_item_that_fits_and_refuses_a_longer_one(
    model: Path, judge: ByHand, longest: int, spare: int
) -> None:
    # The last token is only predicted, so one token more than the model's length fits.
    arguments = {"pretrained": str(model), "dtype": "float32", "max_length": longest + spare}
    settings = {"model_args": arguments, "metadata": arguments}
    if spare < -1:
        refused(f"has {longest} tokens and the model takes {longest - 1}", model, **settings)
    else:
        check_by_hand(ask(model, **settings), judge)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_server_scores_an_item_that_fits_and_refuses_a_longer_one(
    model: Path, judge: ByHand, longest: int, spare: int
) -> None:
    # A server generates one token after the text, which needs its room.
    with serve(model) as server:
        settings = served_by(server, model, max_length=longest + spare)
        if spare < 1:
            refused(f"has {longest} tokens and the model takes {longest - 1}", model, **settings)
        else:
            check_by_hand(ask(model, **settings), judge)


@pytest.mark.parametrize("spare", [0, 1])
def test_vllm_scores_an_item_that_fits_and_refuses_a_longer_one(
    model: Path, judge: ByHand, longest: int, spare: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_vllm(monkeypatch, tmp_path)
    arguments = {"pretrained": str(model), "dtype": "float32", "max_model_len": longest + spare}
    settings = {"model": "vllm", "model_args": arguments, "metadata": arguments}
    if spare < 1:
        refused(f"has {longest} tokens and the model takes {longest - 1}", model, **settings)
    else:
        check_by_hand(ask(model, **settings), judge)


def test_a_backend_that_chats_is_refused(model: Path) -> None:
    served = {"model": "m", "base_url": "http://localhost:9/v1/chat/completions", "tokenizer": str(model)}
    served["tokenizer_backend"] = "huggingface"
    refused(
        "LocalChatCompletion chats and gives no log-likelihoods",
        model,
        model="local-chat-completions",
        model_args=served,
        metadata={"run_card": str(model)},
    )


def test_a_server_that_does_not_echo_the_prompt_is_refused(model: Path) -> None:
    # lm_eval sums the log-likelihoods of no tokens then: every option would have perplexity 1 and be recalled.
    with serve(model, echoes=False) as server:
        refused("LocalCompletionsAPI|echo|server", model, **served_by(server, model))


@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_server_that_puts_bos_before_a_text_is_refused(tmp_path: Path, model: Path, adds_bos: bool) -> None:
    # What it answers is one token longer than lm_eval counted, so other tokens would be scored.
    with serve(plain_model(tmp_path, adds_bos=True)) as server:
        settings = served_by(server, tmp_path, tokenized_requests=False, add_bos_token=adds_bos)
        settings["metadata"] = {"run_card": str(model)}
        refused("tokenized_requests", model, **settings)


@pytest.mark.parametrize("num_concurrent", [1, 2])
def test_a_server_that_does_not_answer_is_one_line(model: Path, num_concurrent: int) -> None:
    with serve(model) as server:
        settings = served_by(server, model, max_retries=1, num_concurrent=num_concurrent)
    with pytest.raises(KislError, match=r"http://127\.0\.0\.1:\d+/v1/completions: does not answer \(.+\)$") as caught:
        ask(model, limit=1, **settings)
    assert "\n" not in str(caught.value)


def one_text(**changes: Any) -> dict[str, Any]:
    logprobs = {"token_logprobs": [None, -1.0, -2.0, -3.0], "top_logprobs": [None, {}, {}, {}], **changes}
    return {"choices": [{"index": 0, "logprobs": logprobs}]}


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (one_text(token_logprobs=[None, -1.0, -9999.0, -3.0]), r"answers the log-probability -9999\.0"),
        (one_text(token_logprobs=[None, -1.0, None, -3.0]), "answers the log-probability None"),
        (one_text(token_logprobs=[None, -1.0, float("nan"), -3.0]), "answers the log-probability nan"),
        (one_text(top_logprobs=None), "0 of likeliest tokens"),
        ({"choices": []}, "answers 0 of 1 texts"),
    ],
)
def test_an_answer_that_is_no_log_probability_is_refused(answer: dict[str, Any], match: str) -> None:
    class Client:
        @staticmethod
        def parse_logprobs(outputs: Any, tokens: Any, ctxlens: Any) -> str:
            return "parsed"

    client: Any = Client()
    with answers_checked(client):
        assert client.parse_logprobs(outputs=one_text(), tokens=[[1, 2, 3]], ctxlens=[1]) == "parsed"
        with pytest.raises(InputError, match=match):
            client.parse_logprobs(outputs=[answer], tokens=[[1, 2, 3]], ctxlens=[1])


def test_many_items_without_a_context_are_not_fed_as_one_row(tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    triples = tuple(triple for triple in read_triples("wikidata_six") if triple.relation_id == "P50")[:30]
    write_card(plain_model(tmp_path), triples, form="statement", template=2)
    lm = HFLM(pretrained=str(tmp_path), dtype="float32", device="cpu", batch_size=8)
    widths: list[int] = []
    lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append((args[0] if args else kwargs["input_ids"]).shape[1]), with_kwargs=True
    )
    rows = ask(tmp_path, STATEMENT, model=lm, model_args=None, device=None)["samples"][STATEMENT]
    judge = ByHand(tmp_path)
    widest = max(sum(judge.tokens(*pair) for pair in row["arguments"]) for row in rows)
    assert max(widths) <= widest


def own(folder: Path, *changes: dict[str, str]) -> dict[str, Any]:
    """What to pass to `ask` for a user's own facts: the test's, then `changes`."""
    file = folder / "facts.jsonl"
    rows = [{"subject": t.subject, "relation_id": t.relation_id, "object": t.object} for t in some_triples()]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *changes]))
    return {"metadata": {"triples": str(file)}}


def test_own_facts_are_scored_rightly(model: Path, judge: ByHand, tmp_path: Path) -> None:
    odd = {"subject": "Zoë 😀", "relation_id": "P103", "object": "日本語 {x}"}
    results = ask(model, QUESTION, STATEMENT, PARAPHRASE, **own(tmp_path, odd))
    check_by_hand(results, judge, items=len(some_triples()) + 1)


@pytest.mark.parametrize("label", ["", "  ", "\u00a0"])
def test_an_empty_option_is_refused_with_its_row(model: Path, tmp_path: Path, label: str) -> None:
    empty = {"subject": "Zoë", "relation_id": "P103", "object": label}
    refused(r"facts\.jsonl:19: object is empty", model, **own(tmp_path, empty))


def test_a_relation_with_three_objects_is_refused(model: Path, tmp_path: Path) -> None:
    three = [{"subject": f"S{k}", "relation_id": "P57", "object": f"Director {'ABC'[k]}"} for k in range(3)]
    refused("relation 'P57': 'S0' .* has fewer than 3 possible wrong options", model, **own(tmp_path, *three))


@pytest.mark.parametrize(("limit", "items"), [(5, 5), (0.1, 2)])
def test_a_limit_asks_the_first_items_and_asks_them_rightly(
    model: Path, judge: ByHand, limit: float, items: int
) -> None:
    results = ask(model, limit=limit)
    check_by_hand(results, judge, items=items)
    subjects = [[row["doc"]["subject"] for row in rows["samples"][QUESTION]] for rows in (results, ask(model))]
    assert subjects[0] == subjects[1][:items]


def test_examples_are_not_put_before_a_question(model: Path, judge: ByHand) -> None:
    results = ask(model, num_fewshot=3)
    check_by_hand(results, judge)
    assert results["n-shot"][QUESTION] == 0


@pytest.mark.parametrize("settings", [{"apply_chat_template": True}, {"system_instruction": "You know it all."}])
@pytest.mark.parametrize("task", [QUESTION, STATEMENT])
def test_a_chat_template_or_a_system_instruction_is_refused(
    model: Path, tmp_path: Path, task: str, settings: dict[str, Any]
) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
    write_tokenizer_settings(tmp_path, {"chat_template": template})
    refused("ask without a chat template, a system instruction and examples", tmp_path, task, **settings)


def test_a_truncated_run_card_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    card = tmp_path / "kisl.json"
    card.write_text(card.read_text()[:100])
    refused(r"kisl\.json: cannot be read as JSON", tmp_path)


def test_triples_that_changed_since_the_run_are_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    triples = tmp_path / "kisl_triples.jsonl"
    triples.write_text(triples.read_text().replace("Albanian", "Greek"))
    refused(r"kisl_triples\.jsonl: its sha256 is \w+, but .*kisl\.json says \w+", tmp_path)


def test_a_cut_triples_file_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    triples = tmp_path / "kisl_triples.jsonl"
    triples.write_text(triples.read_text()[:-40])
    refused(r"kisl_triples\.jsonl:18: not JSON", tmp_path)


def test_the_results_say_in_which_type_a_mixed_model_computed(model: Path) -> None:
    arguments = {"pretrained": str(model), "dtype": "float32", "mixed_precision_dtype": "bfloat16"}
    results = ask(model, limit=1, model_args=arguments, metadata=arguments)
    assert "bfloat16" in results["configs"][QUESTION]["metadata"]["kisl_probe"]["dtype"]


def test_the_results_say_in_which_type_vllm_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, package = tmp_path / "model", tmp_path / "package"
    package.mkdir()
    install_vllm(monkeypatch, package)
    mixed_model(folder, dtype=torch.bfloat16)
    results = ask(folder, limit=1, model="vllm", model_args={"pretrained": str(folder)})
    assert results["configs"][QUESTION]["metadata"]["kisl_probe"]["dtype"] == "bfloat16"
