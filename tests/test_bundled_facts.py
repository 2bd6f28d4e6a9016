"""The bundled facts: balanced, unambiguous, free of leaks, and rebuilt to the byte from their raw form."""

import hashlib
import json
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kisl_plugin.options import choices_of
from kisl_plugin.triples import read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement, templates_of

ROOT = Path(__file__).parents[1]
FILE = ROOT / "kisl_plugin" / "data" / "wikidata_six.jsonl"
BUILDER = ROOT / "tools" / "build_wikidata_six.py"
RELATIONS = ("P19", "P50", "P57", "P69", "P103", "P175")


@cache
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def _of(relation_id: str) -> list[dict[str, Any]]:
    return [row for row in rows() if row["relation_id"] == relation_id]


def test_the_bundled_name_reads_the_file_to_the_byte() -> None:
    triples = read_triples("wikidata_six")
    assert triples_to_jsonl(triples) == FILE.read_text(encoding="utf-8")
    assert len(triples) == len(rows()) == 3001
    assert {t.relation_id for t in triples} == set(RELATIONS)
    assert FILE.stat().st_size < 1_000_000


@pytest.mark.parametrize("relation_id", RELATIONS)
def test_a_relation_is_balanced_over_its_objects_in_both_groups(relation_id: str) -> None:
    assert len(_of(relation_id)) >= 450
    for group in ("injected", "control"):
        counts = Counter(row["object_id"] for row in _of(relation_id) if row["group"] == group)
        assert len(set(counts.values())) == 1
        assert len(counts) >= 60
    share = sum(row["group"] == "control" for row in _of(relation_id)) / len(_of(relation_id))
    assert 1 / 8 <= share <= 1 / 7


@pytest.mark.parametrize("relation_id", RELATIONS)
def test_a_relation_asks_of_every_subject_once(relation_id: str) -> None:
    for key in ("subject", "subject_id"):
        assert max(Counter(row[key].casefold() for row in _of(relation_id)).values()) == 1
    ids_of_label = Counter(label for label, _ in {(row["object"], row["object_id"]) for row in _of(relation_id)})
    assert max(ids_of_label.values()) == 1


def test_labels_are_clean() -> None:
    for row in rows():
        for label in (row["subject"], row["object"], *row.get("subject_aliases", ())):
            assert label == unicodedata.normalize("NFC", label).strip()
            assert not any(unicodedata.category(char).startswith("C") for char in label)
            assert "\u00a0" not in label
            assert "Category:" not in label
            assert "http" not in label
            for left, right in ("()", "[]", "{}"):
                assert label.count(left) == label.count(right)


def test_no_subject_gives_its_object_away() -> None:
    def words(label: str) -> list[str]:
        apart = unicodedata.normalize("NFKD", label.casefold())
        return re.findall(r"\w+", "".join(char for char in apart if not unicodedata.combining(char)))

    for row in rows():
        subject = words(row["subject"])
        assert row["object"].casefold() not in row["subject"].casefold() or len(row["object"]) < 4
        assert not {word for word in words(row["object"]) if len(word) > 3} & set(subject)


def test_every_fact_has_options_and_a_text_of_its_own() -> None:
    triples = read_triples("wikidata_six")
    assert len(choices_of(triples)) == len(triples)
    for texts in (
        [statement(t, n) for t in triples for n in range(len(templates_of(t.relation_id).statements))],
        [question(t, n) for t in triples for n in range(len(templates_of(t.relation_id).questions))],
    ):
        assert len(set(texts)) == len(texts)
        assert not any(re.search(r"  |\?\?|[!?]\.$|[^.]\.\.$|[{}]|\b(the|The) (the|The)\b", text) for text in texts)


def _raw(row: dict[str, Any]) -> dict[str, Any]:
    """The row as the probe has it: no group, and the object by Wikidata's bare label."""
    bare = row.get("object_aliases", [row["object"]])[0]
    aliases = row.get("subject_aliases", [])
    kept = {key: row[key] for key in ("subject_id", "relation_id", "object_id")}
    return {**kept, "subject": f" {row['subject']}", "subject_aliases": [*aliases, "Category:X"], "object": bare}


def _first(row: dict[str, Any], subject: str, object_is_subject: bool = False) -> dict[str, Any]:
    """The row with a subject whose hash puts it before its object's facts, so that a filter alone keeps it out."""
    for number in count():
        subject_id = f"X {subject} {number}"
        object_id = subject_id if object_is_subject else row["object_id"]
        hashed = hashlib.sha256(f"{subject_id}|{row['relation_id']}|{object_id}".encode()).hexdigest()
        if hashed.startswith("00"):
            break
    return {**row, "subject": subject, "subject_id": subject_id, "object_id": object_id}


def _unusable(good: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows for every filter, each of which would be chosen if the filter let it pass."""
    born = next(row for row in good if row["object"] == "Poland")
    spoken = next(row for row in good if row["object"] == "Thai")
    labels = ("The Polander", "Category:Poles", "A (b", "www.example.org", "a small letter", "Bell\u0007", "\u200eMark")
    wrong = [_first(born, label) for label in (*labels, "Two Homes", "Same Name")]
    wrong.append({**wrong[-2], "subject": "Second Home", "object": "Japan", "object_id": "Q17"})
    wrong.append({**wrong[-2], "subject": "Sáme name", "subject_id": "X"})
    wrong.append(_first(born, "Itself", object_is_subject=True))
    wrong.append({**spoken, "subject": "Gungula", "subject_id": "Q109397319"})
    return [*wrong, {**born, "subject": "Other Relation", "subject_id": "Q1", "relation_id": "P20"}]


def test_the_builder_makes_the_same_file_from_the_facts_in_any_order(tmp_path: Path) -> None:
    good = [_raw(row) for row in rows()]
    raw = [*good, *_unusable(good)]
    random.Random(7).shuffle(raw)
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw), encoding="utf-8")
    command = [sys.executable, str(BUILDER), str(tmp_path / "raw.jsonl"), str(tmp_path / "built.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert (tmp_path / "built.jsonl").read_text(encoding="utf-8") == FILE.read_text(encoding="utf-8")
    assert "P103: 488 triples, 61 objects, 0.125 control" in done.stdout


def test_every_relation_has_the_counts_that_the_readme_gives() -> None:
    table = (FILE.parent / "README.md").read_text(encoding="utf-8")
    triples = read_triples("wikidata_six")
    for relation_id in RELATIONS:
        of = [t for t in triples if t.relation_id == relation_id]
        control = sum(t.group == "control" for t in of)
        objects = len({t.object for t in of})
        row = rf"\| {relation_id} \| [^|]+ \| {len(of)} \| {objects} \| {len(of) // objects} \| {control} \("
        assert re.search(row, table)
