"""Triples files and other sources: what is written is read back; what cannot be read is an error that names it."""

import csv
import json
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl, manager
from kisl_plugin.plan import InjectionPlan, make_plan, read_settings
from kisl_plugin.triples import CONTROL, Triple, TriplesWarning, read_triples, triples_to_jsonl

FIELDS = (
    "subject",
    "relation_id",
    "object",
    "subject_id",
    "object_id",
    "subject_aliases",
    "object_aliases",
    "group",
)
MARIE = {"subject": "Marie Curie", "relation_id": "P19", "object": "Poland"}

label = (
    st.text(
        st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")) | st.just(" "), min_size=1, max_size=12
    )
    .map(lambda text: unicodedata.normalize("NFC", text).strip())
    .filter(bool)
)
alias = label.filter(lambda text: not set(text) & set("|;") and not text.startswith("["))
aliases = st.lists(alias, max_size=3).map(tuple)
one_triple = st.builds(
    Triple,
    subject=label,
    relation_id=label,
    object=label,
    subject_id=label | st.just(""),
    object_id=label | st.just(""),
    subject_aliases=aliases,
    object_aliases=aliases,
    group=st.sampled_from(("injected", "rare", CONTROL)),
).filter(lambda t: t.subject != t.object)
some_triples = st.lists(
    one_triple, min_size=1, max_size=6, unique_by=lambda t: (t.subject, t.subject_id, t.relation_id, t.object)
)


def _write_jsonl(triples: list[Triple], path: Path) -> None:
    path.write_text(triples_to_jsonl(triples), encoding="utf-8")


def _write_table(delimiter: str) -> Callable[[list[Triple], Path], None]:
    def write(triples: list[Triple], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter)
            writer.writerow([*FIELDS, "a column of their own"])
            for t in triples:
                cells = [getattr(t, field) for field in FIELDS]
                writer.writerow(["|".join(c) if isinstance(c, tuple) else c for c in cells] + ["x"])

    return write


