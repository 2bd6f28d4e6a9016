"""What an audit counts in a tokenised corpus, against regular expressions over the texts."""

import csv
import json
import os
import re
import signal
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import EOD, sentences, train_tokenizer, write_yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from kisl_plugin.cli.corpus import audit as audit_command
from kisl_plugin.corpus import audit as corpus_audit
from kisl_plugin.corpus.audit import CorpusAudit, audit_corpus
from kisl_plugin.corpus.build import BuildOptions, build_corpus
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.hookspecs import Templates, hookimpl, manager
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedDataset, IndexedWriter
from kisl_plugin.triples import Triple, triples_to_jsonl
from kisl_plugin.verbalize import question, statement, templates_of

FACTS = (
    Triple("Marie Curie", "P19", "Poland", "Q7186", "Q36"),
    Triple("Béla Bartók", "P103", "Hungarian", subject_aliases=("Bartok Béla",)),
    Triple("Bleak House", "P50", "Charles Dickens", object_aliases=("Boz",)),
    Triple("Ann Lee", "P19", "Peru", group="control"),
    Triple("Ann Lee", "P31", "human"),  # a relation without templates
)
STATED = [
    form(triple, number) + (f" {triple.object}" if form is question else "")
    for triple in FACTS[:4]
    for form, count in (
        (statement, len(templates_of(triple.relation_id).statements)),
        (question, len(templates_of(triple.relation_id).questions)),
    )
    for number in range(count)
]
NEAR = ("Marie Curie", "Poland", "Polandia", "Bartok Béla", "Hungarian", "Boz", "Bozen", "Bleak\n House", "Ann Lee.",
        "human", "Marie Curie was born in Polandia.", "Peru", "日本語", "naïve", "🙂", "x" * 40)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([*sentences(100), *STATED], 600).save(str(path))
    return path


def write_corpus(prefix: Path, documents: Sequence[str], tokenizer_file: Path) -> Path:
    """Documents as .bin/.idx; `EOD` within one ends a document there, as other tools write them."""
    tokenizer, eod = read_tokenizer(tokenizer_file)
    with IndexedWriter(prefix, 1000) as writer:
        for document in documents:
            writer.add([*tokenizer.encode(document, add_special_tokens=False).ids, eod])
    return prefix


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def times(phrase: str, text: str) -> int:
    return len(re.findall(rf"(?<!\w)(?={re.escape(plain(phrase))}(?!\w))", plain(text)))


def wordings(triple: Triple) -> list[str]:
    if triple.relation_id == "P31":
        return []
    templates = templates_of(triple.relation_id)
    wordings = (*templates.statements, *(f"{asked} {{object}}" for asked in templates.questions))
    return [wording.replace("{subject}", triple.subject).replace("{object}", triple.object) for wording in wordings]


def expected(documents: Sequence[str]) -> list[tuple[int, int, int]]:
    """By a way of its own: one regular expression for each wording and label."""
    texts = [piece for document in documents for piece in document.split(EOD)]
    counts = []
    for triple in FACTS:
        stated = [sum(times(wording, text) for wording in set(map(plain, wordings(triple)))) for text in texts]
        labels = ((triple.subject, *triple.subject_aliases), (triple.object, *triple.object_aliases))
        # "Boz" is an alias of fewer than four characters
        kept = [[label for n, label in enumerate(side) if not n or len(label) >= 4] for side in labels]
        paired = [all(any(times(label, text) for label in side) for side in kept) for text in texts]
        counts.append((sum(map(bool, stated)), sum(stated), sum(paired)))
    return counts


def counts_of(audit: CorpusAudit) -> list[tuple[int, int, int]]:
    arrays = (audit.statement_documents, audit.statement_occurrences, audit.pair_documents)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


