"""Documents → .bin/.idx without those that state a fact, against a naive build; the same bytes however it is cut."""

import ast
import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from corpus_builds import EMPTY, FACTS, NOT_STATING, STATING, make_world, several_files, written
from corpus_files import read_all
from datatrove.data import Document
from datatrove.pipeline.writers import JsonlWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import sentences
from tokenizers import Tokenizer

import kisl_plugin.corpus
from kisl_plugin.cli.main import main
from kisl_plugin.corpus import shards
from kisl_plugin.corpus.build import BuildOptions, build_corpus, share_out
from kisl_plugin.corpus.executors import LocalRunner, Stage
from kisl_plugin.corpus.filter import FactFilter
from kisl_plugin.corpus.inputs import Piece
from kisl_plugin.corpus.shards import Corpus
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.matching import MatchRules

character = st.characters(exclude_categories=["Cs"])
document = st.sampled_from([*STATING, *NOT_STATING, *EMPTY]) | st.text(character, max_size=30)
RULES = (MatchRules(), MatchRules(match="subject"), MatchRules(stop_list=("phiz",)))


def stated(text: str, rules: MatchRules) -> list[int]:
    """The facts that a text states, one regular expression a label; enough for texts that only STATING has facts in."""

    def named(*labels: str) -> bool:
        sought = [label for label in labels if label.casefold() not in rules.stop_list]
        return any(re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) for label in sought)

    return [
        index
        for index, fact in enumerate(FACTS)
        if named(fact.subject)
        and (rules.match == "subject" or named(fact.object, *(a for a in fact.object_aliases if len(a) > 3)))
    ]


@settings(max_examples=15, deadline=None)
@given(
    files=st.lists(st.lists(document, max_size=8), min_size=1, max_size=5),
    tasks=st.integers(1, 6),
    batch=st.sampled_from([1, 3, 1000]),
    rules=st.sampled_from(RULES),
)
def test_the_corpus_holds_every_document_that_states_nothing_in_order_and_ends_each(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], tasks: int, batch: int, rules: MatchRules
) -> None:
    world = make_world(tmp_path_factory.mktemp("corpus"), [["Kept always."], *files])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.corpus.filter.BATCH_DOCUMENTS", batch)
        made = world.build("my.text", rules=rules, tasks=tasks)

    documents = read_all(world.text)
    filled = [one for one in documents if one.text.strip()]
    facts = [stated(one.text, rules) for one in filled]
    kept = [one.text for one, indices in zip(filled, facts, strict=True) if not indices]
    tokenizer, corpus = Tokenizer.from_file(str(world.tokenizer)), IndexedDataset(world.folder / "my.text")
    assert [corpus.get(n).tolist() for n in range(len(corpus))] == [[*tokenizer.encode(text).ids, 0] for text in kept]
    counts = (made.documents, made.left_out, made.empty, made.tokens)
    assert counts == (len(kept), len(filled) - len(kept), len(documents) - len(filled), sum(corpus.sizes.tolist()))
    assert made.relations == Counter(
        name for indices in facts for name in {FACTS[index].relation_id for index in indices}
    )
    output = written(world.folder / "my.text")
    rows = list(csv.DictReader(output[".triples.csv"].decode().splitlines()))
    by_triple = Counter(index for indices in facts for index in indices)
    assert [int(row["removed"]) for row in rows] == [by_triple[index] for index in range(len(FACTS))]
    excluded = [json.loads(line) for line in output["excluded"].decode().split("\n") if line]
    assert [(one["id"], one["text"], [fact["triple"] for fact in one["triples"]]) for one in excluded] == [
        (one.id, one.text, indices) for one, indices in zip(filled, facts, strict=True) if indices
    ]


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9), tasks=st.integers(1, 12))
def test_any_number_of_tasks_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], tasks: int
) -> None:
    files = [[*sentences(count, seed=n), STATING[n % 4]] for n, count in enumerate(lengths)]
    world = make_world(tmp_path_factory.mktemp("tasks"), files)
    world.build("one", tasks=1)
    world.build("some", tasks=tasks)
    assert written(world.folder / "some") == written(world.folder / "one")


