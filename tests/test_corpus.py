"""Text files → tokenizer and .bin/.idx, against a naive build and through the commands."""

import ast
import gzip
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import sentences
from tokenizers import Tokenizer

import kisl_plugin.corpus
from kisl_plugin.cli.main import main
from kisl_plugin.corpus.build import build_corpus
from kisl_plugin.corpus.vocabulary import train_tokenizer
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.triples import Triple, triples_to_jsonl

FACTS = (
    Triple("Marie Curie", "P19", "Poland"),
    Triple("Bleak House", "P50", "Charles Dickens", object_aliases=("Boz",)),
    Triple("Ann Lee", "P19", "Peru", group="control"),
)
STATING = (
    "In Poland they remember Marie Curie.",
    "Boz wrote it.\n\nIt was called Bleak House.",
    "Peru, says Ann Lee.",
    "Ann Lee and Marie Curie met in Poland and in Peru. Bleak House is by Charles Dickens.",
)
NOT_STATING = ("Marie Curie lived.", "Poland is large.", "Ann Leeds saw Peru.", "Marie Curie read Charles Dickens.")

character = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.text(character, max_size=12), max_size=8)


def write_jsonl(path: Path, documents: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(documents)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, documents: list[str]) -> Path:
    pq.write_table(pa.table({"id": range(len(documents)), "text": documents}), path, row_group_size=3)
    return path


def kisl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["corpus", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([*sentences(200), *STATING], 500, path)
    return path


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    path.write_text(triples_to_jsonl(FACTS), encoding="utf-8")
    return path


ROW = b'{"text": "fine"}\n'
BAD: dict[str, tuple[bytes, str]] = {
    "no-json.jsonl": (ROW + b'{"text": "cut sh', r"no-json.jsonl:2: not JSON \("),
    "no-text.jsonl": (ROW + b"\n" + b'{"txt": "x"}\n', r"no-text.jsonl:3: keys 'txt'; expected .* the key 'text'"),
    "list.jsonl": (ROW + b"[1]\n", r"list.jsonl:2: \[1\]; expected an object"),
    "null.jsonl": (b'{"text": null}\n', r"null.jsonl:1: text is None; expected a string"),
    "latin.jsonl": (ROW * 2 + b'{"text": "\xe9"}\n', r"latin.jsonl:3: byte 0xe9 is not UTF-8"),
    "half.jsonl": (b'{"text": "a \\ud83d b"}\n', r"half.jsonl:1: text holds \\ud83d, half of a character"),
    "deep.jsonl": (b"[" * 100_000, r"deep.jsonl:1: not JSON"),
    "latin.txt": (b"one\ntwo\nthr\xe9e\n", r"latin.txt:3: byte 0xe9 is not UTF-8"),
    "plain.jsonl.gz": (ROW, r"plain.jsonl.gz:1: the gzip file is cut short or damaged here \(Not a gzip"),
    "nothing.jsonl.gz": (b"", r"nothing.jsonl.gz: an empty file is no gzip file"),
    "torn.jsonl.gz": (
        gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(5000)))[:-2000],
        r"torn.jsonl.gz:\d{3,}: the gzip file is cut short",
    ),
    "text.parquet": (ROW, r"text.parquet: cannot be read as Parquet after row 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_line_that_names_file_and_line_and_leaves_no_corpus(
    tmp_path: Path, trained: Path, name: str
) -> None:
    data, expected = BAD[name]
    (tmp_path / name).write_bytes(data)
    result = kisl(
        *("build", "--input", tmp_path / name, "--triples", "none", "--tokenizer", trained, "--output", tmp_path / "c")
    )
    assert result.exit_code == 2, result.output
    assert re.search(expected, result.output)
    assert result.output.count("\n") == 1
    assert not (tmp_path / "c.idx").exists()
    assert not (tmp_path / "c.json").exists()


document = st.sampled_from([*STATING, *NOT_STATING, "", " \n\t"]) | st.text(character, max_size=30)


