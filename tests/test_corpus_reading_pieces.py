"""Files are found, and cut into pieces whose documents are exactly theirs."""

import json
import os
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import read_all, texts_of, write_jsonl, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.corpus import readers as pieces_module
from kisl_plugin.corpus.readers import Piece, TextDocument, cut_into_pieces, find_files, read_documents, read_piece
from kisl_plugin.errors import InputError


def names(*inputs: str | Path) -> list[str]:
    return [Path(file.path).name for file in find_files(inputs)]


def test_folders_and_patterns_stand_for_their_readable_files_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.JSONL", "a/y.jsonl.zst", "c.parquet", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert names(tmp_path) == ["y.jsonl.zst", "z.JSONL", "b.txt", "c.parquet"]
    assert names(tmp_path / "c.parquet", tmp_path / "a") == ["c.parquet", "y.jsonl.zst", "z.JSONL"]
    assert names(tmp_path / "*") == ["y.jsonl.zst", "z.JSONL", "b.txt", "c.parquet"]
    assert names(f"{tmp_path}/**/*.JSONL", f"file://{tmp_path}/b.txt") == ["z.JSONL", "b.txt"]
    (tmp_path / "[1].txt").touch()
    assert names(tmp_path / "[1].txt") == ["[1].txt"]


def test_inputs_that_cannot_be_meant_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jsonl").symlink_to(file)
    for twice in ([tmp_path / "a.jsonl", file], [file, f"file://{file}"], [tmp_path]):
        with pytest.raises(InputError, match=r"jsonl: given twice"):
            find_files(twice)
    with pytest.raises(InputError, match=r"empty: no file below this folder ends in .txt, .jsonl, .jsonl.gz, .jsonl.z"):
        find_files([tmp_path / "empty"])
    with pytest.raises(InputError, match=r"e\*: no file that this pattern fits ends in .txt"):
        find_files([tmp_path / "e*"])
    with pytest.raises(InputError, match=r"none: no such file or folder; --input takes text files"):
        find_files([tmp_path / "none"])
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "a.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"lost/a.parquet: cannot be read \(No such file"):
        find_files([tmp_path / "lost"])
    os.mkfifo(tmp_path / "empty" / "pipe.jsonl")
    with pytest.raises(InputError, match=r"pipe.jsonl: is no regular file"):
        find_files([tmp_path / "empty"])
    (tmp_path / "empty" / "pipe.jsonl").unlink()
    with pytest.raises(InputError, match="--input is empty"):
        find_files([""])
    (tmp_path / "a.zip").touch()
    with pytest.raises(InputError, match=r"a.zip: the ending is not known"):
        find_files([tmp_path / "a.zip"])
    monkeypatch.chdir(tmp_path)
    for name in ("HuggingFaceFW/fineweb-edu", "HuggingFaceFW/fineweb-edu/sample/10BT"):
        with pytest.raises(InputError, match=rf"no such .* hub is hf://datasets/{name}$"):
            find_files([name])
    with pytest.raises(InputError, match=r"empty/none: no such file or folder; --input takes text files"):
        find_files(["empty/none"])


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "far" / "b.jsonl", ["y"])
    write_jsonl(tmp_path / "near" / "a.jsonl", ["x"])
    for name, target in (("loop", "near"), ("more", "near"), ("there", "far")):
        (tmp_path / "near" / name).symlink_to(tmp_path / target)
    (tmp_path / "far" / "back").symlink_to(tmp_path / "near")
    assert names(tmp_path / "near") == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("folder", ["out.excluded", "out.work"])
