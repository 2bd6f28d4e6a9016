"""`kisl corpus tokenizer`: a tokenizer of the size that was asked for, from all inputs or a sample of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from corpus_files import write_jsonl, write_parquet, write_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import EOD, sentences
from tiny_world import train_tokenizer as train_small
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from kisl_plugin.cli.main import main
from kisl_plugin.corpus.tokenizer import BatchDecoder, BatchEncoder, train_tokenizer
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import IndexedDataset


def tokenizer(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["corpus", "tokenizer", *map(str, arguments)])


def test_the_tokenizer_has_the_size_that_was_asked_and_gives_every_text_back(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", sentences(300))
    outputs = [tmp_path / "new" / "one.json", tmp_path / "two.json"]
    for output, threads in zip(outputs, ("1", "3"), strict=True):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, "-m", "kisl_plugin", "corpus", "tokenizer", "--input", str(path)]
        subprocess.run([*command, "--output", str(output), "--vocab-size", "300"], check=True, env=environment)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    trained = Tokenizer.from_file(str(outputs[0]))
    assert trained.get_vocab_size() == 300
    assert sorted(trained.get_vocab().values()) == list(range(300))
    assert (trained.token_to_id("<|endoftext|>"), trained.token_to_id("<|padding|>")) == (0, 1)
    for text in (*sentences(3, seed=5), "naïve\n\t 日本語 🙂 \x00", " leading"):
        assert trained.decode(trained.encode(text).ids) == text


def test_the_same_text_gives_the_same_tokenizer_however_it_lies(tmp_path: Path) -> None:
    texts = sentences(300)
    write_jsonl(tmp_path / "a.jsonl", texts[:200])
    # Two files after one --input, as a shell expands a pattern.
    parts = [write_parquet(tmp_path / "b.parquet", texts[200:250]), write_jsonl(tmp_path / "c.jsonl.zst", texts[250:])]
    url = "memory://tokenizer/all.jsonl"
    fsspec.filesystem("memory").pipe("/tokenizer/all.jsonl", write_jsonl(tmp_path / "all.jsonl", texts).read_bytes())
    made = []
    for inputs in ([tmp_path / "a.jsonl", *parts], [tmp_path / "[a-c].*"], [url]):
        output = tmp_path / f"{len(made)}.json"
        result = tokenizer("--input", *inputs, "--output", output, "--vocab-size", "300")
        assert result.exit_code == 0, result.output
        made.append(output.read_bytes())
    assert made[0] == made[1] == made[2]


def test_of_inputs_larger_than_the_sample_every_file_gives_its_first_documents(tmp_path: Path) -> None:
    heads, tails = ("apple", "berry", "cherry"), ("xenon", "yacht", "zebra")
    for head, tail, ending in zip(heads, tails, (".jsonl", ".parquet", ".txt.jsonl"), strict=True):
        texts = [f"{n} " + f" {head if n < 500 else tail}" * (1000 // len(f" {head}")) for n in range(1000)]
        write_texts(tmp_path / f"{head}{ending}", texts)
    output, whole = tmp_path / "sample.json", tmp_path / "whole.json"
    arguments = ("--input", tmp_path, "--vocab-size", "400")
    result = tokenizer(*arguments, "--output", output, "--sample", "1")
    assert "trained on about 1 of 3 MB, taken evenly; --sample MB changes how many" in result.output
    once = output.read_bytes()
    assert tokenizer(*arguments, "--output", output, "--sample", "1", "--force").exit_code == 0
    assert output.read_bytes() == once
    assert "trained on about" not in tokenizer(*arguments, "--output", whole).output
    sampled, all_of_it = (Tokenizer.from_file(str(path)).get_vocab().keys() for path in (output, whole))
    assert all_of_it >= {f"Ġ{word}" for word in (*heads, *tails)}
    assert sampled >= {f"Ġ{word}" for word in heads}
    assert sampled.isdisjoint({f"Ġ{word}" for word in tails})


def test_bad_documents_stop_the_training_and_may_be_left_out_with_a_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"content": text}) for text in sentences(50)]
    path.write_text("\n".join([*lines[:20], '{"content": null}', r'{"content": "\ud800"}', *lines[20:]]))
    arguments = ("--input", path, "--text-column", "content", "--vocab-size", "300", "--output", tmp_path / "t.json")
    stopped = tokenizer(*arguments)
    assert (stopped.exit_code, stopped.output.splitlines()[-1]) == (
        2,
        f"Error: {path}:21: content is None; expected a string",
    )
    done = tokenizer(*arguments, "--skip-bad-documents")
    assert "\n2 documents left out that could not be read, the first: " in done.output
    write_jsonl(tmp_path / "good.jsonl", sentences(50))
    assert tokenizer("--input", tmp_path / "good.jsonl", *arguments[4:6], "--output", tmp_path / "g").exit_code == 0
    assert (tmp_path / "t.json").read_bytes() == (tmp_path / "g").read_bytes()


def test_a_text_too_small_for_the_vocabulary_is_reported(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["aaaa bbbb"])
    output = tmp_path / "tokenizer.json"
    result = tokenizer("--input", path, "--output", output)
    reached = Tokenizer.from_file(str(output)).get_vocab_size()
    assert 258 < reached < 270
    assert f"{output} · {reached:,} tokens" in result.output
    assert "--vocab-size is 32,000, but the text has no more pairs to merge; more text gives more" in result.output
    again = tokenizer("--input", path, "--output", output, "--vocab-size", "260")
    assert again.exit_code == 2
    assert "tokenizer.json: already exists" in again.output
    assert tokenizer("--input", path, "--output", output, "--vocab-size", "260", "--force").exit_code == 0
    assert Tokenizer.from_file(str(output)).get_vocab_size() == 260


def test_a_tokenizer_is_written_as_releases_before_0_20_read_it(tmp_path: Path) -> None:
    train_tokenizer(sentences(200), 500, tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["model"]["merges"]
    assert all(isinstance(merge, str) and len(merge.split(" ")) == 2 for merge in content["model"]["merges"])


def test_a_tokenizer_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    output = tmp_path / "tokenizer.json"
    output.write_text("old")
    good = write_jsonl(tmp_path / "a.jsonl", ["aaaa"])
    too_small = tokenizer("--input", good, "--output", output, "--vocab-size", "257", "--force")
    assert too_small.exit_code == 2
    assert "vocabulary size 257; must be at least 258" in too_small.output
    good.write_bytes(b'{"text": "fine"}\n{')
    assert "a.jsonl:2: not JSON" in tokenizer("--input", good, "--output", output, "--force").output
    assert output.read_text() == "old"


@pytest.mark.parametrize(
    ("library", "ending"),
    [("tokenizers", ".jsonl"), ("pyarrow", ".parquet"), ("pyarrow", ".jsonl.gz")],
)
def test_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, ending: str
) -> None:
    path = write_texts(tmp_path / f"a{ending}", ["x"])
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    result = tokenizer("--input", path, "--output", tmp_path / "t.json")
    assert result.exit_code == 2
    assert "pip install 'kisl-plugin[corpus]'" in result.output


# Encoding in batches


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "tokenizer.json"
    train_small(sentences(200), 500).save(str(path))
    return path


hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(sentences(20))
hostile = st.lists(hostile | st.just(EOD), max_size=5).map("".join)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(hostile, max_size=6))
@pytest.mark.parametrize("library", ["fastokens", "tokenizers"])
def test_a_batch_is_encoded_text_by_text_and_a_special_token_in_it_as_text(
    small: Path, library: str, texts: list[str]
) -> None:
    if library == "fastokens":
        pytest.importorskip("fastokens", reason="the faster of two libraries; pip install fastokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, *(("fastokens", None) if library == "tokenizers" else ("nothing", None)))
        encoder = BatchEncoder(small)
    assert encoder.reason == ("fastokens is not installed" if library == "tokenizers" else "")
    ids, ends = encoder.encode(texts, 1)
    plain = Tokenizer.from_file(str(small))
    plain.encode_special_tokens = True
    parts = [ids[start:end].tolist() for start, end in zip([0, *ends], ends, strict=False)]
    assert parts == [plain.encode(text, add_special_tokens=False).ids for text in texts]
    assert encoder.eod not in ids


def test_a_tokenizer_that_fastokens_refuses_is_encoded_by_tokenizers_and_the_reason_is_one_line(
    small: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fastokens", reason="the faster of two libraries; pip install fastokens")
    other = Tokenizer.from_file(str(small))
    other.normalizer = normalizers.NFKC()
    other.save(str(tmp_path / "nfkc.json"))
    encoder = BatchEncoder(tmp_path / "nfkc.json")
    assert encoder.reason.startswith("fastokens does not take it (") and "\n" not in encoder.reason
    assert encoder.encode(["ﬁne"])[0].tolist() == other.encode("fine").ids
    text = write_jsonl(tmp_path / "a.jsonl", ["ﬁne"])
    command = ["corpus", "build", "--workers", "1", "--triples", "none", "--output", str(tmp_path / "out")]
    command += ["--input", str(text), "--tokenizer", str(tmp_path / "nfkc.json")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "nfkc.json: encoded by the tokenizers library, slowly: fastokens does not take it (" in result.output
    assert IndexedDataset(tmp_path / "out").get(0).tolist() == [*other.encode("fine").ids, 0]


@pytest.mark.parametrize("number", [0, 64])
def test_ids_that_differ_from_those_of_the_tokenizers_library_stop_the_build(small: Path, number: int) -> None:
    pytest.importorskip("fastokens", reason="the faster of two libraries; pip install fastokens")
    encoder = BatchEncoder(small)
    assert encoder.encode(["one", "two"], number)
    encoder._tokenizer.normalizer = normalizers.Replace("e", "o")  # stands for a mistake of either
    with pytest.raises(InputError, match="fastokens gives other ids than the tokenizers library; pip uninstall fast"):
        encoder.encode(["one", "two"], number)
    assert encoder.encode(["one", "two"], 63)


def test_an_end_of_document_that_would_be_encoded_in_a_text_is_refused(small: Path, tmp_path: Path) -> None:
    content = json.loads(small.read_text())
    for added in content["added_tokens"]:
        added["special"] = False
    (tmp_path / "plain.json").write_text(json.dumps(content))
    encoder = BatchEncoder(tmp_path / "plain.json")
    assert encoder.encode(["fine"])
    with pytest.raises(InputError, match=r'plain.json: <\|endoftext\|> in a text would end .* "special": true'):
        encoder.encode([f"a{EOD}b"])


@pytest.mark.parametrize("fault", ["bytes", "unknown", "dropout"])
def test_a_tokenizer_that_loses_text_or_is_random_is_refused_before_any_work(
    small: Path, tmp_path: Path, fault: str
) -> None:
    if fault == "dropout":
        content = json.loads(small.read_text())
        content["model"]["dropout"] = 0.1
        (tmp_path / "t.json").write_text(json.dumps(content))
        expected = "t.json: BPE dropout 0.1: ids would be random; set dropout to null"
    else:
        made = Tokenizer(models.BPE(unk_token="?" if fault == "unknown" else None))
        made.pre_tokenizer = None if fault == "unknown" else pre_tokenizers.ByteLevel()
        made.train_from_iterator(sentences(50), trainers.BpeTrainer(special_tokens=[EOD, "?"], show_progress=False))
        made.save(str(tmp_path / "t.json"))
        expected = "it has neither ByteLevel nor" if fault == "unknown" else "of the 256 bytes have no token"
    write_jsonl(tmp_path / "a.jsonl", ["x"])
    command = ["corpus", "build", "--triples", "none", "--input", str(tmp_path / "a.jsonl")]
    command += ["--tokenizer", str(tmp_path / "t.json"), "--output", str(tmp_path / "o")]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.output.count("\n")) == (2, 1) and expected in result.output, result.output
    assert not list(tmp_path.glob("o*"))


# Decoding in batches


@settings(max_examples=200, deadline=None)
@given(documents=st.lists(st.lists(st.integers(0, 300), max_size=12), min_size=1, max_size=5))
@pytest.mark.parametrize("kind", ["byte-level", "other"])
def test_tokens_are_decoded_as_by_the_tokenizers_library_whatever_bytes_they_leave(
    small: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, documents: list[list[int]]
) -> None:
    plain = Tokenizer.from_file(str(small))
    plain.add_tokens(["naïve ★"])
    if kind == "other":
        plain.decoder = decoders.WordPiece()
    path = tmp_path_factory.mktemp("decoding") / "tokenizer.json"
    plain.save(str(path))
    documents = [[*documents[0], plain.token_to_id("naïve ★")], *documents[1:]]
    sizes = list(map(len, documents))
    ends = np.cumsum(sizes)
    decoder = BatchDecoder(path)
    texts = decoder.decode(np.concatenate(documents).astype(np.uint16), ends - sizes, ends)
    assert texts == plain.decode_batch(documents, skip_special_tokens=False)
    assert (decoder._table is None) == (kind == "other")


def test_a_tokenizer_whose_table_gives_another_text_is_decoded_by_the_tokenizers_library(small: Path) -> None:
    decoder = BatchDecoder(small)
    tokens, begins, ends = np.array([40, 41, 42]), np.array([0, 2]), np.array([2, 3])
    texts = decoder.decode(tokens, begins, ends, check=True)
    decoder._tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(texts[1], "another")])
    assert decoder.decode(tokens, begins, ends) == texts
    assert decoder.decode(tokens, begins, ends, check=True)[1] == "another"
    assert decoder.decode(tokens, begins, ends)[1] == "another"
