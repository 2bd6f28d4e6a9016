"""hf:// as fsspec and huggingface_hub read it, from a hub on this machine: the library is real, the hub is not."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hub_server import serve

READ = """if True:
    import json, sys
    from kisl_plugin.corpus import readers as pieces
    from kisl_plugin.corpus.readers import find_files
    from kisl_plugin.errors import KislError
    pieces.PIECE = 3000
    cut = pieces.cut_into_pieces(find_files(sys.argv[1:2]))
    if sys.argv[2:]:
        cut = [pieces.Piece.from_dict(json.loads(sys.argv[2]))]
    try:
        read = [[one.text, one.id] for piece in cut for one in pieces.read_piece(piece)]
        print(json.dumps([[piece.to_dict() for piece in cut], read]))
    except KislError as error:
        print(json.dumps(str(error)))
    """


def run(endpoint: str, home: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    # The library reads both when it is imported.
    hub = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env={**os.environ, **hub}, check=False
    )


def parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    table = pa.table({"text": texts, "id": [f"urn:{n}" for n in range(len(texts))], "dump": ["d"] * len(texts)})
    pq.write_table(table, file, row_group_size=25)
    return file.getvalue()


def test_a_data_set_of_the_hub_is_read_piece_by_piece(tmp_path: Path) -> None:
    texts = [f"{n} " * 20 for n in range(200)]
    files = {
        "README.md": b"a card",
        "sample/10BT/000.parquet": parquet(texts),
        "sample/10BT/001.parquet": parquet(["last"]),
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

        files["sample/10BT/000.parquet"] = parquet(texts[:-1])
        url = "hf://datasets/own/set/sample/10BT"
        refused = json.loads(run(endpoint, tmp_path, "-c", READ, url, json.dumps(cut[0])).stdout)
        assert "000.parquet: has changed since the plan was made" in refused


def test_what_the_hub_does_not_have_is_one_line(tmp_path: Path) -> None:
    with serve({"data/a.jsonl": b'{"text": "x"}\n', "notes/b.md": b""}) as endpoint:
        for url, expected in {
            "hf://datasets/own/none": "no such file or folder",
            "hf://datasets/own/set/none": "no such file or folder",
            "hf://datasets/own/set/notes": "no file below this folder ends in .txt",
        }.items():
            command = ("-m", "kisl_plugin", "corpus", "tokenizer", "--output", str(tmp_path / "t.json"))
            done = run(endpoint, tmp_path, *command, "--input", url)
            assert done.returncode == 2
            assert done.stderr.startswith(f"Error: {url}: {expected}")
            assert done.stderr.count("\n") == 1