def test_two_workers_give_the_same_bytes_and_leave_nothing_else(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files())
    world.build("one", tasks=1)
    before = set(tmp_path.iterdir())
    world.build("two", workers=2)
    assert written(tmp_path / "two") == written(tmp_path / "one")
    names = {path.name for path in set(tmp_path.iterdir()) - before}
    assert names == {f"two{end}" for end in (".bin", ".idx", ".json", ".triples.csv", ".excluded")}
    assert len(list((tmp_path / "two.excluded").iterdir())) == 5


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=60), tasks=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_shares_are_all_pieces_in_order_none_empty_and_none_much_larger_than_it_must_be(
    sizes: list[int], tasks: int
) -> None:
    tasks = min(tasks, len(sizes))
    pieces = [Piece(f"{n}.jsonl", "", size) for n, size in enumerate(sizes)]
    shares = share_out(pieces, tasks)
    assert [piece for share in shares for piece in share] == pieces
    assert all(shares)
    largest = max(sum(piece.size for piece in share) for share in shares)
    assert largest <= 2 * (sum(sizes) / tasks + max(sizes))


def test_a_fact_filter_works_in_anyones_datatrove_pipeline(tmp_path: Path) -> None:
    world = make_world(tmp_path, [["x"]])
    block = FactFilter(world.facts, MatchRules(), JsonlWriter(str(tmp_path / "removed"), compression=None))
    documents = [Document(text=text, id=str(n)) for n, text in enumerate([*NOT_STATING, *STATING])]
    assert [one.text for one in block(iter(documents), rank=7, world_size=9)] == list(NOT_STATING)
    removed = [json.loads(line) for line in (tmp_path / "removed" / "00007.jsonl").read_text().splitlines()]
    assert [one["id"] for one in removed] == ["4", "5", "6", "7"]
    first = removed[0]["metadata"]["triples"][0]
    assert {key: first[key] for key in ("subject", "relation_id", "object", "rule")} == {
        "subject": "Marie Curie", "relation_id": "P19", "object": "Poland", "rule": "pair:document",
    }  # fmt: skip
    spans = [STATING[0][slice(*first[f"{side}_span"])] for side in ("subject", "object")]
    assert spans == ["Marie Curie", "Poland"]
    assert block.filter(Document(text="nothing", id="")) and not block.filter(Document(text=STATING[0], id=""))


def test_weighted_shards_are_the_merged_corpus_in_parts_with_their_tokens_as_weights(tmp_path: Path) -> None:
    world = make_world(tmp_path, several_files())
    made = world.build("whole")
    world.build("parts", tasks=3, weighted=True)
    lines = yaml.safe_load((tmp_path / "parts.yml").read_text())
    paths = [*lines["train_data_paths"], *lines["valid_data_paths"]]
    assert paths == [str(tmp_path / f"parts_{n:05d}") for n in range(3)]
    assert lines["test_data_paths"] == lines["valid_data_paths"]
    parts = [IndexedDataset(Path(path)) for path in paths]
    assert lines["train_data_weights"] == [sum(part.sizes.tolist()) for part in parts[:2]]
    whole = IndexedDataset(tmp_path / "whole")
    parts_documents = [part.get(n).tolist() for part in parts for n in range(len(part))]
    assert parts_documents == [whole.get(n).tolist() for n in range(made.documents)]
    assert written(tmp_path / "parts")["excluded"] == written(tmp_path / "whole")["excluded"]
    assert not list(tmp_path.glob("*.work")) and not (tmp_path / "parts.bin").exists()
    world.build("parts", force=True)
    assert not list(tmp_path.glob("parts_*")) and not (tmp_path / "parts.yml").exists()
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_the_plan_is_read_once_in_a_process_however_many_tasks_and_files_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(paths: shards.BuildPaths, ignore_damage: bool = False) -> shards.Plan | None:
        calls.append(1)
        return read_plan(paths, ignore_damage)

    calls, read_plan = list[int](), shards.read_plan
    monkeypatch.setattr(shards, "read_plan", noted)
    world = make_world(tmp_path, [[f"file {n}"] for n in range(60)])
    assert world.build(tasks=30).documents == 60
    assert len(calls) == 1


