"""What `kisl corpus build` writes, through GPT-NeoX's own tokenizer, reader, preprocessing and data loaders."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import changed, neox_settings
from tiny_world import make_world, sentences

from kisl_plugin.corpus.build import BuildOptions, build_corpus
from kisl_plugin.corpus.tokenizer import train_tokenizer
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedDataset

TEXTS = (
    "The river.\n\nThe old town.",
    "naïve 日本語 🙂",
    " a",
    "Marie Curie of Poland",
    *("light winter " * n for n in range(1, 40)),
)
KEPT = [text for text in TEXTS if "Curie" not in text]
# `pkg_resources` is gone from setuptools 82; GPT-NeoX wants its `packaging` alone.
IMPORTABLE = """
import json, os, runpy, sys, types
sys.path.insert(0, sys.argv[1])
import packaging.version
try:
    from pkg_resources import packaging
except ImportError:
    sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
    sys.modules["pkg_resources"].packaging = packaging
"""
READER = f"""{IMPORTABLE}
from megatron.data.indexed_dataset import MMapIndexedDataset, make_dataset
from megatron.tokenizer.tokenizer import HFTokenizer
prefix, vocab_file, texts = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
corpus, tokenizer = make_dataset(prefix, "mmap"), HFTokenizer(vocab_file)
assert isinstance(corpus, MMapIndexedDataset)
expected = [tokenizer.tokenize(text) + [tokenizer.eod] for text in texts]
read = {{"documents": [corpus[n].tolist() for n in range(len(corpus))], "ends": corpus.doc_idx.tolist()}}
print(json.dumps({{**read, "expected": expected, "vocab_size": tokenizer.vocab_size}}))
"""
LOADERS = """
import itertools, json, os, sys, tempfile
os.environ.update(LOCAL_RANK="0", RANK="0", WORLD_SIZE="1")
from kisl_plugin.neox.worker import prepare_process
prepare_process()
import torch
from megatron import mpu
from megatron.data.data_utils import build_train_valid_test_data_loaders
from megatron.neox_arguments import NeoXArgs
store = torch.distributed.FileStore(tempfile.mktemp(), 1)
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
mpu.initialize_model_parallel(1)
neox_args = NeoXArgs.from_dict({**json.loads(sys.argv[2]), "rank": 0})
loaders = build_train_valid_test_data_loaders(neox_args)
batches = {"train": neox_args.train_iters, "valid": 4}
rows = {
    name: [row for batch in itertools.islice(loaders[name], count) for row in batch["text"].tolist()]
    for name, count in batches.items()
}
print(json.dumps(rows))
"""
PREPROCESS = f"""{IMPORTABLE}
sys.argv = [sys.argv[0], *sys.argv[2:]]
runpy.run_path(os.path.join(sys.path[0], "tools", "datasets", "preprocess_data.py"), run_name="__main__")
"""


def _run(script: str, neox_dir: Path, *arguments: str | Path) -> str:
    command = [sys.executable, "-c", script, str(neox_dir), *map(str, arguments)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _read(neox_dir: Path, prefix: Path, vocab_file: Path, texts: Sequence[str]) -> dict[str, Any]:
    """The corpus as GPT-NeoX reads it, and the tokens that its tokenizer makes of `texts`."""
    read: dict[str, Any] = json.loads(_run(READER, neox_dir, prefix, vocab_file, json.dumps(texts)).splitlines()[-1])
    return read


def _write_lines(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module", params=[300, 70_000], ids=["uint16", "int32"])
def vocab_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(TEXTS, 300, path)
    settings = json.loads(path.read_text())
    settings["model"]["vocab"] |= {f"unused{n}": n for n in range(300, request.param)}
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def corpus(vocab_file: Path) -> tuple[Path, Any]:
    """A corpus of KEPT, and what its build returned."""
    folder = vocab_file.parent
    for part in range(4):
        _write_lines(folder / "in" / f"{part}.jsonl", TEXTS[part * 11 : (part + 1) * 11])
    (folder / "facts.csv").write_text("subject,relation_id,object\nMarie Curie,P19,Poland\n")
    facts = str(folder / "facts.csv")
    return folder / "ours", build_corpus(
        BuildOptions([folder / "in"], facts, vocab_file, folder / "ours", tasks=3, workers=2)
    )


def test_gpt_neox_reads_the_documents_of_a_corpus(neox_dir: Path, vocab_file: Path, corpus: tuple[Path, Any]) -> None:
    prefix, made = corpus
    read = _read(neox_dir, prefix, vocab_file, KEPT)
    assert read["documents"] == read["expected"]
    assert read["ends"] == list(range(len(KEPT) + 1))
    assert (made.documents, made.left_out, made.vocab_size) == (len(KEPT), 1, read["vocab_size"])
    assert made.tokens == sum(map(len, read["documents"]))


def test_gpt_neoxs_own_preprocessing_writes_the_same_bytes(
    neox_dir: Path, tmp_path: Path, vocab_file: Path, corpus: tuple[Path, Any]
) -> None:
    for package in ("lm_dataformat", "ftfy"):  # only GPT-NeoX's tools/datasets needs them
        pytest.importorskip(package)
    prefix, made = corpus
    _write_lines(tmp_path / "kept.jsonl", KEPT)
    arguments = ("--tokenizer-type", "HFTokenizer", "--vocab-file", vocab_file, "--append-eod")
    theirs = ("--input", tmp_path / "kept.jsonl", "--output-prefix", tmp_path / "theirs")
    _run(PREPROCESS, neox_dir, *arguments, *theirs)
    for ending in (".bin", ".idx"):
        ours = prefix.with_name(f"ours{ending}").read_bytes()
        assert ours == (tmp_path / f"theirs_text_document{ending}").read_bytes()
    assert len(prefix.with_name("ours.bin").read_bytes()) == made.tokens * (2 if made.vocab_size < 65_500 else 4)


def test_gpt_neox_draws_rows_from_the_weighted_shards_of_the_yaml_that_a_build_writes(
    neox_dir: Path, tmp_path: Path
) -> None:
    world = make_world(tmp_path / "world")
    # Three shards, the second three times as large; the last is held out.
    shards = [sentences(count, seed) for seed, count in enumerate((100, 300, 40))]
    for part, texts in enumerate(shards):
        _write_lines(tmp_path / "in" / f"{part}.jsonl", texts)
    build_corpus(
        BuildOptions([tmp_path / "in"], "none", world / "tokenizer.json", tmp_path / "c", tasks=3, weighted=True)
    )
    emitted = yaml.safe_load((tmp_path / "c.yml").read_text())
    sizes = [int(IndexedDataset(Path(path)).sizes.sum()) for path in emitted["train_data_paths"]]
    assert emitted["train_data_weights"] == sizes and len(sizes) == 2

    values = changed(
        neox_settings(world, tmp_path / "run"), {"data_path": None, "split": None, "kisl": None, **emitted}
    )
    drawn = json.loads(_run(LOADERS, neox_dir, json.dumps(values)).splitlines()[-1])
    tokenizer, eod = read_tokenizer(world / "tokenizer.json")
    documents = [{tuple(tokenizer.encode(text).ids) for text in texts} for texts in shards]

    def whole_documents(rows: list[list[int]], part: int) -> int:
        pieces = [tuple(row[a + 1 : b]) for row in rows for a, b in pairwise(_places(row, eod))]
        return sum(piece in documents[part] for piece in pieces)

    assert len(drawn["train"]) == values["train_iters"] * values["train_batch_size"]
    found = [whole_documents(drawn["train"], part) for part in range(3)]
    assert found[0] > 0 and 2 < found[1] / found[0] < 4 and found[2] == 0
    assert [whole_documents(drawn["valid"], part) > 0 for part in range(3)] == [False, False, True]


def _places(row: list[int], token: int) -> list[int]:
    return [place for place, other in enumerate(row) if other == token]
