import inspect
import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probe_world import ByHand, ask, byte_level_bpe, plain_model, save_model, some_triples, write_card
from transformers import AutoModelForCausalLM

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.probe.items import MEASURES, all_names
from kisl_plugin.resources import resource
from kisl_plugin.runcard import read_run_card
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import question, statement, templates_of

pytest.importorskip("lm_eval")
from kisl_plugin.probe.task import QuestionProbe

FORMS = ("kisl_wikidata", "kisl_wikidata_statement")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two models of the same weights and run card; the key says whether the tokenizer adds a BOS."""
    root = tmp_path_factory.mktemp("models")
    folders = {adds: plain_model(root / f"bos_{adds}", adds_bos=adds) for adds in (False, True)}
    for folder in folders.values():
        write_card(folder, some_triples())
    return folders


def asked_triple(row: dict[str, Any]) -> Triple:
    """The triple that a sample row is about; no two of `some_triples` have one subject."""
    (triple,) = (triple for triple in some_triples() if triple.subject == row["doc"]["subject"])
    return triple


def check_by_hand(rows: list[dict[str, Any]], judge: ByHand) -> None:
    for row in rows:
        pairs = row["arguments"][:4]
        expected = [judge.perplexity(context, continuation) for context, continuation in pairs]
        assert row["doc"]["perplexities"] == pytest.approx(expected, rel=1e-4)
        choice = expected.index(min(expected))
        assert row["doc"]["choice"] == choice
        metric = "acc_control" if row["doc"]["group"] == CONTROL else "acc"
        assert ("acc" in row, "acc_control" in row) == (metric == "acc", metric == "acc_control")
        assert row[metric] == float(choice == row["target"])


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_perplexities_choice_and_accuracy_equal_those_by_hand(
    models: dict[bool, Path], adds_bos: bool, batch_size: int
) -> None:
    results = ask(models[adds_bos], *FORMS, batch_size=batch_size)
    judge = ByHand(models[adds_bos], adds_bos=adds_bos)
    for task in FORMS:
        rows = results["samples"][task]
        assert len(rows) == len(some_triples())
        check_by_hand(rows, judge)
        for metric in ("acc", "acc_control"):
            values = [row[metric] for row in rows if metric in row]
            mean = sum(values) / len(values)
            stderr = math.sqrt(mean * (1 - mean) / (len(values) - 1))
            assert results["results"][task][f"{metric},none"] == pytest.approx(mean)
            assert results["results"][task][f"{metric}_stderr,none"] == pytest.approx(stderr)


def test_options_differ_in_length_so_that_the_sum_would_choose_otherwise(models: dict[bool, Path]) -> None:
    rows = ask(models[False])["samples"]["kisl_wikidata"]
    sums = [[summed for summed, _, _ in row["filtered_resps"]] for row in rows]
    assert any(len({tokens for _, _, tokens in row["filtered_resps"]}) > 1 for row in rows)
    assert any(row["doc"]["choice"] != s.index(max(s)) for row, s in zip(rows, sums, strict=True))


def test_every_measure_is_that_of_the_logged_log_likelihoods(models: dict[bool, Path]) -> None:
    results = ask(models[False])
    rows = results["samples"]["kisl_wikidata"]
    for row in rows:
        end = "_control" if row["doc"]["group"] == CONTROL else ""
        sums, greedy, tokens = zip(*row["filtered_resps"], strict=True)
        right, sizes = row["target"], [len(option.encode()) for option in row["doc"]["options"]]
        per_token = [total / n for total, n in zip(sums, tokens, strict=True)]
        best_wrong = max(value for k, value in enumerate(per_token) if k != right)
        expected = {
            "acc": per_token.index(max(per_token)) == right,
            "sum_acc": sums.index(max(sums)) == right,
            "byte_acc": max(range(4), key=lambda k: sums[k] / sizes[k]) == right,
            "perplexity": math.exp(-per_token[right]),
            "margin": per_token[right] - best_wrong,
            "recall": greedy[right],
            "items": 1,
        }
        found = {name: row[f"{name}{end}"] for name in MEASURES}
        assert found == pytest.approx({name: float(value) for name, value in expected.items()})
    scores = results["results"]["kisl_wikidata"]
    perplexities = [math.log(row["perplexity"]) for row in rows if "perplexity" in row]
    assert scores["perplexity,none"] == pytest.approx(math.exp(sum(perplexities) / 12))
    assert (scores["items,none"], scores["items_control,none"]) == (12, 6)


def test_every_relation_has_an_accuracy_of_its_own(models: dict[bool, Path]) -> None:
    results = ask(models[False])
    scores, rows = results["results"]["kisl_wikidata"], results["samples"]["kisl_wikidata"]
    for relation in sorted({triple.relation_id for triple in some_triples()}):
        values = [row["acc"] for row in rows if "acc" in row and row["doc"]["relation_id"] == relation]
        assert scores[f"relation_acc_{relation},none"] == pytest.approx(sum(values) / len(values))
        assert len(values) == 6


def test_a_sample_row_holds_question_option_pairs_target_and_the_triple(models: dict[bool, Path]) -> None:
    rows = ask(models[False])["samples"]["kisl_wikidata"]
    assert {asked_triple(row) for row in rows} == set(some_triples())
    for row in rows:
        doc, triple = row["doc"], asked_triple(row)
        assert [context for context, _ in row["arguments"]] == [question(triple)] * 4
        assert row["arguments"][row["target"]][1] == f" {triple.object}"
        fields = ("subject", "relation_id", "object", "subject_id", "object_id", "group")
        assert [doc[field] for field in fields] == [getattr(triple, field) for field in fields]
        assert (doc["frequency"], doc["template"]) == (0 if triple.group == CONTROL else 7, 0)
        assert len(doc["perplexities"]) == 4


def test_the_injected_statement_is_what_the_statement_task_scores(models: dict[bool, Path]) -> None:
    rows = ask(models[False], "kisl_wikidata_statement")["samples"]["kisl_wikidata_statement"]
    for row in rows:
        assert "".join(row["arguments"][row["target"]]) == statement(asked_triple(row))


def test_the_paraphrase_is_in_a_template_that_was_not_injected(models: dict[bool, Path], tmp_path: Path) -> None:
    injected = [0, 1, 3]
    folder = plain_model(tmp_path)
    write_card(folder, some_triples(), form="statement", template=injected)
    rows = ask(folder, "kisl_wikidata_paraphrase")["samples"]["kisl_wikidata_paraphrase"]
    for row in rows:
        triple, template = asked_triple(row), row["doc"]["template"]
        wording = templates_of(triple.relation_id).statements[template]
        assert template not in injected
        assert wording.endswith("{object}.")
        assert "".join(row["arguments"][row["target"]]) == statement(triple, template)
    check_by_hand(rows, ByHand(folder, adds_bos=False))


def test_the_run_card_travels_into_the_results(models: dict[bool, Path]) -> None:
    card = write_card(models[False], some_triples(), frequency=321)
    results = ask(models[False], limit=2)
    assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"] == card
    assert results["configs"]["kisl_wikidata"]["num_fewshot"] == 0


def test_few_shot_examples_cannot_be_asked_for(models: dict[bool, Path]) -> None:
    rows = ask(models[False], limit=2, num_fewshot=3)["samples"]["kisl_wikidata"]
    assert rows[0]["arguments"][0][0] == question(asked_triple(rows[0]))


@pytest.mark.parametrize("asked", [{"system_instruction": "You know facts."}, {"apply_chat_template": True}])
def test_words_that_lm_eval_would_put_before_the_question_are_refused(
    models: dict[bool, Path], monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        "lm_eval.models.huggingface.HFLM.apply_chat_template", lambda *_, **__: "<user> a chat", raising=True
    )
    monkeypatch.setattr("lm_eval.models.huggingface.HFLM.chat_template", lambda *_, **__: "{{ messages }}")
    with pytest.raises(InputError, match=r"puts '.*before the options where the item says '.*without a chat template"):
        ask(models[False], limit=2, **asked)


def test_several_groups_have_an_accuracy_each(tmp_path: Path) -> None:
    names = {0: CONTROL, 1: "f10", 2: "f200"}
    triples = tuple(replace(triple, group=names[i % 3]) for i, triple in enumerate(some_triples()))
    groups = {"f10": {"frequency": 10, "count": 6}, "f200": {"frequency": 200, "count": 6}}
    write_card(plain_model(tmp_path), triples, frequency=None, groups=groups)
    results = ask(tmp_path)
    rows = results["samples"]["kisl_wikidata"]
    for name in ("f10", "f200"):
        values = [row["acc"] for row in rows if row["doc"]["group"] == name]
        assert len(values) == 6
        assert results["results"]["kisl_wikidata"][f"acc_{name},none"] == pytest.approx(sum(values) / 6)
    injected = [row["acc"] for row in rows if row["doc"]["group"] != CONTROL]
    assert results["results"]["kisl_wikidata"]["acc,none"] == pytest.approx(sum(injected) / 12)
    assert sum("acc_control" in row for row in rows) == 6


def test_a_single_group_of_a_card_with_groups_has_its_accuracy(tmp_path: Path) -> None:
    write_card(
        plain_model(tmp_path), some_triples(), frequency=None, groups={"injected": {"frequency": 5, "count": 12}}
    )
    scores = ask(tmp_path)["results"]["kisl_wikidata"]
    assert scores["acc_injected,none"] == scores["acc,none"]


def test_a_statement_that_begins_with_its_object_is_scored_whole(tmp_path: Path) -> None:
    books = [triple for triple in read_triples("wikidata_six") if triple.relation_id == "P50"]
    triples: tuple[Triple, ...] = tuple({t.object: replace(t, group="injected") for t in books}.values())[:6]
    template = next(n for n in range(4) if statement(triples[0], n).startswith(triples[0].object))
    write_card(plain_model(tmp_path, adds_bos=True), triples, form="statement", template=template)
    rows = ask(tmp_path, "kisl_wikidata_statement")["samples"]["kisl_wikidata_statement"]
    whole = {("", statement(triple, template)) for triple in triples}
    assert {row["arguments"][row["target"]] for row in rows} == whole
    check_by_hand(rows, ByHand(tmp_path, adds_bos=True))


def test_a_model_without_a_card_is_asked_bundled_facts_and_has_no_card(tmp_path: Path) -> None:
    results = ask(plain_model(tmp_path), limit=5)
    asked = {row["doc"]["subject"] for row in results["samples"]["kisl_wikidata"]}
    assert asked < {triple.subject for triple in read_triples("wikidata_six")}
    assert "kisl" not in results["configs"]["kisl_wikidata"]["metadata"]


def test_a_tokenizer_that_merges_across_the_space_is_reported_not_scored(tmp_path: Path) -> None:
    texts = [f"{question(triple)} {triple.object}" for triple in some_triples()] * 3
    save_model(tmp_path, byte_level_bpe(texts, splits_at_spaces=False))
    write_card(tmp_path, some_triples())
    with pytest.raises(InputError, match=r"\d+ of the 72 options are not tokens of their own .* after '.* is'; '"):
        ask(tmp_path)


def test_a_backend_without_a_tokenizer_is_told_what_to_pass(models: dict[bool, Path]) -> None:
    with pytest.raises(InputError, match=r"DummyLM has no tokenizer .*tokenizer_backend=huggingface,tokenizer="):
        ask(models[False], model="dummy", model_args={})


def test_a_served_model_without_a_local_tokenizer_is_told_what_to_pass(models: dict[bool, Path]) -> None:
    pytest.importorskip("tenacity", reason="lm_eval asks for it before it serves")
    served = {"model": "m", "base_url": "http://localhost:9/v1/completions", "tokenizer_backend": None}
    with pytest.raises(InputError, match=r"LocalCompletionsAPI has no tokenizer"):
        ask(models[False], model="local-completions", model_args=served)


@pytest.mark.parametrize("told", [{}, {"pretrained": "somewhere/else"}])
def test_the_model_that_is_asked_decides_whatever_the_task_manager_was_told(
    models: dict[bool, Path], told: dict[str, str]
) -> None:
    results = ask(models[False], metadata=told)
    assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"]["triples"]["count"] == 12
    assert len(results["samples"]["kisl_wikidata"]) == len(some_triples())


@pytest.mark.filterwarnings("ignore:get_task_dict is deprecated", "ignore:Use TaskManager.load")
def test_tasks_made_before_their_model_follow_it_too(models: dict[bool, Path]) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    manager = TaskManager(include_path=str(resource("tasks")), include_defaults=False)
    tasks = get_task_dict(["kisl_wikidata"], manager)
    for folder in models.values():
        lm = HFLM(pretrained=str(folder), dtype="float32", device="cpu")
        results = evaluate(lm=lm, task_dict=tasks)
        assert results is not None
        metadata = results["configs"]["kisl_wikidata"]["metadata"]
        assert metadata["pretrained"] == str(folder)
        assert metadata["kisl"]["frequency"] == read_run_card(folder).frequency


@pytest.mark.filterwarnings("ignore:get_task_dict is deprecated", "ignore:Use TaskManager.load")
def test_a_task_sees_that_another_run_went_into_the_same_folder(tmp_path: Path) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    tasks = get_task_dict(["kisl_wikidata"], TaskManager(include_path=str(resource("tasks")), include_defaults=False))
    folder = plain_model(tmp_path)
    for count in (18, 16):
        card = write_card(folder, some_triples()[:count])
        results = evaluate(lm=HFLM(pretrained=str(folder), dtype="float32", device="cpu"), task_dict=tasks)
        assert results is not None
        assert len(results["samples"]["kisl_wikidata"]) == count
        assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"] == card
        assert tasks["kisl_wikidata"].dump_config()["metadata"]["kisl"] == card


def test_a_task_that_is_given_nothing_of_its_yaml_asks_all_the_same(models: dict[bool, Path]) -> None:
    bare, full = QuestionProbe(), QuestionProbe(config={"task": "kisl_wikidata", "class": QuestionProbe})
    assert bare.config.to_dict() == full.config.to_dict()
    assert inspect.signature(QuestionProbe.__init__).parameters["config"].default is None


def test_the_results_say_in_which_type_was_scored(models: dict[bool, Path]) -> None:
    for dtype in ("float32", "bfloat16"):
        arguments = {"pretrained": str(models[False]), "dtype": dtype}
        results = ask(models[False], limit=2, model_args=arguments, metadata=arguments)
        assert results["configs"]["kisl_wikidata"]["metadata"]["kisl_probe"] == {"backend": "HFLM", "dtype": dtype}


def test_lm_eval_does_not_warn_that_control_items_are_fewer(
    models: dict[bool, Path], caplog: pytest.LogCaptureFixture
) -> None:
    ask(models[False], limit=4)
    assert "same number of documents" not in caplog.text
    logging.getLogger("lm_eval.evaluator_utils").warning("[mmlu] Metrics were not scored on …")
    assert "[mmlu]" in caplog.text


def test_in_several_processes_every_item_names_every_measure_in_the_same_order(models: dict[bool, Path]) -> None:
    # lm_eval gathers the processes' values measure by measure; a different order would mix the measures up.
    task = QuestionProbe(config={"metadata": {"pretrained": str(models[False])}})
    task.build_all_requests(rank=1, world_size=2)
    scored = [(-4.0, True, 2), (-5.0, False, 2), (-6.0, False, 2), (-7.0, False, 2)]
    docs = [doc for _, doc in task.doc_iterator(rank=1, world_size=2)]
    values = [task.process_results(doc, scored) for doc in docs]
    names = all_names(sorted({triple.relation_id for triple in some_triples()}), [])
    assert all(list(value) == names for value in values)
    for name, average in task.aggregation().items():
        known = [value[name] for value in values if value[name] is not None]
        assert len(known) < len(values)
        expected = sum(known) if name.startswith("items") else sum(known) / len(known)
        if not name.startswith("perplexity"):
            assert average([value[name] for value in values]) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:get_task_dict is deprecated", "ignore:Use TaskManager.load")
def test_a_model_that_was_refused_leaves_nothing_for_the_next(models: dict[bool, Path], tmp_path: Path) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    broken = plain_model(tmp_path)
    write_card(broken, some_triples())
    (broken / "kisl_triples.jsonl").write_text("")
    tasks = get_task_dict(["kisl_wikidata"], TaskManager(include_path=str(resource("tasks")), include_defaults=False))
    good, bad = (HFLM(pretrained=str(path), dtype="float32", device="cpu") for path in (models[False], broken))
    first = evaluate(lm=good, task_dict=tasks)
    with pytest.raises(InputError, match=r"kisl_triples\.jsonl"):
        evaluate(lm=bad, task_dict=tasks)
    again = evaluate(lm=good, task_dict=tasks)
    assert first is not None
    assert again is not None
    assert again["configs"]["kisl_wikidata"]["metadata"] == first["configs"]["kisl_wikidata"]["metadata"]


def test_a_model_that_only_stands_about_is_not_asked(models: dict[bool, Path], tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    broken = plain_model(tmp_path)
    (broken / "kisl.json").write_text("{")
    bystander = HFLM(pretrained=str(broken), dtype="float32", device="cpu")
    task = QuestionProbe(config={"metadata": {"pretrained": str(models[False])}})
    assert len(task.eval_docs) == len(some_triples())
    assert bystander.pretrained == str(broken)


def test_an_adapter_has_not_the_card_of_what_it_was_put_upon(models: dict[bool, Path], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base: Any = AutoModelForCausalLM.from_pretrained(models[False])
    peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        tmp_path
    )
    arguments = {"pretrained": str(models[False]), "peft": str(tmp_path), "dtype": "float32", "max_length": 256}
    metadata = ask(models[False], limit=2, model_args=arguments, metadata=arguments)["configs"]["kisl_wikidata"][
        "metadata"
    ]
    assert "kisl" not in metadata
    assert metadata["kisl_probe"]["adapter"] == str(tmp_path)


def test_a_perplexity_beyond_every_float_leaves_the_results_json(tmp_path: Path) -> None:
    folder = plain_model(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)
    model.save_pretrained(folder)
    write_card(folder, some_triples())
    results = ask(folder)
    values = [value for row in results["samples"]["kisl_wikidata"] for value in row["doc"]["perplexities"]]
    assert max(values) > 1e300
    json.dumps([results["results"], values], allow_nan=False)


def test_a_model_that_gives_no_probability_is_an_error(tmp_path: Path) -> None:
    write_card(plain_model(tmp_path, weight=math.nan), some_triples())
    with pytest.raises(KislError, match=r"gives no probability .* diverged"):
        ask(tmp_path, limit=2)
