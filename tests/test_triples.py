"""Triples files and other sources: what is written is read back; what cannot be read is an error that names it."""

import csv
import io
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl, manager
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl

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
    import pyarrow as pa
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
@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_bytes_that_are_not_utf_8_are_an_error_with_their_row(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"latin{ending}"
    path.write_bytes(b"subject,relation_id,object\n" * (ending == ".csv") + "Köln,P1,x".encode("latin-1"))
    with pytest.raises(InputError, match=rf"latin{ending}:{1 + (ending == '.csv')}: byte 0xf6 is not UTF-8"):
        read_triples(path)


@pytest.mark.parametrize("text", ["", "\n\n", "subject,relation_id,object\n"])
def test_a_file_without_triples_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"empty\.csv: contains no triples"):
        read_triples(path)


def test_parquet_errors_name_the_file_the_row_and_the_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "facts.parquet"
    pq.write_table(pa.table({"subject": ["a", "b"], "relation_id": ["P1", "P1"], "object": ["x", None]}), path)
    with pytest.raises(InputError, match=r"facts\.parquet:2: object is None"):
        read_triples(path)
    pq.write_table(pa.table({"subject": ["a"], "relation": ["P1"], "object": ["x"]}), path)
    with pytest.raises(InputError, match=r"facts\.parquet: column 'relation' is unknown; rename it to 'relation_id'"):
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
    asked = []

    def load_dataset(name: str, split: str) -> object:  # stands in for the network alone
        asked.append((name, split))
        return datasets.Dataset.from_list([{**MARIE, "subject_aliases": ["Manya"], "year": 1867}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    expected = [Triple("Marie Curie", "P19", "Poland", subject_aliases=("Manya",))]
    assert read_triples("someone/facts") == read_triples("someone/facts-v1.5:test") == expected
    assert asked == [("someone/facts", "train"), ("someone/facts-v1.5", "test")]


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


def test_reading_jsonl_imports_no_heavy_library() -> None:
    code = (
        "import sys; from kisl_plugin.triples import read_triples; read_triples('wikidata_six'); "
        "print(sorted({'torch', 'datasets', 'pyarrow', 'lm_eval', 'matplotlib', 'ahocorasick_rs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_csv_module_agrees_on_the_quoting_that_the_reader_expects(tmp_path: Path) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t").writerows([["subject", "relation_id", "object"], ['"Heroes"', "P175", "David"]])
    path = tmp_path / "facts.tsv"
    path.write_text(buffer.getvalue())
    assert read_triples(path)[0].subject == '"Heroes"'
