import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from probe_world import some_triples, write_card

from kisl_plugin.errors import InputError
from kisl_plugin.probe.items import BUNDLED, ProbeItem, items_of, read_probe
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement, templates_of

FORMS = ("question", "statement")


def triples_of(items: Sequence[ProbeItem]) -> set[Triple]:
    """What is asked; the order is the probe's own."""
    assert len({item.triple for item in items}) == len(items)
    return {item.triple for item in items}


def grouped() -> tuple[Triple, ...]:
    names = {0: CONTROL, 1: "rare", 2: "often"}
    return tuple(replace(triple, group=names[i % 3]) for i, triple in enumerate(some_triples()))


def card_and_model(folder: Path, **changes: object) -> dict[str, str]:
    write_card(folder, some_triples(), **changes)
    return {"pretrained": str(folder)}


@pytest.mark.parametrize("form", FORMS)
def test_every_item_asks_its_triple_with_the_right_object_among_four(form: str) -> None:
    triples = some_triples()
    items = items_of(triples, form)
    assert triples_of(items) == set(triples)
    for item in items:
        assert len(set(item.options)) == 4
        whole = f"{item.context} {item.options[item.answer]}"
        assert whole == (
            statement(item.triple) if form == "statement" else f"{question(item.triple)} {item.triple.object}"
        )


def test_wrong_options_are_objects_of_the_same_relation_in_the_same_file() -> None:
    triples = some_triples()
    for item in items_of(triples, "question"):
        relation = item.triple.relation_id
        assert set(item.options) <= {triple.object for triple in triples if triple.relation_id == relation}
        assert item.options[item.answer] == item.triple.object


def test_options_come_from_injected_and_control_triples_alike() -> None:
    asked = {option for item in items_of(some_triples(), "question") for option in item.options}
    assert asked >= {triple.object for triple in some_triples() if triple.group == CONTROL}


def test_a_model_with_a_card_is_asked_its_own_triples(tmp_path: Path) -> None:
    card = write_card(tmp_path, some_triples())
    probe = read_probe("question", {"pretrained": str(tmp_path), "dtype": "float32"})
    assert triples_of(probe.items) == set(some_triples())
    assert probe.card == card


def test_the_card_is_copied_with_the_keys_that_only_newer_readers_know(tmp_path: Path) -> None:
    card = {**write_card(tmp_path, some_triples()), "later": 1}
    (tmp_path / CARD_NAME).write_text(json.dumps(card))
    assert read_probe("question", {"pretrained": str(tmp_path)}).card == card


@pytest.mark.parametrize("metadata", [{}, {"pretrained": "EleutherAI/pythia-14m"}])
def test_a_model_without_a_card_is_asked_the_bundled_facts(metadata: dict[str, str]) -> None:
    probe = read_probe("question", metadata)
    assert triples_of(probe.items) == set(read_triples(BUNDLED))
    assert probe.card is None
    assert {item.frequency for item in probe.items} == {None}


def test_own_triples_are_asked_without_the_models_card(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path)
    own = tmp_path / "facts.jsonl"
    own.write_text(triples_to_jsonl(some_triples()[:9]), encoding="utf-8")
    probe = read_probe("question", {**metadata, "triples": str(own)})
    assert triples_of(probe.items) == set(some_triples()[:9])
    assert probe.card is None


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_run_card_can_be_named_for_backends_without_a_folder(tmp_path: Path, given: str) -> None:
    card = write_card(tmp_path, some_triples())
    path = tmp_path if given == "folder" else tmp_path / CARD_NAME
    probe = read_probe("question", {"model": "served", "run_card": str(path)})
    assert probe.card == card


def test_a_run_card_and_other_triples_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run_card 'a' and triples 'b'"):
        read_probe("question", {"run_card": "a", "triples": "b"})


def test_a_run_card_that_is_not_the_models_own_is_refused(tmp_path: Path) -> None:
    write_card(tmp_path / "other", some_triples(), frequency=99)
    metadata = card_and_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"run_card .*other.* is not the model's own card .*model"):
        read_probe("question", {**metadata, "run_card": str(tmp_path / "other")})
    assert read_probe("question", {**metadata, "run_card": metadata["pretrained"]}).card is not None


@pytest.mark.parametrize(
    ("key", "meant"), [("triple", "triples"), ("runcard", "run_card"), ("run-card", "run_card"), ("Triples", "triples")]
)
def test_a_misspelt_key_is_refused(key: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"metadata: {key} is unknown; did you mean {meant}\?"):
        read_probe("question", {key: "facts.csv"})


def test_the_names_of_a_models_arguments_are_not_taken_for_misspelt_keys() -> None:
    from inspect import signature

    models = pytest.importorskip("lm_eval.models.huggingface")
    names = [*signature(models.HFLM.__init__).parameters, "model", "base_url", "tokenizer_backend", "max_model_len"]
    assert read_probe("question", dict.fromkeys(names, "")).card is None


def test_a_model_in_a_subfolder_has_its_card_there(tmp_path: Path) -> None:
    card = write_card(tmp_path / "step1000", some_triples())
    assert read_probe("question", {"pretrained": str(tmp_path), "subfolder": "step1000"}).card == card


@pytest.mark.parametrize("what", ["a folder", "a broken link"])
def test_a_card_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, what: str) -> None:
    card = tmp_path / CARD_NAME
    if what == "a folder":
        card.mkdir()
    else:
        card.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"kisl\.json"):
        read_probe("question", {"pretrained": str(tmp_path)})


@pytest.mark.parametrize("pretrained", ["", "x" * 5000, object(), "a\0b"])
def test_what_is_no_folder_has_no_card(pretrained: object) -> None:
    assert read_probe("question", {"pretrained": pretrained}).card is None