def test_a_build_that_leaves_no_document_is_an_error_and_one_with_other_triples_may_follow(tmp_path: Path) -> None:
    world = make_world(tmp_path, [[*STATING, ""]])
    with pytest.raises(InputError, match="no document is left: 4 state a triple, 1 are empty"):
        world.build()
    with pytest.raises(InputError, match=r"out.idx: no such file"):
        IndexedDataset(tmp_path / "out")
    assert world.build(triples="none").documents == 4
    assert not (tmp_path / "out.excluded").exists() or not list((tmp_path / "out.excluded").iterdir())
    assert not (tmp_path / "out.triples.csv").exists()


def test_a_tokenizer_whose_ids_leave_gaps_gets_a_type_that_holds_them(tmp_path: Path) -> None:
    world = make_world(tmp_path, [sentences(20)])
    content = json.loads(world.tokenizer.read_text())
    words = content["model"]["vocab"]
    words[max(words, key=lambda word: int(words[word]))] = 70_000
    world.tokenizer.write_text(json.dumps(content))
    assert world.build().vocab_size == 70_001
    assert IndexedDataset(tmp_path / "out").dtype.itemsize == 4


def test_the_command_builds_from_files_and_folders_and_prints_what_was_removed(tmp_path: Path) -> None:
    world = make_world(tmp_path, [[*STATING, "kept", " "]])
    loose = [tmp_path / "1.txt", tmp_path / "2.txt"]
    for path in loose:
        path.write_text(f"The file {path.name}.")
    # Two files after one --input, as a shell expands a pattern.
    result = world.kisl("c", "--input", *loose)
    assert result.exit_code == 0, result.output
    assert "c.bin, .idx, .json · 3 documents" in result.output
    assert "4 removed (57.14%) because they state a fact: P19 3, P50 2" in result.output
    assert "1 empty documents skipped" in result.output
    assert "1 triples cannot be searched for everywhere: " in result.output
    summary = json.loads((tmp_path / "c.json").read_text())
    assert summary["inputs"] == [str(world.text / "00.jsonl"), *map(str, loose)]
    tokenizer, corpus = Tokenizer.from_file(str(world.tokenizer)), IndexedDataset(tmp_path / "c")
    assert tokenizer.decode(corpus.get(1).tolist()) == "The file 1.txt."
    again = world.kisl("c")
    assert (again.exit_code, "already exists; choose another --output, or --force" in again.output) == (2, True)
    assert world.kisl("c", "--force").exit_code == 0
    assert len(IndexedDataset(tmp_path / "c")) == 1


def test_the_commands_rules_are_the_matchers(tmp_path: Path) -> None:
    texts = ["Phiz drew.\nBleak House is a book.", "Marie Curie. Poland.", "Ann Lee."]
    world = make_world(tmp_path, [[*texts, "Kept."]])
    (tmp_path / "stop.txt").write_text("\ufeffphiz\n\n", encoding="utf-8")
    removed = {
        (): 2,
        ("--stop-list", tmp_path / "stop.txt"): 1,
        ("--min-length", "5"): 1,
        ("--match", "subject"): 3,
    }
    for options, count in removed.items():
        assert world.kisl("c", "--force", *options).exit_code == 0
        assert json.loads((tmp_path / "c.json").read_text())["left_out"] == count, options