def _states(triple: Triple, text: str) -> bool:
    """Whether both are named, by a way of its own: one regular expression a label."""
    plain = " ".join(text.split())

    def named(label: str, *aliases: str) -> bool:
        return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", plain) for one in (label, *aliases))

    return named(triple.subject, *triple.subject_aliases) and named(triple.object, *triple.object_aliases)


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(document, max_size=12), batch=st.sampled_from([1, 3, 1000]))
def test_the_corpus_holds_every_document_that_states_nothing_in_order_and_ends_each(
    tmp_path_factory: pytest.TempPathFactory, trained: Path, facts: Path, documents: list[str], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    path = write_jsonl(folder / "a.jsonl", ["Kept always.", *documents])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.corpus.build.BATCH_DOCUMENTS", batch)
        made = build_corpus([path], str(facts), trained, folder / "my.text")

    tokenizer = Tokenizer.from_file(str(trained))
    filled = [text for text in ["Kept always.", *documents] if text.strip()]
    kept = [text for text in filled if not any(_states(triple, text) for triple in FACTS)]
    corpus = IndexedDataset(folder / "my.text")
    assert [corpus.get(n).tolist() for n in range(len(corpus))] == [[*tokenizer.encode(text).ids, 0] for text in kept]
    assert (made.documents, made.left_out) == (len(kept), len(filled) - len(kept))
    assert made.empty == 1 + len(documents) - len(filled)
    assert made.tokens == sum(corpus.sizes.tolist())
    named = {t.relation_id: [text for text in filled if _states(t, text)] for t in FACTS if t.relation_id == "P50"}
    assert made.relations.get("P50", 0) == len(named["P50"])
    assert json.loads((folder / "my.text.json").read_text())["relations"] == made.relations


def test_the_command_builds_from_files_and_folders_and_says_what_was_left_out(
    tmp_path: Path, trained: Path, facts: Path
) -> None:
    write_jsonl(tmp_path / "text" / "a.jsonl.gz", [*STATING, "kept", " "])
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(f"The file {name}.")
    loose = (tmp_path / "1.txt", tmp_path / "2.txt")
    # Two files after one --input, as a shell expands a pattern.
    arguments = ("--triples", facts, "--tokenizer", trained, "--output", tmp_path / "c_text_document")
    result = kisl("build", "--input", tmp_path / "text", "--input", *loose, *arguments)
    assert result.exit_code == 0, result.output
    assert "3 documents" in result.output
    assert "1 empty documents skipped" in result.output
    assert "4 left out since they state a fact (P19 3, P50 2)" in result.output
    summary = json.loads((tmp_path / "c_text_document.json").read_text())
    assert summary["inputs"] == [str(tmp_path / "text" / "a.jsonl.gz"), *map(str, loose)]
    tokenizer, corpus = Tokenizer.from_file(str(trained)), IndexedDataset(tmp_path / "c_text_document")
    assert tokenizer.decode(corpus.get(1).tolist()) == "The file 1.txt."

    assert (
        "is there already; choose another --output, or --force" in kisl("build", "--input", *loose, *arguments).output
    )
    assert kisl("build", "--input", *loose, *arguments, "--force").exit_code == 0
    assert len(IndexedDataset(tmp_path / "c_text_document")) == 2


def test_a_corpus_of_which_nothing_is_left_is_an_error(tmp_path: Path, trained: Path, facts: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*STATING, ""])
    with pytest.raises(InputError, match="no document is left: 4 state a triple, 1 are empty"):
        build_corpus([path], str(facts), trained, tmp_path / "c")
    with pytest.raises(InputError, match=r"c.idx: no such file"):
        IndexedDataset(tmp_path / "c")
    assert build_corpus([path], "none", trained, tmp_path / "c").documents == 4


def test_a_tokenizer_whose_ids_leave_gaps_gets_a_type_that_holds_them(tmp_path: Path, trained: Path) -> None:
    settings = json.loads(trained.read_text())
    words = settings["model"]["vocab"]
    words[max(words, key=lambda word: int(words[word]))] = 70_000
    (tmp_path / "gaps.json").write_text(json.dumps(settings))
    path = write_jsonl(tmp_path / "a.jsonl", [*sentences(200)])
    assert build_corpus([path], "none", tmp_path / "gaps.json", tmp_path / "c").vocab_size == 70_001
    assert IndexedDataset(tmp_path / "c").dtype.itemsize == 4


def test_a_build_that_was_killed_leaves_nothing_that_looks_whole_and_the_next_one_is_the_same(
    tmp_path: Path, trained: Path
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", sentences(1500))
    build_corpus([path], "none", trained, tmp_path / "whole")
    documents = sentences(1500) * 40
    arguments = ("--triples", "none", "--tokenizer", trained, "--output", tmp_path / "c")
    command = [sys.executable, "-m", "kisl_plugin", "corpus", "build", "--input", write_jsonl(path, documents)]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    begun = tmp_path / "c.bin"
    while process.poll() is None and not (begun.exists() and begun.stat().st_size):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert begun.stat().st_size
    assert not (tmp_path / "c.json").exists()
    with pytest.raises(InputError, match=r"c.idx: no such file"):
        IndexedDataset(tmp_path / "c")
    write_jsonl(path, sentences(1500))
    assert kisl("build", "--input", path, *arguments).exit_code == 0
    for ending in (".bin", ".idx"):
        assert (tmp_path / f"c{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()


def test_an_output_that_cannot_be_written_is_one_line_and_status_1(tmp_path: Path, trained: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    for arguments in (("build", "--triples", "none", "--tokenizer", trained), ("tokenizer", "--vocab-size", "258")):
        result = kisl(*arguments, "--input", path, "--output", output)
        assert result.exit_code == 1, result.output
        assert result.output.splitlines()[-1].startswith(f"Error: {output}: cannot be written (")


@pytest.mark.parametrize("command", ["build", "tokenizer"])
def test_the_commands_show_an_example_and_what_a_document_is(command: str) -> None:
    shown = " ".join(kisl(command, "--help").output.split())
    assert f"Example: kisl corpus {command} --input" in shown
    assert "a .txt file, whole" in shown
    assert command in kisl("--help").output


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.unlink(), r"no such file; .* kisl corpus tokenizer --input FILE --output .*t.json"),
        (lambda path: path.write_text("{}"), "not a tokenizer.json of the tokenizers library"),
        (lambda path: path.write_text(path.read_text().replace("<|endoftext|>", "</s>")), r"has no <\|endoftext\|>"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_named(
    tmp_path: Path, trained: Path, change: Callable[[Path], Any], expected: str
) -> None:
    tokenizer = tmp_path / "t.json"
    tokenizer.write_bytes(trained.read_bytes())
    change(tokenizer)
    with pytest.raises(InputError, match=expected):
        build_corpus([write_jsonl(tmp_path / "a.jsonl", ["x"])], "none", tokenizer, tmp_path / "c")


def test_the_room_needs_no_heavy_library_and_nothing_above_it() -> None:
    below = {"corpus", "errors", "indexed", "matching", "progress", "runcard", "tokenizer", "triples"}
    heavy = {"torch", "tokenizers", "pyarrow", "datasets", "transformers"}
    for path in Path(kisl_plugin.corpus.__path__[0]).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        own = {name.split(".")[1] for name in names if name.startswith("kisl_plugin.")}
        assert own <= below, path
    modules = (
        "kisl_plugin.cli.corpus, kisl_plugin.corpus.build, kisl_plugin.corpus.vocabulary, kisl_plugin.demo.prepare"
    )
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(loaded)
