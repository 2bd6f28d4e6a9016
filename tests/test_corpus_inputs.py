"""Files are found here and behind URLs, cut into pieces with exactly their documents, and refused once changed."""

import io
import json
import os
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import packed, read_all, texts_of, write_jsonl, write_parquet
from hub_server import serve
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.corpus import inputs
from kisl_plugin.corpus.inputs import TextDocument, cut_into_pieces, find_files, read_piece
from kisl_plugin.corpus.tokenizer import sample_texts
from kisl_plugin.errors import InputError

# ---- this machine ----


def names(*paths: str | Path) -> list[str]:
    return [Path(piece.file).name for piece in find_files(paths)]


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


def test_inputs_without_readable_files_and_files_listed_twice_are_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jsonl").symlink_to(file)
    for twice in ([tmp_path / "a.jsonl", file], [file, f"file://{file}"], [tmp_path]):
        with pytest.raises(InputError, match=r"jsonl: is listed twice"):
            find_files(twice)
    (tmp_path / "a.zip").touch()
    for path in ("empty", "e*", "a.zip"):
        with pytest.raises(InputError, match=r"no file to read; expected names that end in .txt, .jsonl, .jsonl.gz, "):
            find_files([tmp_path / path])
    for missing in (str(tmp_path / "none"), "", "HuggingFaceFW/fineweb-edu"):
        with pytest.raises(
            InputError, match=rf"{missing}: no such file or folder \(expected text files .*hf://datasets"
        ):
            find_files([missing])
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "a.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no such file or folder .*lost/a.parquet"):
        find_files([tmp_path / "lost"])
    os.mkfifo(tmp_path / "empty" / "pipe.jsonl")
    with pytest.raises(InputError, match=r"pipe.jsonl: not a regular file"):
        find_files([tmp_path / "empty"])


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "far" / "b.jsonl", ["y"])
    write_jsonl(tmp_path / "near" / "a.jsonl", ["x"])
    for name, target in (("loop", "near"), ("more", "near"), ("there", "far")):
        (tmp_path / "near" / name).symlink_to(tmp_path / target)
    (tmp_path / "far" / "back").symlink_to(tmp_path / "near")
    assert names(tmp_path / "near") == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("folder", ["out.excluded", "out.work"])
def test_the_output_of_a_build_in_a_folder_of_texts_is_refused(tmp_path: Path, folder: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["x"])
    write_jsonl(tmp_path / folder / "00000.jsonl", ["x"])
    for path in (tmp_path, tmp_path / "*"):
        with pytest.raises(InputError, match=rf"{folder}/00000.jsonl: lies in a folder named like"):
            find_files([path])
    assert names(tmp_path / "*.jsonl", tmp_path / folder) == ["a.jsonl", "00000.jsonl"]


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
            row_ids = [f"id {n}" if ids and n % 2 else None for n in numbers]
            columns = {"text": texts, "id": row_ids, "other": [0] * count}
            writer.write_table(pa.table({name: columns[name] for name in schema.names}, schema))
            written += [
                TextDocument(text, own or f"{path}#{n}", 2 * len(text))
                for text, own, n in zip(texts, row_ids, numbers, strict=True)
            ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PIECE_BYTES", piece)
        pieces = cut_into_pieces(find_files([path]))
    assert [one for part in pieces for one in read_piece(part)] == written
    ends = [part.stop for part in pieces]
    assert [part.start for part in pieces] == [0, *ends[:-1]]
    assert ends[-1] == pq.ParquetFile(path).num_row_groups
    assert all(part.size <= piece or part.stop - part.start == 1 for part in pieces)  # type: ignore[operator]


def test_the_size_of_pieces_is_bounded_and_known_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PIECE_BYTES", 1_280_000)
    letters = "".join(random.Random(3).choices("abcdefghij", k=10_000))
    texts = pa.array([letters[n:] for n in range(260)])
    pq.write_table(pa.table({"text": texts, "other": range(len(texts))}), tmp_path / "a.parquet", row_group_size=13)
    pieces = cut_into_pieces(find_files([tmp_path]))
    assert len(pieces) == 3
    assert all(1_000_000 < piece.size <= 1_280_000 for piece in pieces[:-1])
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


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt", "a.jsonl.gz"])
def test_a_file_that_has_changed_since_it_was_cut_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write = write_parquet if name == "a.parquet" else write_jsonl
    write(path, ["x"] * 4)
    (piece,) = cut_into_pieces(find_files([path]))
    assert list(read_piece(piece))
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=rf"{name}: has changed since the plan"):
        list(read_piece(piece))
    write(path, ["x"] * 5)
    with pytest.raises(InputError, match=rf"{name}: has changed since the plan"):
        list(read_piece(piece))
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file or folder"):
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
    sample = list(sample_texts(pieces, most))
    assert list(sample_texts(pieces, most)) == sample
    if most >= whole:
        assert sample == texts_of(folder)
    else:
        assert most <= sum(map(len, sample)) < most + 50
        done = goal = 0.0
        for piece in pieces:
            own = [one.size for one in read_piece(piece)]
            goal += most / whole * piece.size
            while done < goal - 1e-9 and own:
                done += own.pop(0)
        assert sum(map(len, sample)) == done


