"""Rows of triples files: every wrong one is an error that names it, and duplicates are counted."""

import json
import warnings
from pathlib import Path

import pytest

from kisl_plugin.errors import InputError
from kisl_plugin.triples import TriplesWarning, read_triples

MARIE = {"subject": "Marie Curie", "relation_id": "P19", "object": "Poland"}


def _row(**changes: object) -> str:
    return json.dumps({**MARIE, **changes}, ensure_ascii=False)


NO_OBJECT = json.dumps({"subject": "a", "relation_id": "P1"})
WRONG_FILES = {
    "missing column": ("f.jsonl", f"{_row()}\n\n{NO_OBJECT}\n", 3, ["no column 'object'", "'subject', 'relation_id'"]),
    "near miss, capital": ("f.csv", "Subject,relation_id,object\na,P1,b\n", 1, ["'Subject'", "'subject'"]),
    "near miss, shortened": ("f.tsv", "subject\trelation\tobject\na\tP1\tb\n", 1, ["'relation'", "'relation_id'"]),
    "near miss, optional": ("f.csv", "subject,relation_id,object,Groups\n", 1, ["'Groups'", "'group'"]),
    "near miss in a row": ("f.jsonl", f"{_row()}\n{_row(subject_alias=['x'])}\n", 2, ["rename", "'subject_aliases'"]),
    "column twice": ("f.csv", "subject,relation_id,object,object\n", 1, ["'object'", "twice"]),
    "empty field": ("f.csv", "subject,relation_id,object\na,P1,b\n\n  ,P1,b\n", 4, ["subject is empty"]),
    "null field": ("f.jsonl", _row(object=None), 1, ["object is None", "expected a string"]),
    "not a string": ("f.jsonl", f"{_row()}\n{_row(object=7)}", 2, ["object is 7", "expected a string"]),
    "id not a string": ("f.jsonl", _row(subject_id=42), 1, ["subject_id is 42", "expected a string"]),
    "aliases no list": ("f.jsonl", _row(subject_aliases="x"), 1, ["subject_aliases is 'x'", "list of strings"]),
    "alias no string": ("f.jsonl", _row(object_aliases=[1]), 1, ["object_aliases is 1", "expected a string"]),
    "alias empty": ("f.jsonl", _row(object_aliases=[" "]), 1, ["object_aliases is empty"]),
    "control character": ("f.jsonl", _row(object="Po\u0007land"), 1, ["control character", r"'\x07'"]),
    "lone surrogate": ("f.jsonl", '{"subject": "a\\ud800", "relation_id": "P1", "object": "b"}', 1, ["'\\ud800'"]),
    "newline in a field": ("f.csv", 'subject,relation_id,object\n"a\nb",P1,c\n', 2, ["control character"]),
    "row after a quoted newline": (
        "f.csv",
        'note,subject,relation_id,object\n"a\nb",s,P1,c\nx,,P1,c\n',
        4,
        ["subject is empty"],
    ),
    "object is subject": ("f.jsonl", _row(object="Marie Curie"), 1, ["'Marie Curie'", "equals its subject"]),
    "bad JSON": ("f.jsonl", f'{_row()}\n{{"subject": "a",\n', 2, ["not JSON"]),
    "no object": ("f.jsonl", "[1, 2]\n", 1, ["[1, 2]", "expected a JSON object"]),
    "fields too many": ("f.csv", "subject,relation_id,object\na,P1,b,c\n", 2, ["4 fields", "expected 3"]),
    "fields too few": ("f.tsv", "subject\trelation_id\tobject\na\tP1\n", 2, ["2 fields", "expected 3"]),
    "stray quote": ("f.tsv", 'subject\trelation_id\tobject\n"Heroes" song\tP1\tx\n', 2, ["quotes"]),
    "two groups": (
        "f.jsonl",
        f"{_row(group='control')}\n{_row(group='rare')}\n",
        2,
        ["'rare'", "'control'", "row 1"],
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_an_error_with_its_row(tmp_path: Path, case: str) -> None:
    name, text, row, fragments = WRONG_FILES[case]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(InputError) as caught:
        read_triples(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{row}: ")
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_exact_duplicates_are_left_out_with_one_counted_warning(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    other = _row(object="France")
    path.write_text("\n".join([_row(), other, *[_row(subject_aliases=["Manya"])] * 7, other]))
    with pytest.warns(TriplesWarning) as caught:
        triples = read_triples(path)
    assert [t.object for t in triples] == ["Poland", "France"]
    assert len(caught) == 1
    assert "left out 8 rows" in str(caught[0].message)
    assert "rows 3, 4, 5, 6, 7, …" in str(caught[0].message)


def test_the_same_labels_with_other_ids_are_other_facts(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f"{_row(subject_id='Q1')}\n{_row(subject_id='Q2', group='control')}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [t.subject_id for t in read_triples(path)] == ["Q1", "Q2"]


@pytest.mark.parametrize("group", ["Control", "CONTROL", "stderr", "Stderr", "rare_stderr", "Rare_StdErr"])
def test_a_group_that_would_be_mistaken_is_refused(tmp_path: Path, group: str) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(f"subject,relation_id,object,group\nAda,P19,Chile,{group}\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"facts.csv:2: group is '{group}'; expected 'control'"):
        read_triples(path)


def test_invisible_characters_are_refused_and_joiners_kept(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    for subject in ("A\u200bda", "\u200fAda", "\U0001f3f4\U000e0067\U000e007f"):  # the last is part of a flag
        path.write_text(f"subject,relation_id,object\n{subject},P19,Chile\n", encoding="utf-8")
        with pytest.raises(InputError, match=r"facts.csv:2: subject is .*, with the invisible character '\\"):
            read_triples(path)
    path.write_text("subject,relation_id,object\nمی\u200cخواهم,P19,Chile\n", encoding="utf-8")
    assert "\u200c" in read_triples(path)[0].subject


def test_a_mistyped_path_does_not_ask_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="triples 'my/facts': no such file"):
        read_triples("my/facts")
