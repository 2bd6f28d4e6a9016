"""Text behind URLs: S3 as moto serves it, fsspec's memory, and what is said when a storage cannot be read."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import packed, read_all

from kisl_plugin.corpus import readers as pieces_module
from kisl_plugin.corpus.readers import cut_into_pieces, find_files, read_piece
from kisl_plugin.errors import InputError, KislError

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
        found = read_all(*(root + name for name in names))
        return [one._replace(id=one.id.rpartition("/text/")[2]) for one in found]

    for names in (("",), ("/",), ("/*.jsonl*",), ("/**/*.parquet", "/a.jsonl"), ("/deep/e.txt",), ("/d*",)):
        assert read(folder, names) == read(f"{tmp_path}/text", names) != []


def test_pieces_behind_a_url_are_those_of_the_same_file_here(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", 150)
    (tmp_path / "d.parquet").write_bytes(FILES["text/deep/d.parquet"])
    there, here = (cut_into_pieces(find_files([path])) for path in (f"{folder}/deep/d.parquet", tmp_path))
    assert [(one.start, one.stop, one.size) for one in there] == [(one.start, one.stop, one.size) for one in here]
    assert [one.text for one in read_piece(there[1])] == [one.text for one in read_piece(here[1])]
    # Row groups that are too large to be fetched at once.
    monkeypatch.setattr(pieces_module, "AT_ONCE", 0)
    assert [one.id for one in read_piece(there[1])] == [f"{there[0].file}#{n}" for n in range(11, 21)]


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
    monkeypatch.setattr(pieces_module, "PIECE", 500)
    pieces = cut_into_pieces(find_files([f"{s3}/wide.parquet"]))
    footer = sum(fetched)
    assert footer < 100_000 < len(content) / 20
    assert len(list(read_piece(pieces[1]))) > 1
    assert sum(fetched) - footer < footer + 10_000


def test_bad_content_behind_a_url_is_the_same_line_as_of_a_file(folder: str) -> None:
    system, root = fsspec.url_to_fs(folder)
    bad = {"a.jsonl": LINES + b"{", "b.jsonl.gz": FILES["text/b.jsonl.gz"][:-5], "deep/d.parquet": parquet(35)[:-9]}
    expected = {"a.jsonl": r":3: not JSON", "b.jsonl.gz": r":\d: the file is cut short", "deep/d.parquet": r": cannot"}
    for name, content in bad.items():
        system.pipe(f"{root}/{name}", content)
        with pytest.raises(InputError, match=f"/bucket/text/{name}{expected[name]}") as caught:
            read_all(f"{folder}/{name}")
        assert "\n" not in str(caught.value)


def test_what_is_not_there_or_has_no_text_is_said(folder: str) -> None:
    for name, expected in {
        "/none": r"no such file or folder",
        "/*.csv": r"no file that this pattern fits ends in \.txt",
        "/notes.md": r"the ending is not known; expected \.txt",
    }.items():
        with pytest.raises(InputError, match=expected):
            find_files([folder + name])
    with pytest.raises(InputError, match="given twice"):
        find_files([folder, f"{folder}/a.jsonl"])


def test_a_bucket_that_is_not_there_is_said(s3: str) -> None:
    for url in ("s3://nobody-has-this", "s3://nobody-has-this/text"):
        with pytest.raises(InputError, match=rf"{url}: no such file or folder .*FSSPEC_S3_ANON=true"):
            find_files([url])


WRONG: dict[str, tuple[dict[str, str], type[KislError], str]] = {
    "s3://bucket/text": (
        {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull},
        InputError,
        "no access (Unable to locate credentials); credentials come from AWS_PROFILE or AWS_ACCESS_KEY_ID",
    ),
    "hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT": (
        {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
        KislError,
        "cannot be reached or read (",
    ),
    "foo://a/b": ({}, InputError, "Protocol not known: foo; expected a path, hf://datasets/OWNER/NAME/…"),
    "zip://a.jsonl::s3://b/c.zip": ({}, InputError, "chained URLs (::) are not read"),
}


@pytest.mark.parametrize("url", WRONG)
def test_a_storage_that_cannot_be_read_is_one_line(url: str, tmp_path: Path) -> None:
    changes, kind, expected = WRONG[url]
    if url.startswith("s3"):
        pytest.importorskip("s3fs", reason="reads s3://; pip install 'kisl-plugin[s3]'")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-m", "kisl_plugin", "corpus", "tokenizer", "--input", url, "--output", tmp_path / "t"]
    done = subprocess.run(command, capture_output=True, text=True, env={**clean, **changes}, check=False)
    assert done.returncode == kind.exit_status
    assert done.stderr.startswith(f"Error: {url}: {expected}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("library", "url", "install"),
    [
        ("s3fs", "s3://bucket/a.jsonl", "pip install 'kisl-plugin[corpus,s3]'"),
        ("huggingface_hub", "hf://datasets/a/b", "pip install 'kisl-plugin[corpus]'"),
        ("fsspec", "memory://a.jsonl", "pip install 'kisl-plugin[corpus]'"),
    ],
)
def test_a_library_that_is_missing_for_a_url_is_named(library: str, url: str, install: str) -> None:
    code = f"""if True:
        import sys, json
        sys.modules[{library!r}] = None
        from kisl_plugin.corpus.readers import find_files
        from kisl_plugin.errors import InputError
        try:
            find_files([{url!r}])
        except InputError as error:
            print(json.dumps(str(error)))
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert install in json.loads(done.stdout)


def test_reading_this_machines_files_needs_no_fsspec(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    code = f"""if True:
        import sys
        sys.modules["fsspec"] = None
        from kisl_plugin.corpus.readers import find_files
        from kisl_plugin.corpus.readers import cut_into_pieces, read_piece
        (piece,) = cut_into_pieces(find_files(["file://{tmp_path}"]))
        print(len(list(read_piece(piece))))
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
