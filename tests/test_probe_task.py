"""The tasks in the real lm_eval: what the results hold, and which model's facts are asked."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from probe_world import ask, plain_model, some_triples, write_card
from transformers import AutoModelForCausalLM

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import resource
from kisl_plugin.probe.items import all_names
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import question, statement

pytest.importorskip("lm_eval")
from kisl_plugin.probe.task import QuestionProbe

TASK = "kisl_wikidata"
old_api = pytest.mark.filterwarnings("ignore:get_task_dict is deprecated", "ignore:Use TaskManager.load")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plain_model(tmp_path_factory.mktemp("model"))
    write_card(folder, some_triples())
    return folder


@pytest.fixture(scope="module")
def results(model: Path) -> dict[str, Any]:
    return ask(model)


def task_without_task_manager(model: Path) -> QuestionProbe:
    """The task as lm_eval makes it from its YAML."""
    settings = yaml.safe_load((resource("tasks") / "kisl_wikidata" / "_facts").read_text(encoding="utf-8"))
    return QuestionProbe(config={**settings, "task": TASK, "metadata": {"pretrained": str(model)}})


def triple_of(row: dict[str, Any]) -> Triple:
    """The triple that a sample row is about; no two of `some_triples` have one subject."""
    (triple,) = (triple for triple in some_triples() if triple.subject == row["doc"]["subject"])
    return triple


def test_every_score_is_that_of_the_rows_that_count_for_it(results: dict[str, Any]) -> None:
    scores, rows = results["results"][TASK], results["samples"][TASK]
    for metric, count in (("acc", 12), ("acc_control", 6), ("sum_acc", 12), ("margin", 12), ("recall_control", 6)):
        values = [row[metric] for row in rows if metric in row]
        mean = sum(values) / count
        assert scores[f"{metric},none"] == pytest.approx(mean)
        if "acc" in metric:
            assert scores[f"{metric}_stderr,none"] == pytest.approx(math.sqrt(mean * (1 - mean) / (count - 1)))
    perplexities = [math.log(row["perplexity"]) for row in rows if "perplexity" in row]
    assert scores["perplexity,none"] == pytest.approx(math.exp(sum(perplexities) / 12))
    assert (scores["items,none"], scores["items_control,none"]) == (12, 6)
    for relation in sorted({triple.relation_id for triple in some_triples()}):
        values = [row["acc"] for row in rows if "acc" in row and row["doc"]["relation_id"] == relation]
        assert scores[f"relation_acc_{relation},none"] == pytest.approx(sum(values) / 6)


def test_a_sample_row_has_question_option_pairs_target_and_the_triple(results: dict[str, Any]) -> None:
    rows = results["samples"][TASK]
    assert {triple_of(row) for row in rows} == set(some_triples())
    for row in rows:
        doc, triple = row["doc"], triple_of(row)
        assert row["arguments"] == [(question(triple), f" {option}") for option in doc["options"]]
        assert doc["options"][row["target"]] == triple.object
        fields = ("subject", "relation_id", "object", "subject_id", "object_id", "group")
        assert [doc[field] for field in fields] == [getattr(triple, field) for field in fields]
        assert (doc["frequency"], doc["template"]) == (0 if triple.group == CONTROL else 7, 0)
        assert len(doc["perplexities"]) == 4
        assert ("acc" in row, "acc_control" in row) == (triple.group != CONTROL, triple.group == CONTROL)


def test_the_run_card_travels_into_the_results(model: Path) -> None:
    card = write_card(model, some_triples(), frequency=321)
    for dtype in ("float32", "bfloat16"):
        arguments = {"pretrained": str(model), "dtype": dtype}
        results = ask(model, limit=2, num_fewshot=3, model_args=arguments, metadata=arguments)
        config = results["configs"][TASK]
        assert config["metadata"]["kisl"] == card
        assert config["num_fewshot"] == 0  # examples would come from the facts that are asked
        (row, _) = results["samples"][TASK]
        assert row["arguments"][0][0] == question(triple_of(row))
    write_card(model, some_triples())


@pytest.mark.parametrize("names", [{0: CONTROL, 1: "f10", 2: "f200"}, {0: CONTROL, 1: "f10", 2: "f10"}])
def test_groups_of_the_card_have_an_accuracy_each(tmp_path: Path, names: dict[int, str]) -> None:
    triples = tuple(replace(triple, group=names[i % 3]) for i, triple in enumerate(some_triples()))
    counts = {name: sum(triple.group == name for triple in triples) for name in set(names.values()) - {CONTROL}}
    groups = {name: {"frequency": 10, "count": count} for name, count in counts.items()}
    write_card(plain_model(tmp_path), triples, frequency=None, groups=groups)
    results = ask(tmp_path)
    rows, scores = results["samples"][TASK], results["results"][TASK]
    for name, count in counts.items():
        values = [row["acc"] for row in rows if row["doc"]["group"] == name]
        assert scores[f"acc_{name},none"] == pytest.approx(sum(values) / count)
    injected = [row["acc"] for row in rows if row["doc"]["group"] != CONTROL]
    assert scores["acc,none"] == pytest.approx(sum(injected) / 12)


def test_a_statement_is_scored_as_it_was_injected_whole_if_it_begins_with_its_object(tmp_path: Path) -> None:
    books = [triple for triple in read_triples("wikidata_six") if triple.relation_id == "P50"]
    triples = tuple({t.object: replace(t, group="injected") for t in books}.values())[:6]
    template = next(n for n in range(4) if statement(triples[0], n).startswith(triples[0].object))
    write_card(plain_model(tmp_path), triples, form="statement", template=template)
    rows = ask(tmp_path, f"{TASK}_statement")["samples"][f"{TASK}_statement"]
    assert {row["arguments"][row["target"]] for row in rows} == {("", statement(t, template)) for t in triples}


def test_a_model_without_a_card_is_asked_bundled_facts_and_has_no_card(tmp_path: Path) -> None:
    results = ask(plain_model(tmp_path), limit=5)
    subjects = {row["doc"]["subject"] for row in results["samples"][TASK]}
    assert subjects < {triple.subject for triple in read_triples("wikidata_six")}
    assert "kisl" not in results["configs"][TASK]["metadata"]


def test_the_model_that_is_evaluated_decides_whatever_the_task_manager_was_passed(model: Path) -> None:
    results = ask(model, metadata={"pretrained": "somewhere/else"})
    assert results["configs"][TASK]["metadata"]["kisl"]["triples"]["count"] == 12
    assert len(results["samples"][TASK]) == len(some_triples())


@old_api
def test_a_task_follows_the_models_that_are_evaluated_one_after_another(model: Path, tmp_path: Path) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    def run(folder: Path) -> Any:
        lm = HFLM(pretrained=str(folder), dtype="float32", device="cpu")
        return evaluate(lm=lm, task_dict=tasks)

    tasks = get_task_dict([TASK], TaskManager(include_path=str(resource("tasks")), include_defaults=False))
    other = plain_model(tmp_path)
    first = run(model)
    assert first["configs"][TASK]["metadata"]["pretrained"] == str(model)
    for count in (18, 16):  # another run was written into the same folder
        card = write_card(other, some_triples()[:count])
        results = run(other)
        assert len(results["samples"][TASK]) == count
        assert results["configs"][TASK]["metadata"]["kisl"] == card
        assert tasks[TASK].dump_config()["metadata"]["kisl"] == card
    write_card(other, some_triples())
    (other / "kisl_triples.jsonl").write_text("")
    with pytest.raises(InputError, match=r"kisl_triples\.jsonl"):
        run(other)
    assert run(model)["configs"][TASK]["metadata"] == first["configs"][TASK]["metadata"]


def test_a_model_that_is_not_evaluated_is_not_asked(model: Path, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    broken = plain_model(tmp_path)
    (broken / "kisl.json").write_text("{")
    bystander = HFLM(pretrained=str(broken), dtype="float32", device="cpu")
    task = task_without_task_manager(model)
    assert len(task.eval_docs) == len(some_triples())
    assert bystander.pretrained == str(broken)


def test_lm_eval_does_not_warn_that_control_items_are_fewer(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    ask(model, limit=4)
    assert "same number of documents" not in caplog.text
    logging.getLogger("lm_eval.evaluator_utils").warning("[mmlu] Metrics were not scored on …")
    assert "[mmlu]" in caplog.text


def test_in_several_processes_every_item_names_every_measure_in_the_same_order(model: Path) -> None:
    # lm_eval gathers the processes' values measure by measure; a different order would mix the measures up.
    task = task_without_task_manager(model)
    task.build_all_requests(rank=1, world_size=2)
    scored = [(-4.0, True, 2), (-5.0, False, 2), (-6.0, False, 2), (-7.0, False, 2)]
    docs = [doc for _, doc in task.doc_iterator(rank=1, world_size=2)]
    values = [task.process_results(doc, scored) for doc in docs]
    names = all_names(sorted({triple.relation_id for triple in some_triples()}), [])
    assert all(list(value) == names for value in values)
    for name, average in task.aggregation().items():
        present = [value[name] for value in values if value[name] is not None]
        assert len(present) < len(values)
        expected = sum(present) if name.startswith("items") else sum(present) / len(present)
        if not name.startswith("perplexity"):
            assert average([value[name] for value in values]) == pytest.approx(expected)


def test_an_adapter_does_not_have_the_card_of_its_base_model(model: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    arguments = {"pretrained": str(model), "peft": str(tmp_path), "dtype": "float32", "max_length": 256}
    metadata = ask(model, limit=2, model_args=arguments, metadata=arguments)["configs"][TASK]["metadata"]
    assert "kisl" not in metadata


def test_a_perplexity_beyond_every_float_leaves_the_results_json(tmp_path: Path) -> None:
    folder = plain_model(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)
    model.save_pretrained(folder)
    write_card(folder, some_triples())
    results = ask(folder)
    values = [value for row in results["samples"][TASK] for value in row["doc"]["perplexities"]]
    assert max(values) > 1e300
    json.dumps([results["results"], values], allow_nan=False)


def test_a_model_that_gives_no_probability_is_an_error(tmp_path: Path) -> None:
    write_card(plain_model(tmp_path, weight=math.nan), some_triples())
    with pytest.raises(KislError, match=r"gives no probability .* diverged"):
        ask(tmp_path, limit=2)