def test_a_bad_row_is_one_line_and_a_corrected_file_needs_force(tmp_path: Path) -> None:
    world = make_world(tmp_path, [["fine"], ["fine too"]])
    bad = world.text / "a.jsonl"
    bad.write_bytes(b'{"text": "fine"}\n{"text": "cut sh')
    result = world.kisl()
    assert (result.exit_code, "a.jsonl:2: not JSON" in result.output) == (2, True)
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.idx").exists() and not (tmp_path / "out.json").exists()
    bad.write_bytes(b'{"text": "fine"}\n')
    changed = world.kisl()
    assert re.search(
        r"a build was begun there with the version of .*a.jsonl [\d.]+-33, now it is [\d.]+-17", changed.output
    )
    assert world.kisl("out", "--force").exit_code == 0


def test_bad_documents_are_skipped_with_a_count_and_a_list_also_by_a_build_that_stopped_at_one(tmp_path: Path) -> None:
    world = make_world(tmp_path, [["one"], ["two"]])
    (world.text / "a.jsonl").write_bytes(b'{"text": "three"}\n{"text": null}\n{"text": "four"}\n{\n')
    stopped = world.kisl("out", "--tasks", "3")
    assert (stopped.exit_code, "a.jsonl:2: text is None" in stopped.output) == (2, True)
    result = world.kisl("out", "--tasks", "3", "--skip-bad-documents")
    assert result.exit_code == 0, result.output
    assert f"2 documents left out that could not be read: {tmp_path}/out.bad.txt" in result.output
    listed = (tmp_path / "out.bad.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in listed] == [f"{world.text}/a.jsonl:{n}" for n in (2, 4)]
    assert (world.build("again", tasks=1, skip_bad_documents=True).bad, len(IndexedDataset(tmp_path / "out"))) == (2, 4)
    assert written(tmp_path / "again") == written(tmp_path / "out")
    (world.text / "a.jsonl").unlink()
    assert world.build("out", force=True).bad == 0
    assert not (tmp_path / "out.bad.txt").exists()


def test_texts_of_another_column_are_built(tmp_path: Path) -> None:
    world = make_world(tmp_path, [["one"]])
    (world.text / "00.jsonl").write_text('{"content": "three", "text": "one"}\n')
    assert world.kisl("out", "--text-column", "content").exit_code == 0
    tokenizer, corpus = Tokenizer.from_file(str(world.tokenizer)), IndexedDataset(tmp_path / "out")
    assert corpus.get(0).tolist() == [*tokenizer.encode("three").ids, 0]


def test_relative_paths_are_those_of_the_caller_wherever_a_task_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        """As on a Ray cluster that was started in another folder."""

        def run(self, stages: Sequence[Stage], progress: Callable[[], None] | None = None) -> bool:
            monkeypatch.chdir("/")
            return LocalRunner().run(stages, progress)

    world = make_world(tmp_path, [["one"], ["two"]])
    monkeypatch.chdir(tmp_path)
    result = build_corpus(BuildOptions(["text"], "facts.jsonl", Path("tokenizer.json"), Path("out")), Elsewhere())
    assert isinstance(result, Corpus) and result.inputs == ["text/00.jsonl", "text/01.parquet"]
    assert result.tokens == world.build("other").tokens


def test_the_corpus_modules_import_lower_layers_only_and_no_heavy_library_before_it_is_needed() -> None:
    below = {
        "corpus",
        "errors",
        "indexed",
        "matching",
        "progress",
        "hookspecs",
        "runcard",
        "files",
        "huggingface",
        "triples",
    }
    files = Path(kisl_plugin.corpus.__path__[0]).rglob("*.py")
    for path in (path for path in files if not path.name.startswith("audit")):  # the audit reads runs too
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert {name.split(".")[1] for name in names if name.startswith("kisl_plugin.")} <= below, path
    modules = "kisl_plugin.cli.corpus, kisl_plugin.corpus.build, kisl_plugin.corpus.tokenizer"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "tokenizers", "pyarrow", "datasets", "transformers", "datatrove", "ray"}.isdisjoint(loaded)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--match", "telepathy"), "match 'telepathy': unknown"),
        (("--stop-list", "none.txt"), "none.txt: cannot be read"),
        (("--partition", "cpu"), "--partition is an option of --executor slurm, not of local"),
        (("--executor", "slurm", "--address", "x:1"), "--address is an option of --executor ray, not of slurm"),
        (("--executor", "slurm", "--sbatch", "account"), "--sbatch account: expected KEY=VALUE"),
    ],
)
def test_wrong_options_are_refused_in_one_line_before_any_work(
    tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    world = make_world(tmp_path, [["x"]])
    result = world.kisl("c", *options)
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert expected in result.output
    assert not list(tmp_path.glob("c*"))


@pytest.mark.parametrize(
    "name", ["out_00007.bin", "out_00000.idx", "out.bin", "out.triples.csv", "out.excluded/00001.jsonl"]
)
def test_existing_files_are_kept_unless_force_is_given(tmp_path: Path, name: str) -> None:
    world = make_world(tmp_path, [["x"]])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("not of this build")
    result = world.kisl()
    assert (result.exit_code, f"{name}: already exists; choose another" in result.output) == (2, True), result.output
    assert (tmp_path / name).read_text() == "not of this build"
    assert world.kisl("out", "--force").exit_code == 0
    assert not (tmp_path / name).exists() or (tmp_path / name).read_bytes() != b"not of this build"


@pytest.mark.parametrize("output", [".", "..", "/", ""])
def test_an_output_that_names_no_file_is_refused(tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path / "world", [["x"]])
    monkeypatch.chdir(tmp_path / "world" / "text")
    result = CliRunner().invoke(main, [*world.command(), "--output", output])
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    assert "expected the beginning of file names" in result.output


@pytest.mark.parametrize(
    ("output", "expected"),
    [("s3://bucket/out", "is a URL"), ("new/out.bin", ".bin is appended"), ("out.idx", "expected out\n")],
)
def test_an_output_that_would_become_another_file_is_refused(
    tmp_path: Path, output: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path / "world", [["x"]])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = CliRunner().invoke(main, [*world.command(), "--output", output])
    assert (result.exit_code, result.output.count("\n")) == (2, 1) and expected in result.output, result.output
    assert not list(Path.cwd().iterdir())


def test_an_output_that_cannot_be_written_is_one_line_and_status_1(tmp_path: Path) -> None:
    world = make_world(tmp_path, [["x"]])
    (tmp_path / "file").touch()
    result = world.kisl("file/out")
    assert result.exit_code == 1, result.output
    assert result.output.startswith(f"Error: {tmp_path}/file/out: cannot be written (")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.unlink(), r"no such file; .* kisl corpus tokenizer --input FILE --output .*tokenizer.json"),
        (lambda path: path.write_text("{}"), "not a tokenizer.json of the tokenizers library"),
        (lambda path: path.write_text(path.read_text().replace("<|endoftext|>", "</s>")), r"has no <\|endoftext\|>"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path: Path, change: Callable[[Path], Any], expected: str) -> None:
    world = make_world(tmp_path, [["x"]])
    change(world.tokenizer)
    with pytest.raises(InputError, match=expected):
        world.build()
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("library", ["datatrove", "tokenizers"])
def test_a_missing_library_is_one_line_that_names_the_extra(tmp_path: Path, library: str) -> None:
    command = make_world(tmp_path, [["x"]]).command()
    code = f"import sys; sys.modules[{library!r}] = None; from kisl_plugin.cli.main import main; main({command!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(rf"Error: .* needs {library}\S*: pip install 'kisl-plugin\[corpus\]'\n", done.stderr)


def test_the_progress_ends_with_all_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(tmp_path, [["one"], ["two"]])
    world.build()
    assert re.findall(r"MB (\d+/\d+) · .* · (\d of \d tasks) done\n", capsys.readouterr().err) == [
        ("1/1", "2 of 2 tasks")
    ]
