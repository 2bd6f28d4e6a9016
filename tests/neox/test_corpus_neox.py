"""What `kisl corpus build` writes, through GPT-NeoX's own tokenizer and reader."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kisl_plugin.corpus.build import build_corpus
from kisl_plugin.corpus.vocabulary import train_tokenizer

TEXTS = (
    "The river.\n\nThe old town.",
    "naïve 日本語 🙂",
    " a",
    "Marie Curie of Poland",
    *("light winter " * n for n in range(1, 40)),
)
# `pkg_resources` is gone from setuptools 82; GPT-NeoX wants its `packaging` alone.
READER = """
import json, sys, types
import numpy as np
sys.path.insert(0, sys.argv[1])
import packaging.version
try:
    from pkg_resources import packaging
except ImportError:
    sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
    sys.modules["pkg_resources"].packaging = packaging
from megatron.data.indexed_dataset import make_builder, make_dataset
from megatron.tokenizer.tokenizer import HFTokenizer
prefix, vocab_file, texts = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
corpus, tokenizer = make_dataset(prefix, "mmap"), HFTokenizer(vocab_file)
expected = [tokenizer.tokenize(text) + [tokenizer.eod] for text in texts]
builder = make_builder(prefix + "_theirs.bin", impl="mmap", vocab_size=tokenizer.vocab_size)
for tokens in expected:
    builder.add_item(np.array(tokens, dtype=builder.dtype))
    builder.end_document()
builder.finalize(prefix + "_theirs.idx")
read = {"documents": [corpus[n].tolist() for n in range(len(corpus))], "ends": corpus.doc_idx.tolist()}
print(json.dumps({**read, "expected": expected, "vocab_size": tokenizer.vocab_size}))
"""


def _read(neox_dir: Path, prefix: Path, vocab_file: Path, texts: Sequence[str]) -> dict[str, Any]:
    """The corpus as GPT-NeoX reads it, and the tokens that its tokenizer makes of `texts`.

    Beside the corpus GPT-NeoX's own builder writes those tokens to `prefix`_theirs.
    """
    arguments = map(str, (neox_dir, prefix, vocab_file, json.dumps(texts)))
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run([sys.executable, "-c", READER, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def test_gpt_neox_reads_the_documents_and_would_have_written_the_same_bytes(neox_dir: Path, tmp_path: Path) -> None:
    prefix, vocab_file = tmp_path / "text_document", tmp_path / "tokenizer.json"
    train_tokenizer(TEXTS, 300, vocab_file)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "facts.csv").write_text("subject,relation_id,object\nMarie Curie,P19,Poland\n")
    made = build_corpus([tmp_path / "a.jsonl"], str(tmp_path / "facts.csv"), vocab_file, prefix)
    kept = [text for text in TEXTS if "Curie" not in text]
    read = _read(neox_dir, prefix, vocab_file, kept)
    assert read["documents"] == read["expected"]
    assert read["ends"] == list(range(len(kept) + 1))
    assert (made.documents, made.left_out, made.vocab_size) == (len(kept), 1, read["vocab_size"])
    assert made.tokens == sum(map(len, read["documents"]))
    _check_same_bytes(prefix)


def test_gpt_neox_reads_a_corpus_of_a_large_vocabulary(neox_dir: Path, tmp_path: Path) -> None:
    prefix, vocab_file = tmp_path / "text_document", tmp_path / "tokenizer.json"
    train_tokenizer(TEXTS, 300, vocab_file)
    settings = json.loads(vocab_file.read_text())
    settings["model"]["vocab"] |= {f"unused{n}": n for n in range(300, 70_000)}
    vocab_file.write_text(json.dumps(settings))
    (tmp_path / "a.txt").write_text("".join(TEXTS))
    made = build_corpus([tmp_path / "a.txt"], "none", vocab_file, prefix)
    read = _read(neox_dir, prefix, vocab_file, ["".join(TEXTS)])
    assert read["documents"] == read["expected"]
    assert prefix.with_name("text_document.bin").stat().st_size == 4 * made.tokens
    _check_same_bytes(prefix)


def _check_same_bytes(prefix: Path) -> None:
    for ending in ("bin", "idx"):
        assert Path(f"{prefix}.{ending}").read_bytes() == Path(f"{prefix}_theirs.{ending}").read_bytes()