def test_what_a_build_left_in_a_folder_of_texts_is_not_read_with_them(tmp_path: Path, folder: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["x"])
    write_jsonl(tmp_path / folder / "00000.jsonl", ["x"])
    for inputs in (tmp_path, tmp_path / "*"):
        with pytest.raises(InputError, match=rf"{folder}/00000.jsonl: lies in .*; if a build of these texts left it"):
            find_files([inputs])
    assert names(tmp_path / "*.jsonl", tmp_path / folder) == ["a.jsonl", "00000.jsonl"]


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.jsonl")).touch()
    with pytest.raises(InputError, match=r"a\\xff.jsonl': a file name that is not utf-8 .* rename it"):
        find_files([tmp_path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named_and_not_passed_over(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "open" / "a.jsonl", ["x"])
    write_jsonl(tmp_path / "closed" / "b.jsonl", ["y"]).parent.chmod(0)
    with pytest.raises(InputError, match=r"closed: cannot be read \(Permission denied\)"):
        find_files([tmp_path])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.lists(st.integers(0, 7), max_size=8), piece=st.integers(1, 400), ids=st.booleans())
def test_the_pieces_of_a_file_are_its_documents_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: list[int], piece: int, ids: bool
) -> None:
    path = tmp_path_factory.mktemp("layout") / "a.parquet"
    generator = random.Random(data.draw(st.integers(0, 99)))
    written: list[TextDocument] = []
    schema = pa.schema({"text": pa.string(), **({"id": pa.string()} if ids else {}), "other": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for count in rows:
            texts = ["é" * generator.randrange(60) for _ in range(count)]
            numbers = range(len(written) + 1, len(written) + count + 1)
            given = [f"id {n}" if ids and n % 2 else None for n in numbers]
            columns = {"text": texts, "id": given, "other": [0] * count}
            writer.write_table(pa.table({name: columns[name] for name in schema.names}, schema))
            written += [
                TextDocument(text, own or f"{path}#{n}", 2 * len(text), 2 * len(text))
                for text, own, n in zip(texts, given, numbers, strict=True)
            ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "PIECE", piece)
        pieces = cut_into_pieces(find_files([path]))
    assert [one for part in pieces for one in read_piece(part)] == written
    ends = [part.stop for part in pieces]
    assert [part.start for part in pieces] == [0, *ends[:-1]]
    assert ends[-1] == pq.ParquetFile(path).num_row_groups
    assert all(part.size <= piece or part.stop - part.start == 1 for part in pieces)  # type: ignore[operator]


def test_pieces_are_about_128_mb_of_text_and_know_their_size_before_they_are_read(tmp_path: Path) -> None:
    letters = "".join(random.Random(3).choices("abcdefghij", k=1 << 20))
    texts = pa.array([letters[n:] for n in range(260)])
    pq.write_table(pa.table({"text": texts, "other": range(len(texts))}), tmp_path / "a.parquet", row_group_size=13)
    pieces = cut_into_pieces(find_files([tmp_path]))
    assert len(pieces) == 3
    assert all(100e6 < piece.size <= 128e6 for piece in pieces[:-1])
    for piece in (pieces[0], pieces[-1]):
        assert sum(document.size for document in read_piece(piece)) == pytest.approx(piece.size, rel=0.01)


def test_a_piece_is_read_in_bounded_memory(tmp_path: Path) -> None:
    text = "".join(random.Random(4).choices("abcdefghij", k=20_000))
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": pa.string()})) as writer:
        writer.write_table(pa.table({"text": [text[n:] for n in range(8000)]}))  # 128 MB in one row group
    (piece,) = cut_into_pieces(find_files([tmp_path]))
    before = pa.total_allocated_bytes()
    held = 0
    tracemalloc.start()
    for _ in read_piece(piece):
        held = max(held, pa.total_allocated_bytes() - before)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 64e6
    assert peak < 64e6


def test_a_piece_survives_json_and_other_files_are_one_piece_each(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["x"] * 9)
    write_jsonl(tmp_path / "b.jsonl.gz", ["y"] * 2)
    (tmp_path / "c.txt").write_text("z")
    write_parquet(tmp_path / "d.parquet", ["p"] * 7)
    pieces = cut_into_pieces(find_files([tmp_path]))
    assert [Path(piece.file).name[0] for piece in pieces] == ["a", "b", "c", "d"]
    assert [Piece.from_dict(json.loads(json.dumps(piece.to_dict()))) for piece in pieces] == pieces


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt", "a.jsonl.gz"])
def test_a_file_that_has_changed_since_it_was_cut_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write = write_parquet if name == "a.parquet" else write_jsonl
    write(path, ["x"] * 4)
    (piece,) = cut_into_pieces(find_files([path]))
    assert list(read_piece(piece))
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=rf"{name}: has changed since"):
        list(read_piece(piece))
    write(path, ["x"] * 5)
    with pytest.raises(InputError, match=rf"{name}: has changed since"):
        list(read_piece(piece))
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}: cannot be read \(No such file"):
        list(read_piece(piece))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["x"] * 4)
    (piece,) = cut_into_pieces(find_files([path]))
    reading = read_piece(piece)
    next(reading)
    with path.open("a") as stream:
        stream.write('{"text": "more"}\n')
    with pytest.raises(InputError, match=r"a.jsonl: has changed since"):
        list(reading)


def test_many_files_are_cut_in_their_order_and_a_bad_one_is_named(tmp_path: Path) -> None:
    for n in range(60):
        write_parquet(tmp_path / f"{n:02d}.parquet", [str(n)])
    assert texts_of(tmp_path) == [str(n) for n in range(60)]
    (tmp_path / "41.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"41.parquet: cannot be read as Parquet"):
        cut_into_pieces(find_files([tmp_path]))


def test_reading_shows_megabytes_and_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["x" * 400_000] * 5)
    write_parquet(tmp_path / "b.parquet", ["y" * 400_000] * 5)
    assert len(list(read_documents(cut_into_pieces(find_files([tmp_path])), "reading"))) == 10
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reading, MB ")
    assert line.endswith("10 documents")


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=5), most=st.integers(1, 900))
def test_a_sample_is_the_first_documents_of_every_file_in_proportion(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]], most: int
) -> None:
    folder = tmp_path_factory.mktemp("sample")
    for n, file in enumerate(lengths):
        write_parquet(folder / f"{n}.parquet", ["x" * length for length in file], rows=50)
    pieces = [
        # In place of the footer's estimates, so that the shares are exact.
        replace(piece, size=sum(document.size for document in read_piece(piece)))
        for piece in cut_into_pieces(find_files([folder]))
    ]
    whole = sum(piece.size for piece in pieces)
    found = list(read_documents(pieces, "sampling", most))
    assert list(read_documents(pieces, "sampling", most)) == found
    if most >= whole:
        assert found == read_all(folder)
    else:
        assert most <= sum(document.size for document in found) < most + 50
        done = goal = 0.0
        for piece in pieces:
            own = [one.size for one in read_piece(piece)]
            goal += most / whole * piece.size
            while done < goal - 1e-9 and own:
                done += own.pop(0)
        assert sum(document.size for document in found) == done
