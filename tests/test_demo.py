"""A small demo, once, through the command; then the files that it left."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kisl_plugin.cli.main import main as kisl
from kisl_plugin.demo import Scale, choose_facts, docstrings
from kisl_plugin.errors import KislError
from kisl_plugin.hookspecs import Match
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.matching import matcher_of
from kisl_plugin.resources import resource
from kisl_plugin.runcard import read_run_card
from kisl_plugin.triples import read_triples

FREQUENCIES = (0, 2, 4)
SMALL = Scale(FREQUENCIES, 11, 3, 30, 300_000)


def run(*words: object) -> Result:
    return CliRunner().invoke(kisl, ["demo", "--quick", *map(str, words)])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    pytest.importorskip("lm_eval")
    out = tmp_path_factory.mktemp("demo") / "kisl-demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.demo.QUICK", SMALL)
        patch.setattr("torch.set_num_threads", lambda _: None)
        result = run("--out", out)
        assert result.exit_code == 0, result.output
        yield out, result


def test_the_demo_prints_what_was_measured_and_writes_the_fit_reports(demo: tuple[Path, Result]) -> None:
    out, result = demo
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    rows = [line.split() for line in lines if re.fullmatch(r"\d+ \d+% ([01]\.\d{3} ){3}\d+\.\d\d", line)]
    measured = {}
    for path in (out / "results").rglob("results_*.json"):
        results = json.loads(path.read_text())
        card = results["configs"]["kisl_wikidata"]["metadata"]["kisl"]
        measured[card["frequency"]] = round(results["results"]["kisl_wikidata"]["acc,none"], 3)
    assert {int(row[0]): float(row[2]) for row in rows} == measured
    assert sorted(measured) == list(FREQUENCIES)
    for task in ("kisl_wikidata", "kisl_wikidata_statement"):
        (curve,) = json.loads((out / "report" / task / "fit.json").read_text())["curves"]
        assert f"{curve['status']} ({out / 'report' / task / 'index.html'})" in result.output
        assert (out / "report" / task / "index.html").is_file()


def test_the_runs_differ_in_nothing_but_their_frequency(demo: tuple[Path, Result]) -> None:
    cards = [read_run_card(demo[0] / "runs" / f"f{f:03d}" / "hf") for f in FREQUENCIES]
    assert [card.frequency for card in cards] == list(FREQUENCIES)
    assert len({(c.seed, c.tokens, c.triples["sha256"], c.model["params"], c.train_iters) for c in cards}) == 1
    assert [c.injected_tokens for c in cards] == sorted(c.injected_tokens or 0 for c in cards)


def test_a_second_call_trains_and_probes_nothing_again(demo: tuple[Path, Result]) -> None:
    out, first = demo
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    results = sorted((out / "results").rglob("*.json"))
    (out / "data" / "counts.json").write_text("{cut")
    again = run("--out", out)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert sorted((out / "results").rglob("*.json")) == results
    assert "3 of 3 models are already probed" in again.output
    assert again.output.splitlines()[-8:-1] == first.output.splitlines()[-8:-1]


def test_the_data_alone_are_those_of_the_whole_demo_where_the_yamls_expect_them(
    demo: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = run("--only-data")
    assert alone.exit_code == 0, alone.output
    assert {path.name for path in Path("kisl-demo").iterdir()} == {"demo.json", "data"}
    for path in (demo[0] / "data").iterdir():
        assert (Path("kisl-demo/data") / path.name).read_bytes() == path.read_bytes()
    for name in ("demo.yml", "tiny_f10.yml"):
        values = yaml.safe_load((resource("neox_configs") / name).read_text(encoding="utf-8"))
        for key, value in (
            ("vocab_file", values["vocab_file"]),
            ("data_path", values["data_path"]),
            ("kisl.triples", values["kisl"]["triples"]),
        ):
            assert re.search(rf"^{key} +{value}$", alone.output, re.MULTILINE)


def test_a_demo_of_another_seed_does_not_mix_with_this_one(demo: tuple[Path, Result]) -> None:
    facts = (demo[0] / "data" / "facts.jsonl").read_bytes()
    other = run("--seed", 5, "--out", demo[0])
    assert other.exit_code == 2
    assert "contains a demo with seed = 1234, expected 5; choose another --out" in other.output
    assert (demo[0] / "data" / "facts.jsonl").read_bytes() == facts


def test_the_background_states_none_of_the_facts(demo: tuple[Path, Result]) -> None:
    from tokenizers import Tokenizer

    data = demo[0] / "data"
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    corpus = IndexedDataset(data / "text_document")
    matcher = matcher_of(read_triples(data / "facts.jsonl"))
    texts = [tokenizer.decode(corpus.get(i)[:-1].tolist()) for i in range(len(corpus))]
    assert not any(matcher(texts))
    assert all("\n" in text for text in texts)
    assert len(set(texts)) == len(texts)


def test_documents_that_state_a_fact_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sympy")
    kept, left_out = docstrings(
        100_000, lambda texts: [[Match(0, "array")] if "array" in text else [] for text in texts]
    )
    assert left_out > 0
    assert not any("array" in text for text in kept)
    assert sum(map(len, kept)) >= 100_000
    monkeypatch.setattr("kisl_plugin.demo.PACKAGES", ("pluggy", "no_such_package"))
    with pytest.raises(KislError, match=r"contain [\d,]+ characters of docstrings; the demo needs 10,000,000"):
        docstrings(10_000_000, lambda texts: [[] for _ in texts])


def test_every_object_of_the_demo_is_stated_equally_often() -> None:
    facts = choose_facts(read_triples("wikidata_six"), objects=11, injected=3, control=1, seed=1)
    counts = Counter((t.relation_id, t.object, t.group) for t in facts)
    assert len(counts) == 6 * 11 * 2
    assert all(count == (1 if group == "control" else 3) for (_, _, group), count in counts.items())
    assert facts != choose_facts(read_triples("wikidata_six"), objects=11, injected=3, control=1, seed=2)


def test_importing_the_demo_does_not_import_torch() -> None:
    program = "import sys, kisl_plugin.demo; print([m for m in ('torch', 'lm_eval', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