# ---- URLs: S3 as moto serves it, fsspec's memory, and a hub on this machine ----

LINES = b'{"text": "one"}\n{"id": "mine", "text": "tw\xc3\xb6"}\n'


def parquet(rows: int, noise: int = 0) -> bytes:
    file = io.BytesIO()
    columns = {"noise": [os.urandom(noise) for _ in range(rows)], "text": [f"row {n}" for n in range(1, rows + 1)]}
    pq.write_table(pa.table(columns), file, row_group_size=10, use_dictionary=False)
    return file.getvalue()


FILES = {
    "text/a.jsonl": LINES,
    "text/b.jsonl.gz": packed(LINES, ".gz"),
    "text/c.jsonl.zst": packed(LINES, ".zst"),
    "text/deep/d.parquet": parquet(35),
    "text/deep/e.txt": b"All of it.",
    "text/notes.md": b"not text",
}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="reads s3://; pip install 'kisl-plugin[s3]'")
    server = pytest.importorskip("moto.server", reason="serves s3:// here; pip install 'moto[server]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.get_host_and_port()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def folder(request: pytest.FixtureRequest) -> Iterator[str]:
    url = "memory://bucket" if request.param == "memory" else request.getfixturevalue("s3")
    system, root = fsspec.url_to_fs(url)
    for name, content in FILES.items():
        system.pipe(f"{root}/{name}", content)
    yield f"{url}/text"
    system.rm(f"{root}/text", recursive=True)


def test_folders_patterns_and_files_behind_a_url_are_read_as_local_ones_are(folder: str, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def read(root: str, names: tuple[str, ...]) -> list[Any]:
        documents = read_all(*(root + name for name in names))
        return [one._replace(id=one.id.rpartition("/text/")[2]) for one in documents]

    for names in (("",), ("/",), ("/*.jsonl*",), ("/**/*.parquet", "/a.jsonl"), ("/deep/e.txt",), ("/d*",)):
        assert read(folder, names) == read(f"{tmp_path}/text", names) != []


def test_a_file_behind_a_url_that_has_changed_is_refused(folder: str) -> None:
    pieces = cut_into_pieces(find_files([folder]))
    system, root = fsspec.url_to_fs(folder)
    for piece in pieces:
        assert list(read_piece(piece))
        name = system._strip_protocol(piece.file)
        system.pipe(name, bytes(reversed(system.cat(name))))
        with pytest.raises(InputError, match=r"has changed since the plan was made \(version .+, then .+\)"):
            list(read_piece(piece))
    system.rm(f"{root}/a.jsonl")
    with pytest.raises(InputError, match=r"a.jsonl: no such file"):
        list(read_piece(pieces[0]))


def test_of_a_remote_parquet_file_only_the_wanted_columns_and_row_groups_travel(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = parquet(300, noise=10_000)
    system, _ = fsspec.url_to_fs(s3)
    system.pipe("bucket/wide.parquet", content)
    fetched: list[int] = []
    opened = type(system.open("bucket/wide.parquet"))
    fetch = opened._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        fetched.append(end - start)
        data: bytes = fetch(self, start, end)
        return data

    monkeypatch.setattr(opened, "_fetch_range", counted)
    monkeypatch.setattr(inputs, "PIECE_BYTES", 500)
    pieces = cut_into_pieces(find_files([f"{s3}/wide.parquet"]))
    footer = sum(fetched)
    assert footer < 100_000 < len(content) / 20
    assert len(list(read_piece(pieces[1]))) > 1
    assert sum(fetched) - footer < footer + 10_000


def test_a_missing_bucket_is_refused(s3: str) -> None:
    for url in ("s3://nobody-has-this", "s3://nobody-has-this/text"):
        with pytest.raises(InputError, match=rf"{url}: no such file or folder .*FSSPEC_S3_ANON=true"):
            find_files([url])


def test_a_storage_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="reads s3://; pip install 'kisl-plugin[s3]'")
    no_access = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {**no_access, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "kisl_plugin", "corpus", "tokenizer", "--output", str(tmp_path / "t"), "--input"]
    for url, expected in {
        "s3://bucket/text": "no access (Unable to locate credentials); credentials come from AWS_PROFILE or",
        "foo://a/b": "Protocol not known: foo; expected a path, hf://datasets/OWNER/NAME/…",
    }.items():
        done = subprocess.run([*command, url], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"Error: {url}: {expected}")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("library", "url", "extra"), [("s3fs", "s3://bucket/a", "corpus,s3"), ("fsspec", "memory://a", "corpus")]
)
def test_a_library_that_is_missing_for_a_url_names_the_extra(
    library: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=re.escape(f"{url} needs {library}: pip install 'kisl-plugin[{extra}]'")):
        find_files([url])


READ = """if True:
    import json, sys
    from dataclasses import asdict
    from kisl_plugin.corpus import inputs
    from kisl_plugin.errors import KislError
    inputs.PIECE_BYTES = 3000
    pieces = inputs.cut_into_pieces(inputs.find_files(sys.argv[1:2]))
    if sys.argv[2:]:
        pieces = [inputs.Piece(**json.loads(sys.argv[2]))]
    try:
        read = [[one.text, one.id] for piece in pieces for one in inputs.read_piece(piece)]
        print(json.dumps([[asdict(piece) for piece in pieces], read]))
    except KislError as error:
        print(json.dumps(str(error)))
    """


def run(endpoint: str, home: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    # The library reads both when it is imported.
    hub = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env={**os.environ, **hub}, check=False
    )


def data_set(texts: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "id": [f"urn:{n}" for n in range(len(texts))]}), file, row_group_size=25)
    return file.getvalue()


