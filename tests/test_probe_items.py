"""Which triples a model is asked and in which words; what docs/probe.md says of both."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from probe_world import some_triples, write_card

from kisl_plugin.errors import InputError
from kisl_plugin.files import resource
from kisl_plugin.probe.items import BUNDLED, MEASURES, ProbeItem, all_names, items_of, read_items
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement, templates_of

FORMS = ("question", "statement")
PAGE = Path(__file__).parents[1] / "docs" / "probe.md"


def triples_of(items: Sequence[ProbeItem]) -> set[Triple]:
    assert len({item.triple for item in items}) == len(items)
    return {item.triple for item in items}


def grouped() -> tuple[Triple, ...]:
    names = {0: CONTROL, 1: "rare", 2: "often"}
    return tuple(replace(triple, group=names[i % 3]) for i, triple in enumerate(some_triples()))


def card_and_model(folder: Path, **changes: object) -> dict[str, str]:
    write_card(folder, some_triples(), **changes)
    return {"pretrained": str(folder)}


@pytest.mark.parametrize("form", FORMS)
def test_every_item_asks_its_triple_with_the_right_object_among_four_of_its_relation(form: str) -> None:
    triples = some_triples()
    items = items_of(triples, form)
    assert triples_of(items) == set(triples)
    for item in items:
        assert len(set(item.options)) == 4
        whole = f"{item.context} {item.options[item.answer]}"
        as_question = f"{question(item.triple)} {item.triple.object}"
        assert whole == (statement(item.triple) if form == "statement" else as_question)
        if form == "question":
            assert set(item.options) <= {t.object for t in triples if t.relation_id == item.triple.relation_id}
    options = {option for item in items_of(triples, "question") for option in item.options}
    assert options >= {triple.object for triple in triples if triple.group == CONTROL}


def test_a_model_with_a_card_is_asked_its_own_triples(tmp_path: Path) -> None:
    card = {**write_card(tmp_path, some_triples()), "later": 1}
    (tmp_path / CARD_NAME).write_text(json.dumps(card))  # a key that only a newer version knows is copied too
    items, copied = read_items("question", {"pretrained": str(tmp_path), "dtype": "float32"})
    assert triples_of(items) == set(some_triples())
    assert copied == card


@pytest.mark.parametrize("pretrained", [None, "EleutherAI/pythia-14m", "", "x" * 5000, object(), "a\0b"])
def test_a_model_without_a_card_is_asked_the_bundled_facts(pretrained: object) -> None:
    items, card = read_items("question", {} if pretrained is None else {"pretrained": pretrained})
    assert triples_of(items) == set(read_triples(BUNDLED))
    assert card is None
    assert {item.frequency for item in items} == {None}


def test_own_triples_are_asked_without_the_models_card(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path)
    own = tmp_path / "facts.jsonl"
    own.write_text(triples_to_jsonl(some_triples()[:9]), encoding="utf-8")
    items, card = read_items("question", {**metadata, "triples": str(own)})
    assert triples_of(items) == set(some_triples()[:9])
    assert card is None


def test_a_run_card_can_be_named_for_backends_without_a_folder(tmp_path: Path) -> None:
    card = write_card(tmp_path, some_triples())
    for path in (tmp_path, tmp_path / CARD_NAME):
        assert read_items("question", {"model": "served", "run_card": str(path)})[1] == card
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(InputError, match=r"card\.json.*kisl\.json or its folder"):
        read_items("question", {"run_card": str(tmp_path / "card.json")})


def test_a_run_card_with_other_triples_or_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run_card 'a' and triples 'b'"):
        read_items("question", {"run_card": "a", "triples": "b"})
    write_card(tmp_path / "other", some_triples(), frequency=99)
    metadata = card_and_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"run_card .*other.* is not the model's own card .*model"):
        read_items("question", {**metadata, "run_card": str(tmp_path / "other")})
    assert read_items("question", {**metadata, "run_card": metadata["pretrained"]})[1] is not None


@pytest.mark.parametrize(("key", "meant"), [("triple", "triples"), ("run-card", "run_card"), ("Triples", "triples")])
def test_a_misspelt_key_is_refused(key: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"metadata: {key} is unknown; did you mean {meant}\?"):
        read_items("question", {key: "facts.csv"})


def test_a_models_arguments_are_not_taken_for_misspelt_keys() -> None:
    from inspect import signature

    models = pytest.importorskip("lm_eval.models.huggingface")
    names = [*signature(models.HFLM.__init__).parameters, "model", "base_url", "tokenizer_backend", "max_model_len"]
    assert read_items("question", dict.fromkeys(names, ""))[1] is None


def test_a_model_in_a_subfolder_has_its_card_there(tmp_path: Path) -> None:
    card = write_card(tmp_path / "step1000", some_triples())
    assert read_items("question", {"pretrained": str(tmp_path), "subfolder": "step1000"})[1] == card


def test_a_card_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"kisl\.json"):
        read_items("question", {"pretrained": str(tmp_path)})


def test_triples_that_are_not_the_cards_are_refused_naming_both_files(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path)
    path = tmp_path / TRIPLES_NAME
    path.write_text(path.read_text(encoding="utf-8").replace('"subject": "', '"subject": "X', 1), encoding="utf-8")
    with pytest.raises(InputError, match=rf"{TRIPLES_NAME}: its sha256 is \w+, but .*{CARD_NAME} has"):
        read_items("question", metadata)
    path.unlink()
    with pytest.raises(InputError, match=rf"{TRIPLES_NAME}: missing"):
        read_items("question", metadata)


def test_a_card_that_counts_other_triples_is_refused(tmp_path: Path) -> None:
    card = write_card(tmp_path, some_triples())
    (tmp_path / CARD_NAME).write_text(json.dumps({**card, "triples": {"count": 3}}))
    with pytest.raises(InputError, match=r"12 injected triples, but .*kisl\.json has 3"):
        read_items("question", {"pretrained": str(tmp_path)})
    groups = {"rare": {"frequency": 10, "count": 5}, "often": {"frequency": 200, "count": 7}}
    write_card(tmp_path, grouped(), frequency=None, groups=groups)
    with pytest.raises(InputError, match=r"6 group 'rare' triples, but .* has 5"):
        read_items("question", {"pretrained": str(tmp_path)})
    write_card(tmp_path, grouped(), frequency=None, groups={"rare": {"frequency": 10, "count": 6}})
    with pytest.raises(InputError, match=r"6 group 'often' triples, but .* has 0"):
        read_items("question", {"pretrained": str(tmp_path)})


def test_each_item_has_the_frequency_of_its_group(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 6}, "often": {"frequency": 200, "count": 6}}
    write_card(tmp_path, grouped(), frequency=None, groups=groups)
    items, _ = read_items("question", {"pretrained": str(tmp_path)})
    expected = {CONTROL: 0, "rare": 10, "often": 200}
    assert {(item.triple.group, item.frequency) for item in items} == set(expected.items())
    items, _ = read_items("question", card_and_model(tmp_path, frequency=40))
    assert {(item.triple.group == CONTROL, item.frequency) for item in items} == {(True, 0), (False, 40)}


@pytest.mark.parametrize(("form", "template"), [("statement", 1), ("statement", [1, 0]), ("question", 1)])
def test_a_form_that_was_injected_is_asked_with_the_injected_template(
    tmp_path: Path, form: str, template: int | list[int]
) -> None:
    metadata = card_and_model(tmp_path, form=form, template=template)
    as_text: dict[str, Callable[[Triple, int], str]] = {
        "statement": statement,
        "question": lambda t, n: f"{question(t, n)} {t.object}",
    }
    for probed in FORMS:
        expected = 1 if probed == form else 0
        for item in read_items(probed, metadata)[0]:
            assert f"{item.context} {item.options[item.answer]}".strip() == as_text[probed](item.triple, expected)


@pytest.mark.parametrize("changes", [{}, {"form": "question", "template": 0}])
def test_the_direct_question_is_template_1_and_its_answer_follows_at_once(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    items, _ = read_items("direct", card_and_model(tmp_path, **changes))
    assert {item.template for item in items} == {1}
    for item in items:
        assert item.context == question(item.triple, 1)
        assert item.context.endswith("? Answer:")
        assert item.options[item.answer] == item.triple.object


def test_the_first_items_are_a_fair_sample_whatever_the_order_of_the_file() -> None:
    triples = read_triples(BUNDLED)
    first = items_of(triples, "question")[:300]
    relations = [item.triple.relation_id for item in first]
    assert all(35 < relations.count(relation) < 65 for relation in {triple.relation_id for triple in triples})
    assert 30 < sum(item.triple.group == CONTROL for item in first) < 60
    assert first == items_of(triples[::-1], "question")[:300]


def test_a_paraphrase_is_a_statement_template_that_was_not_injected(tmp_path: Path) -> None:
    metadata = card_and_model(tmp_path, form="statement", template=[0, 1])
    for item in read_items("paraphrase", metadata)[0]:
        assert item.template > 1
        assert f"{item.context} {item.options[item.answer]}" == statement(item.triple, item.template)
    assert 0 not in {item.template for item in read_items("paraphrase", {})[0]}
    metadata = card_and_model(tmp_path, form="question", template=0)
    assert {item.template for item in read_items("paraphrase", metadata)[0]} == {0}
    every = list(range(len(templates_of(some_triples()[0].relation_id).statements)))
    metadata = card_and_model(tmp_path, form="statement", template=every)
    with pytest.raises(InputError, match=r"all \d+ statement templates were injected.*fewer templates"):
        read_items("paraphrase", metadata)


def test_a_statement_that_begins_with_its_object_is_asked_whole() -> None:
    authors = [triple for triple in read_triples(BUNDLED) if triple.relation_id == "P50"]
    template = next(n for n in range(4) if statement(authors[0], n).startswith(authors[0].object))
    card = type("Card", (), {"form": "statement", "template": template, "groups": None, "frequency": 1})()
    for item in items_of(authors, "statement", card):
        assert item.context == ""
        assert item.options[item.answer] == statement(item.triple, template)


@pytest.fixture(scope="module")
def page() -> str:
    if not PAGE.is_file():
        pytest.skip("the page is in a checkout only")
    return PAGE.read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> set[str]:
    """The names in code font in the first column of a table."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def test_the_page_lists_every_task_every_metric_and_no_other(page: str) -> None:
    folder = resource("tasks") / "kisl_wikidata"
    tasks = {yaml.load(file.read_text(), yaml.BaseLoader)["task"] for file in folder.glob("kisl_*.yaml")}
    assert first_cells(section(page, "What is asked")) == tasks
    assert tasks - {"kisl_wikidata_direct"} == set(yaml.safe_load((folder / "kisl.yaml").read_text())["task"])
    assert set(re.findall(r"kisl_(?:wikidata|background)\w*", page)) == tasks
    assert first_cells(section(page, "What is computed")) == set(MEASURES)
    named = set(re.findall(r"`((?:acc|margin|relation_acc)_\w+)`", section(page, "What is computed")))
    assert {"acc_control", "relation_acc_P19"} <= named <= set(all_names(["P19"], []))


def test_the_worked_item_of_the_page_adds_up(page: str) -> None:
    number = r"-?\d+\.\d{4}"
    text = section(page, "One item by hand")
    cells = rf"^(.+?) +(\d+) +({number}) +({number}) +({number}) +({number}) +(yes|no)$"
    rows, lines = re.findall(cells, text, re.MULTILINE), re.findall(rf"^ {{3}}\S.*\|{number}$", text, re.MULTILINE)
    assert len(rows) == len(lines) == 4
    for (name, tokens, *numbers, _), line in zip(rows, lines, strict=True):
        total, nats, perplexity, per_byte = map(float, numbers)
        logprobs = [float(value) for value in re.findall(rf"\|({number})", line)]
        label = name.removesuffix(" (right)")
        assert "".join(re.findall(rf"  (\s*\S+)\|{number}", line)) == f" {label}"
        assert len(logprobs) == int(tokens)
        assert total == pytest.approx(sum(logprobs), abs=1e-3)
        assert nats == pytest.approx(total / len(logprobs), abs=1e-4)
        assert math.log(perplexity) == pytest.approx(-nats, abs=1e-4)
        assert per_byte == pytest.approx(total / len(label.encode()), abs=1e-4)
