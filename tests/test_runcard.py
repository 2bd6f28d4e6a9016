import json
from pathlib import Path
from typing import Any

import pytest

from kisl_plugin.errors import InputError
from kisl_plugin.files import sha256
from kisl_plugin.runcard import RunCard, check_resume, read_run_card, write_run_card

TRIPLES = '{"subject": "A"}\n'


def card(**changes: Any) -> RunCard:
    values: dict[str, Any] = {
        "engine": "local",
        "model": {"params": 10},
        "tokens": 100,
        "seed": 1,
        "frequency": 5,
        "triples": {"count": 1, "control": 0, "sha256": sha256(TRIPLES)},
        "window": [0.0, 1.0],
    }
    return RunCard(**{**values, **changes})


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_run_card(tmp_path / "model", card(), TRIPLES)
    assert read_run_card(tmp_path / "model") == card(created=read_run_card(tmp_path / "model").created)
    assert (tmp_path / "model" / "kisl_triples.jsonl").read_text() == TRIPLES
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["kisl.json", "kisl_triples.jsonl"]


def test_a_card_that_speaks_of_other_triples_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sha256"):
        write_run_card(tmp_path / "model", card(), TRIPLES + TRIPLES)
    assert not (tmp_path / "model").exists()


def test_a_card_of_a_newer_writer_is_read(tmp_path: Path) -> None:
    data = {**card().to_dict(), "weather": "fine"}
    assert RunCard.from_dict(data, "here").frequency == 5


def test_null_in_a_card_is_a_missing_key() -> None:
    assert RunCard.from_dict({**card().to_dict(), "engine": None}, "here").engine == "unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"model": {}}, "model.params is None"),
        ({"tokens": "many"}, "tokens is 'many'"),
        ({"seed": None}, "seed is None"),
        ({"triples": {"count": -1}}, "triples.count is -1"),
        ({"frequency": None}, "either frequency or groups"),
        ({"frequency": 1, "groups": {}}, "either frequency or groups"),
        ({"frequency": None, "groups": {"a": {"frequency": 1}}}, "groups.a is"),
    ],
)
def test_what_a_reader_needs_is_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RunCard.from_dict({**card().to_dict(), **changes}, "model/kisl.json")
    assert str(caught.value).startswith("model/kisl.json: ")


def test_a_truncated_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "kisl.json").write_text(json.dumps(card().to_dict())[:40])
    with pytest.raises(InputError, match=r"kisl.json: cannot be read as JSON"):
        read_run_card(tmp_path)
    with pytest.raises(InputError, match=r"kisl.json: no run card"):
        read_run_card(tmp_path / "elsewhere")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_card_with_a_number_that_json_does_not_have_is_refused(tmp_path: Path, number: str) -> None:
    text = json.dumps({**card().to_dict(), "versions": {"kisl": [0.5]}})
    (tmp_path / "kisl.json").write_text(text)
    assert read_run_card(tmp_path).versions == {"kisl": [0.5]}
    (tmp_path / "kisl.json").write_text(text.replace("0.5", number))
    with pytest.raises(InputError, match=f"kisl.json: cannot be read as JSON .*{number}; expected a finite number"):
        read_run_card(tmp_path)


def test_a_card_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "kisl.json").write_text('{"parent": ' * 100_000)
    with pytest.raises(InputError, match=r"kisl.json: cannot be read as JSON"):
        read_run_card(tmp_path)


def test_a_resume_with_another_schedule_names_both_values() -> None:
    check_resume(card(), card(), "run")
    with pytest.raises(InputError, match=r"run: the checkpoint was trained with frequency = 5, .* gives 6"):
        check_resume(card(), card(frequency=6), "run")
    with pytest.raises(InputError, match=r"window = \[0.0, 1.0\], .* gives \[0.5, 1.0\]"):
        check_resume(card(), card(window=[0.5, 1.0]), "run")


def test_a_resume_with_other_data_or_another_optimizer_names_both_values_and_older_cards_are_resumed() -> None:
    new = card(data={"corpus": "c", "tokenizer": "t"}, optimizer={"name": "adam", "lr": 0.1}, run_id="r")
    check_resume(card(), new, "run")
    check_resume(new, card(data=new.data, optimizer=new.optimizer, run_id="another"), "run")
    with pytest.raises(InputError, match=r"trained with data.tokenizer = 't', .* gives 'u'"):
        check_resume(new, card(data={"corpus": "c", "tokenizer": "u"}, optimizer=new.optimizer), "run")
    with pytest.raises(InputError, match=r"trained with optimizer.lr = 0.1, .* gives 0.2"):
        check_resume(new, card(data=new.data, optimizer={"name": "adam", "lr": 0.2}), "run")
    with pytest.raises(InputError, match=r"trained with optimizer.betas = None, .* gives \[0, 1\]"):
        check_resume(new, card(data=new.data, optimizer={"name": "adam", "lr": 0.1, "betas": [0, 1]}), "run")
