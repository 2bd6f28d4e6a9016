"""The preview against a whole count: what it estimates, that it writes nothing, and what it says."""

import json
import re
from pathlib import Path

import pytest
from corpus_builds import EMPTY, NOT_STATING, STATING, World, make_world
from corpus_files import read_all, write_jsonl, write_parquet
from scipy.stats import norm
from tiny_world import sentences

from kisl_plugin.corpus import preview as previews
from kisl_plugin.corpus.build import Build
from kisl_plugin.corpus.preview import preview
from kisl_plugin.errors import InputError


def asked(world: World) -> Build:
    return Build([world.text], str(world.facts), world.tokenizer, world.folder / "out")


def test_a_sample_that_is_everything_counts_what_the_build_removes(tmp_path: Path) -> None:
    files = [[*STATING, *sentences(5, seed=n), *EMPTY, *NOT_STATING] for n in range(4)]
    world = make_world(tmp_path, files)
    seen = preview(asked(world), 1000)
    made = world.build()
    assert (seen.documents, seen.empty) == (made.documents + made.left_out, made.empty)
    assert (seen.removed.documents, dict(seen.removed.relations)) == (made.left_out, made.relations)
    assert (seen.tokens, seen.pieces, seen.all_pieces) == (made.tokens, 4, 4)
    assert seen.unsearchable == made.unsearchable == 1
    assert seen.kept < seen.text
    assert seen.labels["marie curie"] == 8 and seen.labels["poland"] == 8
    share, low, high = seen.share()
    assert share == 16 / 52
    # Wilson's interval holds the shares from which the count is within 1.96 standard errors.
    for bound in (low, high):
        assert abs(share - bound) == pytest.approx(norm.ppf(0.975) * (bound * (1 - bound) / 52) ** 0.5)


def test_a_sample_is_spread_over_all_pieces_by_their_size_and_is_the_same_every_time(tmp_path: Path) -> None:
    world = make_world(tmp_path, [])
    for n, count in enumerate((40, 80, 120)):
        write_jsonl(world.text / f"{n}.jsonl", sentences(count, seed=7))
    write_parquet(world.text / "3.parquet", sentences(240, seed=7), rows=10)
    first, second = preview(asked(world), 60), preview(asked(world), 60)
    assert 55 <= first.documents <= 62
    assert (first.documents, first.text, first.tokens) == (second.documents, second.text, second.tokens)
    assert (first.pieces, first.all_pieces) == (4, 4)
    assert first.hours(2) == pytest.approx(first.hours(1) / 2)
    assert first.hours(100) == pytest.approx(first.hours(4))
    made = world.build()
    assert first.all_tokens == pytest.approx(made.tokens, rel=0.2)


def test_what_stands_beside_the_text_in_a_row_is_not_taken_for_text(tmp_path: Path) -> None:
    world = make_world(tmp_path, [])
    rows = ({"text": text, "meta": "nothing to read " * 50} for text in (*STATING, *sentences(300)))
    (world.text / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    write_parquet(world.text / "b.parquet", sentences(300), rows=300)
    seen = preview(asked(world), 200)
    assert seen.all_tokens == pytest.approx(world.build().tokens, rel=0.15)
    assert seen.all_text == pytest.approx(sum(one.size for one in read_all(world.text)), rel=0.15)


def test_of_many_pieces_some_are_taken_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, [sentences(3, seed=n) for n in range(10)])
    monkeypatch.setattr(previews, "MOST_PIECES", 4)
    read: list[str] = []
    real = previews.read_piece
    monkeypatch.setattr(previews, "read_piece", lambda piece: read.append(Path(piece.file).name[:2]) or real(piece))
    seen = preview(asked(world), 100)
    assert read == ["00", "02", "05", "07"]
    assert (seen.pieces, seen.all_pieces, seen.documents) == (4, 10, 12)


def test_of_a_parquet_file_no_more_row_groups_are_read_than_the_sample_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, [])
    write_parquet(world.text / "a.parquet", sentences(100), rows=10)
    groups: list[tuple[int | None, int | None]] = []
    real = previews.read_piece
    monkeypatch.setattr(previews, "read_piece", lambda piece: groups.append((piece.start, piece.stop)) or real(piece))
    assert preview(asked(world), 25).documents == 25
    assert groups == [(0, 1), (1, 2), (2, 3)]


def test_the_command_says_what_would_be_lost_and_writes_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path, [[*STATING, *NOT_STATING * 9] for _ in range(3)])
    there = sorted(tmp_path.rglob("*"))
    result = world.kisl("out", "--preview")
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.rglob("*")) == there
    said = result.stdout
    assert result.stderr.splitlines()[-1].startswith("looking at a sample, documents 120/120 ")
    assert re.search(
        r"^120 documents \(0.0 MB of text\) from the beginnings of 3 of 3 pieces; .*out is not touched", said
    )
    assert re.search(
        r"removed   10.00% of the documents, 95% interval 5.\d+% to 16.\d+% \(Wilson\), and \d+.\d+% of", said
    )
    assert "documents of one file are alike, so the truth may lie further off than the interval says" in said
    assert re.search(r"by relation      9  7.50%  P19\n                 6  5.00%  P50\n", said)
    assert re.search(r"by triple        6  5.00%  \S+ \S+ · P\d+ · ", said)
    assert re.search(r"by label         6  5.00%  ", said)
    assert re.search(r"tokens    0.\d+ a byte of kept text; about [\d,.]+ tokens left of about 0 MB of text\n", said)
    assert re.search(r"time      [\d.]+ MB/s in one process; about 0s with 1 worker\n", said)
    assert "triples   1 cannot be searched for, or not everywhere" in said
    assert world.kisl("out", "--preview", "12").stdout.startswith("12 documents")


def test_a_build_that_runs_can_be_looked_ahead_of(tmp_path: Path) -> None:
    world = make_world(tmp_path, [sentences(4)])
    world.build()
    before = json.loads((tmp_path / "out.json").read_text())
    assert world.kisl("out", "--preview", "2").exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text()) == before


def test_a_sample_without_any_text_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path, [list(EMPTY)])
    with pytest.raises(InputError, match="no document in the sample holds any text"):
        preview(asked(world), 10)