def test_a_data_set_of_the_hub_is_read_piece_by_piece(tmp_path: Path) -> None:
    texts = [f"{n} " * 20 for n in range(200)]
    files = {
        "README.md": b"a card",
        "sample/10BT/000.parquet": data_set(texts),
        "sample/10BT/001.parquet": data_set(["last"]),
        "data/a.jsonl": b'{"text": "other"}\n',
    }
    with serve(files) as endpoint:
        done = run(endpoint, tmp_path, "-c", READ, "hf://datasets/own/set/sample/10BT")
        cut, read = json.loads(done.stdout)
        assert [text for text, _ in read] == [*texts, "last"]
        assert read[7] == [texts[7], "urn:7"]
        assert {piece["file"] for piece in cut} == {f"hf://datasets/own/set/sample/10BT/00{n}.parquet" for n in (0, 1)}
        assert len(cut) > 3
        whole = run(endpoint, tmp_path, "-c", READ, "hf://datasets/own/set")
        assert [text for text, _ in json.loads(whole.stdout)[1]] == ["other", *texts, "last"]

        files["sample/10BT/000.parquet"] = data_set(texts[:-1])
        url = "hf://datasets/own/set/sample/10BT"
        refused = json.loads(run(endpoint, tmp_path, "-c", READ, url, json.dumps(cut[0])).stdout)
        assert "000.parquet: has changed since the plan was made" in refused
