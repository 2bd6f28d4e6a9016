"""The documents that each format contains, and what is refused, each in one line that names file and line or row."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import packed, read_all, read_lazily, texts_of, write_jsonl, write_parquet, write_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.corpus import inputs
from kisl_plugin.errors import InputError

character = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.text(character, max_size=12), max_size=8)


@settings(max_examples=80, deadline=None)
@given(written=texts, ending=st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]))
def test_every_format_returns_the_documents_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[str], ending: str
) -> None:
    path = write_texts(tmp_path_factory.mktemp("text") / f"part{ending}", written)
    assert read_all(path) == [(text, str(n), len(text.encode())) for n, text in enumerate(written)]


def test_line_ends_byte_order_marks_and_blank_lines_are_not_part_of_a_document(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes("\ufeffOne.\r\n\r\nTwo: é.".encode())
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "1"}\r\n\r\n  \n{"text": "2\\r\\n"}')
    (tmp_path / "d.txt").write_bytes(b"")
    assert texts_of(tmp_path) == ["One.\n\nTwo: é.", "1", "2\r\n", ""]


def test_a_compressed_file_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    lines = [b'{"text": "%d"}\n' % n for n in range(3)]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, lines)))
    (tmp_path / "b.jsonl.zst").write_bytes(b"".join(packed(line, ".zst") for line in lines))
    assert texts_of(tmp_path) == ["0", "1", "2"] * 2


@pytest.mark.parametrize(
    ("row_id", "expected"),
    [
        ("a b", "a b"),
        (12, "12"),
        (2.5, "2.5"),
        ("\ud83d", "?"),
        *((odd, "PATH:2") for odd in (None, True, {"a": 1}, [1])),
    ],
)
def test_the_id_is_the_rows_own_if_it_is_a_string_or_a_number(tmp_path: Path, row_id: Any, expected: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + json.dumps({"id": row_id, "text": "x"}) + "\n")
    assert [document.id for document in read_all(path)] == [expected.replace("PATH", str(path))]


def write_table(table: pa.Table, path: Path, **options: Any) -> None:
    try:
        pq.write_table(table, path, **options)
    except pa.ArrowNotImplementedError:
        pytest.skip(f"pyarrow {pa.__version__} cannot write such a column")


ID_COLUMNS: dict[str, tuple[pa.Array, list[str]]] = {
    "view": (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), ["x", "#2"]),
    "integer": (pa.array([7, 2**64 - 1], pa.uint64()), ["7", "18446744073709551615"]),
    "struct": (pa.array([{"a": 1, "b": [{"c": None}]}, None]), ["#1", "#2"]),
    "bytes": (pa.array([b"\xff", b"x"]), ["#1", "#2"]),
    "nothing": (pa.nulls(2), ["#1", "#2"]),
}


@pytest.mark.parametrize("kind", ID_COLUMNS)
def test_an_id_column_may_have_any_type(tmp_path: Path, kind: str) -> None:
    column, expected = ID_COLUMNS[kind]
    path = tmp_path / "a.parquet"
    write_table(pa.table({"id": column, "text": ["one", "twö"], "id.more": [1, 2], "text.more": [1, 2]}), path)
    ids = [f"{path}{one}" if one.startswith("#") else one for one in expected]
    assert read_all(path) == [("one", ids[0], 3), ("twö", ids[1], 4)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"])
def test_a_text_column_of_any_string_type_is_read(tmp_path: Path, kind: Any) -> None:
    written = ["", "é" * 5, "same", "same", "x" * 300]
    column = pa.array(written).dictionary_encode() if kind == "dictionary" else pa.array(written, kind)
    write_table(pa.table({"text": column}), tmp_path / "a.parquet", row_group_size=2)
    assert [(one.text, one.size) for one in read_all(tmp_path)] == [(text, len(text.encode())) for text in written]


def test_a_parquet_file_without_rows_or_row_groups_has_no_documents(tmp_path: Path) -> None:
    for name, groups in (("rows", 1), ("groups", 0), ("null", 1)):
        schema = pa.schema({"text": pa.null() if name == "null" else pa.string()})
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", schema) as writer:
            for _ in range(groups):
                writer.write_table(schema.empty_table())
    assert {path.stem: pq.ParquetFile(path).num_row_groups for path in tmp_path.iterdir()}["groups"] == 0
    assert read_all(tmp_path) == []


ROW = b'{"text": "fine"}\n'
MANY = b"".join(b'{"text": "%d"}\n' % n for n in random.Random(1).sample(range(10**9), 50_000))
BAD: dict[str, tuple[bytes, str]] = {
    "no-json.jsonl": (ROW + b'{"text": "cut sh', r"no-json.jsonl:2: not JSON \("),
    "no-text.jsonl": (ROW + b"\n" + b'{"txt": "x"}\n', r"no-text.jsonl:3: keys 'txt'; expected .* the key 'text'"),
    "list.jsonl": (ROW + b"[1]\n", r"list.jsonl:2: \[1\]; expected an object"),
    "null.jsonl": (b'{"text": null}\n', r"null.jsonl:1: text is None; expected a string"),
    "number.jsonl": (b'{"text": 3}\n', r"number.jsonl:1: text is 3; expected a string"),
    "latin.jsonl": (ROW * 2 + b'{"text": "\xe9"}\n', r"latin.jsonl:3: byte 0xe9 is not UTF-8"),
    "half.jsonl": (b'{"text": "a \\ud83d b"}\n', r"half.jsonl:1: text contains \\ud83d, half of a surrogate pair"),
    "surrogate.jsonl": (b'{"text": "\xed\xa0\xbd"}\n', r"surrogate.jsonl:1: byte 0xed is not UTF-8"),
    "deep.jsonl": (b"[" * 100_000, r"deep.jsonl:1: not JSON"),
    "latin.txt": (b"one\ntwo\nthr\xe9e\n", r"latin.txt:3: byte 0xe9 is not UTF-8"),
    "plain.jsonl.gz": (ROW, r"plain.jsonl.gz:1: the file is cut short or damaged near here"),
    "nothing.jsonl.gz": (b"", r"nothing.jsonl.gz: the file is empty; expected gzip"),
    "nothing.jsonl.zst": (b"", r"nothing.jsonl.zst: the file is empty; expected zstd"),
    "plain.jsonl.zst": (ROW, r"plain.jsonl.zst:1: the file is cut short or damaged"),
    "text.parquet": (ROW, r"text.parquet: cannot be read as Parquet"),
    "nothing.parquet": (b"", r"nothing.parquet: cannot be read as Parquet"),
    **{
        f"{kind}.jsonl{suffix}": (change(packed(MANY, suffix)), rf"{kind}.jsonl{suffix}:\d+: the file is cut short or")
        for suffix in (".gz", ".zst")
        for kind, change in {
            "torn": lambda data: data[: len(data) // 2],
            "end": lambda data: data[:-2],
            "trailing": lambda data: data + ROW,
        }.items()
    },
    # zstd carries a checksum only if its writer was asked for one.
    "sum.jsonl.gz": (gzip.compress(MANY)[:-8] + bytes(8), r"sum.jsonl.gz:\d+: the file is cut short or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_file_and_line(tmp_path: Path, name: str) -> None:
    data, expected = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=expected) as caught:
        read_all(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_documents_before_a_bad_line_are_returned(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", None, "d"]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(ROW * 2 + b"{")
    for name, count, where in (("a.parquet", 2, "row 3"), ("b.jsonl", 2, "b.jsonl:3")):
        documents = read_lazily(tmp_path / name)
        assert len([next(documents) for _ in range(count)]) == count
        with pytest.raises(InputError, match=where):
            next(documents)


BAD_COLUMNS: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "missing": (lambda: pa.table({"content": ["x"], "n": [1]}), r"no column 'text'; the columns are 'content', 'n'"),
    "binary": (lambda: pa.table({"text": [b"x"]}), r"column 'text' is of type binary; expected string"),
    "nested": (lambda: pa.table({"text": [{"a": "x"}]}), r"column 'text' is of type struct<a: string>; expected str"),
    "numbers": (lambda: pa.table({"text": [1]}), r"column 'text' is of type int64; expected string"),
    "twice": (
        lambda: pa.Table.from_arrays([pa.array(["x"])] * 2, ["text", "text"]),
        r"there are several columns 'text'",
    ),
    "null": (lambda: pa.table({"text": ["x", None]}), r"row 2: text is None; expected a string"),
    "latin": (
        lambda: pa.table({"text": pa.array([b"x", b"y", b"\xe9"]).view(pa.string())}),
        r"row 3: byte 0xe9 is not UTF-8",
    ),
}


@pytest.mark.parametrize("kind", BAD_COLUMNS)
def test_a_parquet_file_with_a_bad_text_column_is_refused(tmp_path: Path, kind: str) -> None:
    table, expected = BAD_COLUMNS[kind]
    pq.write_table(table(), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"a.parquet: {expected}"):
        read_all(tmp_path)


def test_a_torn_parquet_file_is_refused_wherever_it_is_torn(tmp_path: Path) -> None:
    generator = random.Random(2)
    whole = write_parquet(tmp_path / "a.parquet", [str(generator.random()) for _ in range(300)], rows=50).read_bytes()
    for size in (3, 4, 12, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        (tmp_path / "a.parquet").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a.parquet: cannot be read as Parquet \("):
            read_all(tmp_path)
    hole = len(whole) // 3
    (tmp_path / "a.parquet").write_bytes(whole[:hole] + bytes(400) + whole[hole + 400 :])
    with pytest.raises(InputError, match=r"a.parquet: cannot be read as Parquet \("):
        read_all(tmp_path)


def test_a_document_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LARGEST_DOCUMENT", 1 << 20)
    (tmp_path / "a.txt").write_text("a" * (1 << 20))
    assert len(texts_of(tmp_path / "a.txt")[0]) == 1 << 20
    (tmp_path / "a.txt").write_text("a" * ((1 << 20) + 1))
    with pytest.raises(InputError, match=r"a.txt: larger than 1 MiB, and a .txt file is one document; .*\.jsonl"):
        read_all(tmp_path / "a.txt")
    for ending in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
        with pytest.raises(InputError, match=r"b.jsonl.*:2: larger than 1 MiB, and a line is one document"):
            read_all(write_jsonl(tmp_path / f"b{ending}", ["", "b" * (1 << 20)]))
    with pytest.raises(InputError, match=r"c.parquet: row 1: larger than 1 MiB"):
        read_all(write_parquet(tmp_path / "c.parquet", ["é" * (1 << 20)]))


@pytest.mark.parametrize("ending", [".ndjson", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst"])
def test_json_lines_are_read_under_every_name_they_have(tmp_path: Path, ending: str) -> None:
    write_jsonl(tmp_path / f"part{ending}", ["one", "two"])
    assert texts_of(tmp_path) == ["one", "two"]


def test_texts_may_be_in_another_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "one", "text": 3}\n')
    pq.write_table(pa.table({"content": ["two", "three"]}), tmp_path / "b.parquet", row_group_size=1)
    pieces = inputs.cut_into_pieces(inputs.find_files([tmp_path], "content"))
    assert [one.text for piece in pieces for one in inputs.read_piece(piece)] == ["one", "two", "three"]
    with pytest.raises(InputError, match=r"b.parquet: no column 'text'; the columns are 'content': see --text-column"):
        read_all(tmp_path / "b.parquet")


def test_bad_documents_are_left_out_where_their_errors_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LARGEST_DOCUMENT", 1 << 10)
    lines = [b"{", b"[1]", b'{"txt": 1}', b'{"text": null}', b'{"text": "\\ud83d"}', b'{"text": "\xe9"}', b"x" * 5000]
    good = b'{"text": "good"}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, *(part for line in lines for part in (line, good))]))
    raw = pa.array([b"one", None, b"\xe9", b"four"]).view(pa.string())
    pq.write_table(pa.table({"text": raw}), tmp_path / "b.parquet")
    (tmp_path / "c.txt").write_bytes(b"\xe9")
    errors: list[InputError] = []
    pieces = inputs.cut_into_pieces(inputs.find_files([tmp_path]))
    texts = [one.text for piece in pieces for one in inputs.read_piece(piece, errors.append)]
    assert texts == ["good"] * 8 + ["one", "four"]
    places = [*(f"a.jsonl:{n}:" for n in range(2, 15, 2)), "b.parquet: row 2:", "b.parquet: row 3:", "c.txt:1:"]
    assert [str(error).startswith(f"{tmp_path}/{place}") for error, place in zip(errors, places, strict=True)] == [
        True
    ] * 10


def test_zstd_of_a_long_window_is_refused_with_how_to_compress_it_anew(tmp_path: Path) -> None:
    size = (len(ROW) << 3 | 1).to_bytes(3, "little")
    for window, is_read in ((0x58, True), (0xA8, False)):  # 2 MB; 2 GB, as zstd --long=31 writes it
        (tmp_path / "a.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + size + ROW)
        if is_read:
            assert texts_of(tmp_path) == ["fine"]
        else:
            with pytest.raises(
                InputError, match=r"a.jsonl.zst: .* it was compressed with zstd --long; compress it wit"
            ):
                read_all(tmp_path)


def test_hidden_files_below_a_folder_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jsonl", ".a.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl", "b/.DS_Store", "b/b.jsonl"):
        write_jsonl(tmp_path / name, [name])
    assert texts_of(tmp_path) == ["a.jsonl", "b/b.jsonl"]
    assert capsys.readouterr().err == f"{tmp_path}: hidden files are left out: .a.jsonl, .ipynb_checkpoints\n"
    assert texts_of(tmp_path / ".a.jsonl") == [".a.jsonl"]
