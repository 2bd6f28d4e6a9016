import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from probe_world import ByHand, ask, byte_level_bpe, plain_model, save_model, some_triples, write_card

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import question, statement

pytest.importorskip("lm_eval")
FORMS = ("kisl_wikidata", "kisl_wikidata_statement")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two models of the same weights and run card; the key says whether the tokenizer adds a BOS."""
    root = tmp_path_factory.mktemp("models")
    folders = {adds: plain_model(root / f"bos_{adds}", adds_bos=adds) for adds in (False, True)}
    for folder in folders.values():
        write_card(folder, some_triples())
    return folders


def check_by_hand(rows: list[dict[str, Any]], judge: ByHand) -> None:
    for row in rows:
        pairs = row["arguments"][:4]
        expected = [judge.perplexity(context, continuation) for context, continuation in pairs]
        assert row["doc"]["perplexities"] == pytest.approx(expected, rel=1e-4)
        choice = expected.index(min(expected))
        assert row["doc"]["choice"] == choice
        metric = "acc_control" if row["doc"]["group"] == CONTROL else "acc"
        assert row["metrics"] == [metric]
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
    sums = [[summed for summed, _ in row["filtered_resps"][:4]] for row in rows]
    assert any(len(set(row["filtered_resps"][4])) > 1 for row in rows)
    assert any(row["doc"]["choice"] != s.index(max(s)) for row, s in zip(rows, sums, strict=True))


def test_a_sample_row_holds_question_option_pairs_target_and_the_triple(models: dict[bool, Path]) -> None:
    rows = ask(models[False])["samples"]["kisl_wikidata"]
    for row, triple in zip(rows, some_triples(), strict=True):
        doc = row["doc"]
        assert [context for context, _ in row["arguments"][:4]] == [question(triple)] * 4
        assert row["arguments"][row["target"]][1] == f" {triple.object}"
        assert (doc["subject"], doc["relation_id"], doc["object"]) == (
            triple.subject,
            triple.relation_id,
            triple.object,
        )
        assert (doc["subject_id"], doc["object_id"], doc["group"]) == (
            triple.subject_id,
            triple.object_id,
            triple.group,
        )
        assert doc["frequency"] == (0 if triple.group == CONTROL else 7)


def test_the_injected_statement_is_what_the_statement_task_scores(models: dict[bool, Path]) -> None:
    rows = ask(models[False], "kisl_wikidata_statement")["samples"]["kisl_wikidata_statement"]
    for row, triple in zip(rows, some_triples(), strict=True):
        assert "".join(row["arguments"][row["target"]]) == statement(triple)


def test_the_run_card_travels_into_the_results(models: dict[bool, Path]) -> None:
    card = write_card(models[False], some_triples(), frequency=321)
    results = ask(models[False], limit=2)
    assert results["configs"]["kisl_wikidata"]["metadata"]["kisl"] == card
    assert results["configs"]["kisl_wikidata"]["num_fewshot"] == 0


def test_few_shot_examples_cannot_be_asked_for(models: dict[bool, Path]) -> None:
    rows = ask(models[False], limit=2, num_fewshot=3)["samples"]["kisl_wikidata"]
    assert rows[0]["arguments"][0][0] == question(some_triples()[0])


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


def test_a_statement_that_begins_with_its_object_is_scored_whole(tmp_path: Path) -> None:
    books = [triple for triple in read_triples("wikidata_six") if triple.relation_id == "P50"]
    triples: tuple[Triple, ...] = tuple({t.object: replace(t, group="injected") for t in books}.values())[:6]
    template = next(n for n in range(4) if statement(triples[0], n).startswith(triples[0].object))
    write_card(plain_model(tmp_path, adds_bos=True), triples, form="statement", template=template)
    rows = ask(tmp_path, "kisl_wikidata_statement")["samples"]["kisl_wikidata_statement"]
    assert rows[0]["arguments"][rows[0]["target"]] == ("", statement(triples[0], template))
    check_by_hand(rows, ByHand(tmp_path, adds_bos=True))


def test_a_model_without_a_card_is_asked_bundled_facts_and_has_no_card(tmp_path: Path) -> None:
    results = ask(plain_model(tmp_path), limit=5)
    asked = [row["doc"]["subject"] for row in results["samples"]["kisl_wikidata"]]
    assert asked == [triple.subject for triple in read_triples("wikidata_six")[:5]]
    assert "kisl" not in results["configs"]["kisl_wikidata"]["metadata"]


def test_a_second_model_is_never_asked_the_cached_requests_of_the_first(
    models: dict[bool, Path], tmp_path: Path
) -> None:
    other = tuple(reversed(some_triples()))
    write_card(plain_model(tmp_path), other)
    ask(models[False], limit=2, cache_requests=True)
    rows = ask(tmp_path, limit=2, cache_requests=True)["samples"]["kisl_wikidata"]
    assert [row["arguments"][0][0] for row in rows] == [question(triple) for triple in other[:2]]


def test_a_tokenizer_that_merges_across_the_space_is_reported_not_scored(tmp_path: Path) -> None:
    texts = [f"{question(triple)} {triple.object}" for triple in some_triples()] * 3
    save_model(tmp_path, byte_level_bpe(texts, splits_at_spaces=False))
    write_card(tmp_path, some_triples())
    with pytest.raises(InputError, match=r"\d+ of the 72 options are not tokens of their own .* after '.* is'"):
        ask(tmp_path)


def test_a_backend_without_a_tokenizer_is_told_what_to_pass(models: dict[bool, Path]) -> None:
    with pytest.raises(InputError, match=r"DummyLM has no tokenizer .*tokenizer_backend=huggingface,tokenizer="):
        ask(models[False], model="dummy", model_args={})


def test_a_served_model_without_a_local_tokenizer_is_told_what_to_pass(models: dict[bool, Path]) -> None:
    pytest.importorskip("tenacity", reason="lm_eval asks for it before it serves")
    served = {"model": "m", "base_url": "http://localhost:9/v1/completions", "tokenizer_backend": None}
    with pytest.raises(InputError, match=r"LocalCompletionsAPI has no tokenizer"):
        ask(models[False], model="local-completions", model_args=served)


def test_a_card_that_the_task_was_not_told_of_is_an_error(models: dict[bool, Path]) -> None:
    with pytest.raises(InputError, match=r"kisl\.json: this lm_eval did not tell the task"):
        ask(models[False], metadata={}, limit=1)


def test_an_lm_eval_that_tells_tasks_nothing_is_refused(
    models: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kisl_plugin.probe.task.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lm_eval 0\.\d.*lm-eval>=0\.4\.12"):
        ask(models[False], limit=1)


def test_a_model_that_gives_no_probability_is_an_error(tmp_path: Path) -> None:
    write_card(plain_model(tmp_path, weight=math.nan), some_triples())
    with pytest.raises(KislError, match=r"gives no probability .* diverged"):
        ask(tmp_path, limit=2)