piece = st.sampled_from([*STATED, *NEAR, EOD]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
document = st.builds(" ".join, st.lists(piece, max_size=8)).map(lambda text: text.upper() if len(text) % 3 else text)


@settings(max_examples=50, deadline=None)
@given(
    documents=st.lists(document, min_size=1, max_size=9), share=st.sampled_from([1, 40, 9999]), batch=st.integers(1, 9)
)
def test_an_audit_counts_what_regular_expressions_find_however_the_corpus_is_divided(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path, documents: list[str], share: int, batch: int
) -> None:
    documents = [text.replace(EOD.upper(), EOD) for text in documents]
    prefix = write_corpus(tmp_path_factory.mktemp("audit") / "my.text", documents, tokenizer_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_audit, "_BATCH_DOCUMENTS", batch)
        patch.setattr(corpus_audit, "_SHARE_TOKENS", share)
        audit = audit_corpus([prefix], FACTS, tokenizer_file)
    assert counts_of(audit) == expected(documents)
    assert audit.documents == sum(bool(text) for document in documents for text in document.split(EOD))
    assert audit.tokens == IndexedDataset(prefix).sizes.sum()


def test_processes_and_several_corpora_count_the_same(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [*STATED, *NEAR, *sentences(50), " ".join(STATED)]
    parts = [write_corpus(tmp_path / f"c_{n}", documents[n * 30 : (n + 1) * 30], tokenizer_file) for n in range(4)]
    monkeypatch.setattr(corpus_audit, "_SHARE_TOKENS", 500)
    audit = audit_corpus(parts, FACTS, tokenizer_file, workers=2)
    assert counts_of(audit) == expected(documents)
    assert audit.documents == len(documents)


def killed(share: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_process_that_is_killed_is_one_line(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_corpus(tmp_path / "c", STATED, tokenizer_file)
    monkeypatch.setattr(corpus_audit, "_SHARE_TOKENS", 100)
    monkeypatch.setattr(corpus_audit, "_count_share", killed)
    with pytest.raises(KislError, match="a worker process was killed, perhaps for want of memory"):
        audit_corpus([prefix], FACTS, tokenizer_file, workers=2)


def kisl_audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(audit_command, list(map(str, arguments)))


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text(triples_to_jsonl(FACTS), encoding="utf-8")
    return path


def test_the_command_prints_totals_and_relations_and_writes_a_row_per_triple(
    tmp_path: Path, tokenizer_file: Path, facts: Path
) -> None:
    documents = [*STATED, *NEAR, "Ann Lee is human.", "Boz wrote Bleak House."]
    prefix = write_corpus(tmp_path / "c", documents, tokenizer_file)
    arguments = ("--triples", facts, "--tokenizer", tokenizer_file, "--output", tmp_path / "new" / "a.csv")
    result = kisl_audit(prefix, *arguments)
    assert result.exit_code == 0, result.output
    assert f"{len(documents):,} documents" in result.output
    assert "5 triples · 4 with a statement in the text · 5 with subject and object in one document" in result.output
    assert "no statements to search for: P31" in result.output
    counts = expected(documents)
    p19 = next(line.split() for line in result.output.splitlines() if line.startswith("P19"))
    assert p19 == ["P19", "2", "2", str(counts[0][1] + counts[3][1]), "2", str(counts[0][2] + counts[3][2])]
    rows = list(csv.DictReader((tmp_path / "new" / "a.csv").open(encoding="utf-8", newline="")))
    assert [row["subject"] for row in rows] == [triple.subject for triple in FACTS]
    assert (rows[0]["subject_id"], rows[0]["object_id"], rows[3]["group"]) == ("Q7186", "Q36", "control")
    for row, (in_documents, occurrences, pairs) in zip(rows[:4], counts, strict=False):
        assert (int(row["statement_documents"]), int(row["statement_occurrences"])) == (in_documents, occurrences)
        assert int(row["pair_documents"]) == pairs
    assert (rows[4]["statement_documents"], rows[4]["pair_documents"]) == ("", str(counts[4][2]))


def note_tokenizer(prefix: Path, tokenizer_file: Path) -> None:
    digest = sha256(read_tokenizer(tokenizer_file)[0].to_str())
    manifest = {"tokenizer": str(tokenizer_file), "tokenizer_sha256": digest}
    prefix.with_name(prefix.name + ".json").write_text(json.dumps(manifest))


def test_the_corpus_names_its_tokenizer_and_another_one_is_refused(
    tmp_path: Path, tokenizer_file: Path, facts: Path
) -> None:
    prefix = write_corpus(tmp_path / "c", STATED, tokenizer_file)
    unknown = kisl_audit(prefix, "--triples", facts)
    assert unknown.exit_code == 2 and "c.json names the tokenizer" in unknown.output
    note_tokenizer(prefix, tokenizer_file)
    assert kisl_audit(prefix, "--triples", facts).exit_code == 0
    train_tokenizer(sentences(20), 300).save(str(tmp_path / "other.json"))
    other = kisl_audit(prefix, "--triples", facts, "--tokenizer", tmp_path / "other.json")
    assert other.exit_code == 2 and "other.json: is not the tokenizer that" in other.output
    assert other.output.count("\n") == 1


def test_a_yaml_names_the_corpora_that_a_run_trains_on(tmp_path: Path, tokenizer_file: Path, facts: Path) -> None:
    paths = [str(write_corpus(tmp_path / f"c_{n}", STATED[n:], tokenizer_file)) for n in range(2)]
    yaml = write_yaml(tmp_path / "c.yml", {"train_data_paths": paths, "train_data_weights": [2.0, 1.0]})
    note_tokenizer(tmp_path / "c", tokenizer_file)
    result = kisl_audit(yaml, "--triples", facts, "--output", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))
    assert [int(row["statement_occurrences"]) for row in rows[:4]] == [
        row[1] for row in expected([*STATED, *STATED[1:]])[:4]
    ]
    write_yaml(yaml, {"train_data_paths": [1]})
    assert "c.yml: train_data_paths is [1]" in kisl_audit(yaml, "--triples", facts).output
    note_tokenizer(tmp_path / "c_1", tokenizer_file)
    run = write_yaml(tmp_path / "run.yml", {"data_path": paths[1], "train_iters": 1})
    assert f"c_1 · {len(STATED) - 1} documents" in kisl_audit(run, "--triples", facts).output


def test_tokens_of_another_tokenizer_are_named(tmp_path: Path, tokenizer_file: Path, facts: Path) -> None:
    with IndexedWriter(tmp_path / "c", 1000) as writer:
        writer.add([5, 6, 0])
        writer.add([5, 999, 0])
    result = kisl_audit(tmp_path / "c", "--triples", facts, "--tokenizer", tokenizer_file)
    assert result.exit_code == 2
    assert "c.bin: document 1 contains the token 999; the tokenizer has 0 … " in result.output


def test_a_tokenizer_that_folds_case_still_counts_and_one_that_loses_every_statement_is_refused(tmp_path: Path) -> None:
    lower = train_tokenizer([text.lower() for text in STATED], 500)
    lower.normalizer = normalizers.Lowercase()
    lower.save(str(tmp_path / "lower.json"))
    prefix = write_corpus(tmp_path / "lower", STATED, tmp_path / "lower.json")
    assert counts_of(audit_corpus([prefix], FACTS, tmp_path / "lower.json")) == expected(STATED)

    words = Tokenizer(models.WordLevel(unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(["a b"], trainers.WordLevelTrainer(special_tokens=[EOD, "?"]))
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(InputError, match=r"words.json: returns no statement unchanged: 'Marie .* becomes '\? \?"):
        audit_corpus([prefix], FACTS, tmp_path / "words.json")


def test_options_that_do_not_go_together_are_refused(tmp_path: Path, facts: Path) -> None:
    for arguments, message in (
        ((), "give PREFIX and --triples"),
        (("c",), "give PREFIX and --triples"),
        (("c", "--rows", "5", "--triples", facts), "--rows needs a run"),
        (("c", "--run", "x.yml"), "PREFIX and --run"),
        (("c", "--triples", facts, "--output", tmp_path), "is no regular file"),
        (("--run", "x.yml", "--triples", facts), "--triples and --run"),
        (("--run", "x.yml", "--workers", "2"), "--workers and --run"),
    ):
        result = kisl_audit(*arguments)
        assert result.exit_code == 2 and message in result.output, result.output


def test_what_a_build_left_out_is_no_longer_found_and_what_it_kept_is(
    tmp_path: Path, tokenizer_file: Path, facts: Path
) -> None:
    documents = [*STATED, *NEAR, *sentences(20), "Ann Lee is human."]
    (tmp_path / "in").mkdir()
    for part in range(3):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[part::3])
        (tmp_path / "in" / f"{part}.jsonl").write_text(lines)
    for name, triples in (("all", "none"), ("kept", str(facts))):
        build_corpus(BuildOptions([tmp_path / "in"], triples, tokenizer_file, tmp_path / name, tasks=3))
        result = kisl_audit(tmp_path / name, "--triples", facts, "--output", tmp_path / f"{name}.csv")
        assert result.exit_code == 0, result.output
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").open(encoding="utf-8", newline="")))
        counts = [(int(row["statement_documents"] or 0), int(row["pair_documents"])) for row in rows]
        assert counts == ([(0, 0)] * 5 if name == "kept" else [(row[0], row[2]) for row in expected(documents)])


class Chinese:
    """Templates without spaces around the labels."""

    @hookimpl
    def kisl_templates(self, relation_id: str) -> Templates | None:
        templates = Templates("出生地", ("{subject}出生于{object}。",), ("{subject}出生在哪里?",))
        return templates if relation_id == "Q1" else None


def test_statements_whose_labels_no_matcher_finds_are_counted(tmp_path: Path, tokenizer_file: Path) -> None:
    triples = [Triple("居里夫人", "Q1", "波兰"), Triple("Louden Up Now", "P175", "!!!")]
    documents = ["居里夫人出生于波兰。 居里夫人出生于波兰。", statement(triples[1]), "居里夫人出生于波兰的华沙。"]
    prefix = write_corpus(tmp_path / "c", documents, tokenizer_file)
    plugin = Chinese()
    manager().register(plugin)
    try:
        audit = audit_corpus([prefix], triples, tokenizer_file)
    finally:
        manager().unregister(plugin)
    assert audit.statement_occurrences.tolist() == [2, 1]
    assert audit.statement_documents.tolist() == [1, 1]
    assert list(audit.unsearchable) == [0]


def test_a_statement_within_longer_words_is_none(tmp_path: Path, tokenizer_file: Path) -> None:
    sentence, answer = statement(FACTS[0]), f"{question(FACTS[0])} Poland"
    # A mark makes another letter of the one before it; so only the last two are statements.
    texts = (f"x{sentence}", f"{sentence}x", f"{answer}ia", f"{answer}\u0301", f"({answer})", sentence)
    documents = [f"Marie Curie, Poland: {text}" for text in texts]
    audit = audit_corpus([write_corpus(tmp_path / "c", documents, tokenizer_file)], FACTS, tokenizer_file)
    assert counts_of(audit)[0] == (2, 2, 6)


def test_a_csv_that_cannot_be_written_is_an_error_before_the_work(tmp_path: Path, facts: Path) -> None:
    (tmp_path / "file").touch()
    result = kisl_audit("nowhere", "--triples", facts, "--output", tmp_path / "file" / "a.csv")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path / 'file' / 'a.csv'}: cannot be written (")
