"""Triples files and other sources: what is written is read back; what cannot be read is an error that names it."""

import csv
import json
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl, manager
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
alias = label.filter(lambda text: "|" not in text)
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
    ("csv", f"{HEADER}A\u200bda,P19,Chile\n", 2, r"with the invisible character '\u200b'"),
    ("csv", f"{HEADER}\U0001f3f4\U000e0067\U000e007f,P19,Chile\n", 2, "invisible character"),  # part of a flag
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