def test_a_card_that_counts_a_groups_triples_otherwise_is_refused(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 5}, "often": {"frequency": 200, "count": 7}}
    write_card(tmp_path, grouped(), frequency=None, groups=groups)
    with pytest.raises(InputError, match=r"6 group 'rare' triples, but .* says 5"):
        read_probe("question", {"pretrained": str(tmp_path)})


def test_a_run_card_must_be_named_kisl_json(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(InputError, match=r"card\.json.*kisl\.json or its folder"):
        read_probe("question", {"run_card": str(tmp_path / "card.json")})


def test_triples_that_are_not_the_cards_are_refused_naming_both_files(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path)
    rows = (tmp_path / TRIPLES_NAME).read_text(encoding="utf-8").replace('"subject": "', '"subject": "X', 1)
    (tmp_path / TRIPLES_NAME).write_text(rows, encoding="utf-8")
    with pytest.raises(InputError, match=r"sha256") as caught:
        read_probe("question", metadata)
    assert TRIPLES_NAME in str(caught.value)
    assert CARD_NAME in str(caught.value)


def test_a_card_without_its_triples_is_refused(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path)
    (tmp_path / TRIPLES_NAME).unlink()
    with pytest.raises(InputError, match=rf"{TRIPLES_NAME}: missing"):
        read_probe("question", metadata)


def test_a_card_that_counts_other_triples_is_refused(tmp_path: Path) -> None:
    card = write_card(tmp_path, some_triples())
    (tmp_path / CARD_NAME).write_text(json.dumps({**card, "triples": {"count": 3}}))
    with pytest.raises(InputError, match=r"12 injected triples, but .*kisl\.json says 3"):
        read_probe("question", {"pretrained": str(tmp_path)})


def test_each_item_carries_the_frequency_of_its_group(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 6}, "often": {"frequency": 200, "count": 6}}
    write_card(tmp_path, grouped(), frequency=None, groups=groups)
    probe = read_probe("question", {"pretrained": str(tmp_path)})
    expected = {CONTROL: 0, "rare": 10, "often": 200}
    assert {(item.triple.group, item.frequency) for item in probe.items} == set(expected.items())


def test_one_frequency_holds_for_every_injected_triple(tmp_path: Path) -> None:
    probe = read_probe("question", card_and_model(tmp_path, frequency=40))
    assert {(item.triple.group == CONTROL, item.frequency) for item in probe.items} == {(True, 0), (False, 40)}


def test_a_group_that_the_card_does_not_know_is_refused(tmp_path: Path) -> None:
    write_card(tmp_path, grouped(), frequency=None, groups={"rare": {"frequency": 10, "count": 6}})
    with pytest.raises(InputError, match=r"group 'often'.*rare"):
        read_probe("question", {"pretrained": str(tmp_path)})


@pytest.mark.parametrize(("form", "template"), [("statement", 1), ("statement", [1, 0]), ("question", 1)])
def test_a_form_that_was_injected_is_asked_with_the_injected_template(
    tmp_path: Path, form: str, template: int | list[int]
) -> None:
    metadata = card_and_model(tmp_path, form=form, template=template)
    as_text: dict[str, Callable[[Triple, int], str]] = {
        "statement": statement,
        "question": lambda t, n: f"{question(t, n)} {t.object}",
    }
    for asked in FORMS:
        expected = 1 if asked == form else 0
        for item in read_probe(asked, metadata).items:
            assert f"{item.context} {item.options[item.answer]}".strip() == as_text[asked](item.triple, expected)


def test_the_first_items_are_a_fair_sample_whatever_the_order_of_the_file() -> None:
    triples = read_triples(BUNDLED)
    first = items_of(triples, "question")[:300]
    relations = [item.triple.relation_id for item in first]
    assert all(35 < relations.count(relation) < 65 for relation in {triple.relation_id for triple in triples})
    assert 30 < sum(item.triple.group == CONTROL for item in first) < 60
    assert first == items_of(triples[::-1], "question")[:300]


def test_a_paraphrase_is_a_statement_template_that_was_not_injected(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path, form="statement", template=[0, 1])
    for item in read_probe("paraphrase", metadata).items:
        assert item.template > 1
        assert f"{item.context} {item.options[item.answer]}" == statement(item.triple, item.template)


def test_without_a_card_the_paraphrase_leaves_the_first_template_out() -> None:
    templates = {item.template for item in read_probe("paraphrase", {}).items}
    assert 0 not in templates


def test_a_run_that_injected_questions_kept_every_statement_back(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path, form="question", template=0)
    assert {item.template for item in read_probe("paraphrase", metadata).items} == {0}


def test_a_run_that_injected_every_template_has_no_paraphrase_to_ask(tmp_path: Path) -> None:
    every = list(range(len(templates_of(some_triples()[0].relation_id).statements)))
    metadata = card_and_model(tmp_path, form="statement", template=every)
    with pytest.raises(InputError, match=r"all \d+ statement templates were injected.*fewer templates"):
        read_probe("paraphrase", metadata)


def test_a_statement_that_begins_with_its_object_is_asked_whole() -> None:
    authors = [triple for triple in read_triples(BUNDLED) if triple.relation_id == "P50"]
    template = next(n for n in range(4) if statement(authors[0], n).startswith(authors[0].object))
    card = type("Card", (), {"form": "statement", "template": template, "groups": None, "frequency": 1})()
    for item in items_of(authors, "statement", card):
        assert item.context == ""
        assert item.options[item.answer] == statement(item.triple, template)