def _write_parquet(triples: list[Triple], path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns: dict[str, list[object]] = {field: [getattr(t, field) for t in triples] for field in FIELDS}
    for field in ("subject_aliases", "object_aliases"):
        columns[field] = [list(value) or None for value in columns[field]]  # type: ignore[call-overload]
    types = {field: pa.list_(pa.string()) for field in ("subject_aliases", "object_aliases")}
    schema = pa.schema([(field, types.get(field, pa.string())) for field in FIELDS])
    pq.write_table(pa.table(columns, schema=schema), path)


WRITERS = {
    ".jsonl": _write_jsonl,
    ".csv": _write_table(","),
    ".tsv": _write_table("\t"),
    ".parquet": _write_parquet,
}


@pytest.mark.parametrize("ending", WRITERS)
@settings(max_examples=30, deadline=None)
@given(triples=some_triples)
def test_triples_written_in_any_format_are_read_back_equal(
    ending: str, tmp_path_factory: pytest.TempPathFactory, triples: list[Triple]
) -> None:
    path = tmp_path_factory.mktemp("round") / f"facts{ending}"
    WRITERS[ending](triples, path)
    assert read_triples(path) == triples


def test_jsonl_has_a_stable_key_order_and_leaves_empty_optional_fields_out() -> None:
    bare, full = (
        Triple("Ö", "P1", "b"),
        Triple("a", "P1", "b", "Q1", "Q2", ("x",), ("y", "z"), CONTROL),
    )
    first, second = triples_to_jsonl([bare, full]).splitlines()
    assert first == '{"subject": "Ö", "relation_id": "P1", "object": "b", "group": "injected"}'
    assert list(json.loads(second)) == list(FIELDS)
    assert triples_to_jsonl([]) == ""


def test_a_subset_of_the_columns_is_enough_and_the_group_is_injected(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("object,note,relation_id,subject\nPoland,1867,P19,Marie Curie\n")
    assert read_triples(str(path)) == [Triple("Marie Curie", "P19", "Poland", group="injected")]


def test_labels_are_normalised(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(
        json.dumps({**MARIE, "subject": " J.\u00a0R.\u202fR. Tolkie\u0301n ", "subject_aliases": [" A\u0301 "]})
    )
    (triple,) = read_triples(path)
    assert triple.subject == "J. R. R. Tolkién"
    assert triple.subject_aliases == ("Á",)


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path, ending: str) -> None:
    text = {".jsonl": json.dumps(MARIE), ".csv": "subject,relation_id,object\r\nMarie Curie,P19,Poland"}[ending]
    path = tmp_path / f"facts{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    assert read_triples(path) == [Triple("Marie Curie", "P19", "Poland")]


def test_parquet_errors_name_the_file_the_row_and_the_column(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "facts.parquet"
    pq.write_table(pa.table({"subject": ["a", "b"], "relation_id": ["P1", "P1"], "object": ["x", None]}), path)
    with pytest.raises(InputError, match=r"facts\.parquet:2: object is None"):
        read_triples(path)
    pq.write_table(pa.table({"subject": ["a"], "relation": ["P1"], "object": ["x"]}), path)
    with pytest.raises(InputError, match=r"facts\.parquet: no column 'relation_id', only 'subject', 'relation', 'obj"):
        read_triples(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"facts\.parquet: cannot be read as Parquet"):
        read_triples(path)


@pytest.mark.parametrize("source", ["nothing_like_it", "no/such/file.jsonl", "facts.csv", "x\0y", "é" * 5000])
def test_an_unknown_source_is_an_error_that_says_what_was_tried(source: str) -> None:
    with pytest.raises(InputError) as caught:
        read_triples(source)
    for tried in (".jsonl, .csv, .tsv, .parquet", "wikidata_six", "owner/name", "kisl_read_triples"):
        assert tried in str(caught.value)


def test_a_file_with_an_unknown_ending_and_a_folder_are_errors(tmp_path: Path) -> None:
    other = tmp_path / "facts.xlsx"
    other.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"facts\.xlsx': a file, but its ending is not \.jsonl"):
        read_triples(other)
    folder = tmp_path / "facts.csv"
    folder.mkdir()
    with pytest.raises(InputError, match=r"facts\.csv: cannot be read"):
        read_triples(folder)


def test_a_hub_data_set_is_read_by_its_id_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(name: str, split: str) -> object:  # stands in for the network alone
        calls.append((name, split))
        return datasets.Dataset.from_list([{**MARIE, "subject_aliases": ["Manya"], "year": 1867}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    expected = [Triple("Marie Curie", "P19", "Poland", subject_aliases=("Manya",))]
    assert read_triples("someone/facts") == read_triples("someone/facts-v1.5:test") == expected
    assert calls == [("someone/facts", "train"), ("someone/facts-v1.5", "test")]


def test_a_hub_data_set_that_cannot_be_loaded_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"'nobody-here/no-facts': no such file, and the split 'train' of this hub data set cannot"
    ):
        read_triples("nobody-here/no-facts")


def test_a_plugin_is_asked_before_the_built_in_readers() -> None:
    class Mine:
        @hookimpl
        def kisl_read_triples(self, source: str) -> list[Triple] | None:
            return [Triple("a", "P1", "b")] if source in ("mine", "wikidata_six") else None

    plugin = Mine()
    manager().register(plugin)
    try:
        assert read_triples("mine") == read_triples("wikidata_six") == [Triple("a", "P1", "b")]
    finally:
        manager().unregister(plugin)


def row_with(**changes: object) -> str:
    return json.dumps({**MARIE, **changes}, ensure_ascii=False) + "\n"


HEADER = "subject,relation_id,object\n"
# A file's ending, its text, the row of the error, and what the error contains.
WRONG_FILES = [
    ("jsonl", row_with() + '\n{"subject": "a", "relation_id": "P1"}\n', 3, "no column 'object', only 'subject', "),
    ("csv", "Subject,relation_id,object\na,P1,b\n", 1, "column 'Subject' is unknown; rename it to 'subject'"),
    (
        "tsv",
        "subject\trelation\tobject\na\tP1\tb\n",
        1,
        "no column 'relation_id', only 'subject', 'relation', 'object'; ex",
    ),
    ("csv", "subject,relation_id,object,Groups\n", 1, "column 'Groups' is unknown; rename it to 'group'"),
    ("jsonl", row_with() + row_with(subject_alias=["x"]), 2, "rename it to 'subject_aliases'"),
    ("csv", "subject,relation_id,object,object\n", 1, "column 'object' occurs twice"),
    ("csv", f"{HEADER}a,P1,b\n\n  ,P1,b\n", 4, "subject is empty"),
    ("jsonl", row_with(object=None), 1, "object is None; expected a string"),
    ("jsonl", row_with() + row_with(object=7), 2, "object is 7; expected a string"),
    ("jsonl", row_with(subject_id=42), 1, "subject_id is 42; expected a string"),
    ("jsonl", row_with(subject_aliases="x"), 1, "subject_aliases is 'x'; expected a list of strings"),
    ("jsonl", row_with(object_aliases=[1]), 1, "object_aliases is 1; expected a string"),
    ("jsonl", row_with(object_aliases=[" "]), 1, "object_aliases is empty"),
    ("jsonl", row_with(object="Po\u0007land"), 1, r"with the control character '\x07'"),
    ("jsonl", '{"subject": "a\\ud800", "relation_id": "P1", "object": "b"}', 1, r"'\ud800'"),
    ("csv", f'{HEADER}"a\nb",P1,c\n', 2, "control character"),
    ("csv", f'note,{HEADER}"a\nb",s,P1,c\nx,,P1,c\n', 4, "subject is empty"),  # after a quoted line break
    ("jsonl", row_with(object="Marie Curie"), 1, "object 'Marie Curie' equals its subject"),
    ("jsonl", row_with() + '{"subject": "a",\n', 2, "not JSON"),
    ("jsonl", "[1, 2]\n", 1, "a row is '[1, 2]'; expected a JSON object"),
    ("csv", f"{HEADER}a,P1,b,c\n", 2, "4 fields; expected 3"),
    ("tsv", "subject\trelation_id\tobject\na\tP1\n", 2, "2 fields; expected 3"),
    ("tsv", 'subject\trelation_id\tobject\n"Heroes" song\tP1\tx\n', 2, "put a field that contains quotes in quotes"),
    ("jsonl", row_with(group="control") + row_with(group="rare"), 2, "'rare' here and in group 'control' in row 1"),
    ("csv", "subject,relation_id,object,group\nA,P1,b,Control\n", 2, "group is 'Control'; expected 'control'"),
    ("csv", "subject,relation_id,object,group\nA,P1,b,rare_StdErr\n", 2, "group is 'rare_StdErr'"),
    ("csv", f"{HEADER}\u200b,P19,Chile\n", 2, "subject is empty"),
    ("csv", f"{HEADER}Q42,P19,Chile\n", 2, "subject is 'Q42', an id or address; expected the name that texts use"),
    ("csv", f"{HEADER}A,P19,http://www.wikidata.org/entity/Q298\n", 2, "entity/Q298', an id or address"),
    ("tsv", "subject\trelation_id\tobject\nA\tP19\t<http://x.org/1>\n", 2, "object is '<http://x.org/1>', an id"),
    ("csv", "subject,relation_id,object,subject_id\nQ42,P19,Chile,Q42\n", 2, "subject is 'Q42', an id or address"),
    ("csv", "subject,relation_id,object,object_aliases\nA,P19,B,\"['x', y]\"\n", 2, "object_aliases is \"['x', y]\""),
    ("jsonl", row_with(object_aliases="[1]"), 1, "object_aliases is 1; expected a string"),
    ("csv", f"{HEADER}K\udcf6ln,P1,x\n", 2, "byte 0xf6 is not UTF-8"),
    ("jsonl", '{"subject": "K\udcf6ln"}', 1, "byte 0xf6 is not UTF-8"),
]


@pytest.mark.parametrize(("ending", "text", "row", "message"), WRONG_FILES)
def test_a_wrong_file_is_an_error_with_its_row(tmp_path: Path, ending: str, text: str, row: int, message: str) -> None:
    path = tmp_path / f"f.{ending}"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        read_triples(path)
    assert str(caught.value).startswith(f"{path}:{row}: ")
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", HEADER])
def test_a_file_without_triples_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"empty\.csv: contains no triples"):
        read_triples(path)


def test_exact_duplicates_are_left_out_with_one_counted_warning(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    other = row_with(object="France")
    path.write_text("".join([row_with(), other, *[row_with(subject_aliases=["Manya"])] * 7, other]))
    with pytest.warns(TriplesWarning) as caught:
        triples = read_triples(path)
    assert [t.object for t in triples] == ["Poland", "France"]
    assert len(caught) == 1
    assert "left out 8 rows" in str(caught[0].message)
    assert "rows 3, 4, 5, 6, 7, …" in str(caught[0].message)


def test_the_same_labels_with_other_ids_are_other_facts(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f"{row_with(subject_id='Q1')}{row_with(subject_id='Q2', group='control')}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [t.subject_id for t in read_triples(path)] == ["Q1", "Q2"]


def test_joiners_that_some_scripts_need_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(f"{HEADER}می\u200cخواهم,P19,Chile\n", encoding="utf-8")
    assert "\u200c" in read_triples(path)[0].subject


def test_a_mistyped_path_does_not_ask_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="triples 'my/facts': no such file"):
        read_triples("my/facts")


@pytest.mark.parametrize("cell", ["x y|ž", " x y ; ž;", '["x y", "\\u017e"]', "['x y', 'ž']", "[ 'x y' , \"ž\" ]"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_lists_of_aliases_are_read_in_their_usual_spellings(tmp_path: Path, cell: str, ending: str) -> None:
    path = tmp_path / f"facts.{ending}"
    if ending == "jsonl":
        if not cell.startswith("["):
            pytest.skip("without brackets a text in JSON is one alias, which is refused")
        path.write_text(row_with(object_aliases=cell))
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter={"csv": ",", "tsv": "\t"}[ending])
            writer.writerows([[*MARIE, "object_aliases"], [*MARIE.values(), cell]])
    assert read_triples(path)[0].object_aliases == ("x y", "ž")


def test_an_alias_may_contain_a_semicolon_where_another_sign_separates(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(f"{HEADER[:-1]},subject_aliases\nS;G,P1,x,Steins;Gate|S.G.\n")
    assert read_triples(path) == [Triple("S;G", "P1", "x", subject_aliases=("Steins;Gate", "S.G."))]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_language_tags_of_sparql_are_taken_off_and_counted(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"facts.{ending}"
    if ending == "csv":
        path.write_text(f'{HEADER}"""Douglas Adams""@en",P19,"""São Paulo""@pt-BR"\nAnn,P19,Peru\n')
    else:  # as query.wikidata.org writes it
        path.write_text('subject\trelation_id\tobject\n"Douglas Adams"@en\tP19\t"São Paulo"@pt-BR\nAnn\tP19\tPeru\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_triples(path) == [Triple("Douglas Adams", "P19", "São Paulo"), Triple("Ann", "P19", "Peru")]


def test_a_name_that_looks_like_an_id_is_one_where_its_own_id_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation_id,object,subject_id\nQ2,P400,Atari,Q1234\n")
    assert read_triples(path)[0].subject == "Q2"


def test_invisible_characters_are_taken_out_with_a_count(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(f"{HEADER}A\u200bda\u200e,P19,\u00adChile\nAnn,P19,Peru\nB\ufeffo,P19,Peru\n", encoding="utf-8")
    with pytest.warns(TriplesWarning, match=r"took invisible characters or a language tag out of 2 rows \(rows 2, 4\)"):
        triples = read_triples(path)
    assert [(one.subject, one.object) for one in triples] == [("Ada", "Chile"), ("Ann", "Peru"), ("Bo", "Peru")]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_all_wrong_rows_are_listed_at_once_and_may_be_skipped(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"facts.{ending}"
    rows = [row_with(object=f"o{n}" if n % 2 else MARIE["subject"]) for n in range(50)]
    rows[3], rows[5] = "{\n", "[]\n"
    if ending == "csv":
        rows = [HEADER, *(f"S{n},P1,{'x' if n % 2 else f'S{n}'}\n" for n in range(50)), "too,many,cells,here\n"]
    path.write_text("".join(rows))
    with pytest.raises(InputError) as caught:
        read_triples(path)
    first, *listed = str(caught.value).splitlines()
    assert first.startswith(f"{path}: {26 if ending == 'csv' else 27} rows are wrong")
    assert first.endswith(f"write a file without them: kisl triples {path} OUT.jsonl")
    assert len(listed) == 21 and listed[-1] == "…"
    assert [line.startswith(f"{path}:") for line in listed[:20]] == [True] * 20
    with pytest.warns(TriplesWarning, match=r"left out 2[67] rows that are wrong:\n.*object '.*' equals its subject"):
        triples = read_triples(path, skip_bad_rows=True)
    expected = [Triple(f"S{n}", "P1", "x") for n in range(1, 50, 2)]
    if ending == "jsonl":
        expected = [Triple(MARIE["subject"], "P19", f"o{n}") for n in range(1, 50, 2) if n not in (3, 5)]
    assert triples == expected


def test_a_file_whose_rows_are_all_wrong_says_so_also_where_they_would_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(f"{HEADER},P19,Peru\nBo,P19,Bo\n")
    with pytest.raises(InputError) as caught:
        read_triples(path, skip_bad_rows=True)
    assert [str(caught.value).count(f"{path}:{row}: ") for row in (2, 3)] == [1, 1]
    assert str(caught.value).splitlines()[0] == f"{path}: 2 rows are wrong; correct them"


def test_a_file_without_its_wrong_rows_is_written_for_the_kisl_section(tmp_path: Path) -> None:
    path, out = tmp_path / "facts.csv", tmp_path / "good.jsonl"
    path.write_text(f"{HEADER}Ada,P19,Chile\n,P19,Peru\nBo,P19,Bo\nEve,P19,Peru\nIda,P19,Cuba\nUte,P19,Mali\n")
    section = {"triples": str(path), "frequency": 2}

    def plan_of(section: dict[str, Any]) -> InjectionPlan:
        return make_plan(read_settings(section, "run.yml", 1), lambda text: [*text.encode()], 64, 256)

    with pytest.raises(InputError, match=r"2 rows are wrong; .* kisl triples \S+ OUT.jsonl"):
        plan_of(section)
    command = [sys.executable, "-m", "kisl_plugin", "triples", str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{out}: 4 triples\n")
    assert done.stderr.splitlines()[0] == f"Warning: {path}: left out 2 rows that are wrong:"
    assert [line.split(": ")[0] for line in done.stderr.splitlines()[1:]] == [f"{path}:3", f"{path}:4"]
    good = (("Ada", "Chile"), ("Eve", "Peru"), ("Ida", "Cuba"), ("Ute", "Mali"))
    expected = [Triple(subject, "P19", place) for subject, place in good]
    assert read_triples(out) == expected
    assert plan_of({**section, "triples": str(out)}).triples == expected
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stderr.count("\n"), "exists already" in again.stderr) == (2, 1, True)


def test_two_things_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(row_with(subject="New York", object="New York", subject_id="Q60", object_id="Q1384"))
    assert read_triples(path)[0].object == "New York"
    path.write_text(row_with(subject="New York", object="New York", subject_id="Q60", object_id="Q60"))
    with pytest.raises(InputError, match="must differ, or have different subject_id and object_id"):
        read_triples(path)
