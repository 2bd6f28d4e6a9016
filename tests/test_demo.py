"""The quick demo, once, through the command; then what it left behind."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from kisl_plugin.cli.fit import main as fit_command
from kisl_plugin.cli.main import main as kisl
from kisl_plugin.demo import choose_facts, docstrings
from kisl_plugin.errors import KislError
from kisl_plugin.hookspecs import Match
from kisl_plugin.matching import matcher_of
from kisl_plugin.resources import resource
from kisl_plugin.runcard import read_run_card
from kisl_plugin.triples import read_triples

FREQUENCIES = (0, 4, 8, 12, 16)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("demo") / "kisl-demo"
    result = CliRunner().invoke(kisl, ["demo", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out, result


def test_the_demo_prints_what_was_measured(demo: tuple[Path, Result]) -> None:
    out, result = demo
    lines = [line.split() for line in result.output.splitlines()]
    table = {
        int(line[0]): line for line in lines if re.fullmatch(r"\d+ \d+% ([01]\.\d{3} ){3}\d+\.\d\d", " ".join(line))
    }
    assert sorted(table) == list(FREQUENCIES)
    results = [json.loads(path.read_text()) for path in (out / "results").rglob("results_*.json")]
    measured = {
        entry["configs"]["kisl_wikidata"]["metadata"]["kisl"]["frequency"]: entry["results"]["kisl_wikidata"][
            "acc,none"
        ]
        for entry in results
    }
    assert {f: float(line[2]) for f, line in table.items()} == {f: round(acc, 3) for f, acc in measured.items()}
    assert "no infusion law: it takes 3 models" in result.output
    assert "statement" in result.output


def test_the_runs_differ_in_nothing_but_their_frequency(demo: tuple[Path, Result]) -> None:
    cards = [read_run_card(demo[0] / "runs" / f"f{f:03d}" / "hf") for f in FREQUENCIES]
    assert [card.frequency for card in cards] == list(FREQUENCIES)
    assert len({(c.seed, c.tokens, c.triples["sha256"], c.model["params"], c.train_iters) for c in cards}) == 1
    assert [c.injected_tokens for c in cards] == sorted(c.injected_tokens or 0 for c in cards)


def test_a_second_call_trains_and_probes_nothing_again(demo: tuple[Path, Result]) -> None:
    out, first = demo
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    results = sorted((out / "results").rglob("*.json"))
    (out / "data" / "prepared.json").write_text("{cut")
    again = CliRunner().invoke(kisl, ["demo", "--quick", "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert sorted((out / "results").rglob("*.json")) == results
    assert "5 of 5 models are probed already" in again.output
    assert again.output.splitlines()[-8:-1] == first.output.splitlines()[-8:-1]


def test_the_data_alone_are_those_of_the_whole_demo_and_the_yamls_that_read_them_are_named(
    demo: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = CliRunner().invoke(kisl, ["demo", "--quick", "--only-data"])
    assert alone.exit_code == 0, alone.output
    assert {path.name for path in Path("kisl-demo").iterdir()} == {"demo.json", "data"}
    for path in (demo[0] / "data").iterdir():
        assert (Path("kisl-demo/data") / path.name).read_bytes() == path.read_bytes()
    assert re.search(r"read by .*neox_configs/demo\.yml", alone.output)
    values = yaml.safe_load((resource("neox_configs") / "demo.yml").read_text(encoding="utf-8"))
    for key in ("vocab_file", "data_path"):
        assert re.search(rf"^{key} +{values[key]}$", alone.output, re.MULTILINE)
    elsewhere = CliRunner().invoke(kisl, ["demo", "--quick", "--only-data", "--out", str(demo[0])])
    assert "no YAML of neox_configs reads these paths" in elsewhere.output
    assert CliRunner().invoke(kisl, ["demo", "--only-data"]).exit_code == 2


def test_a_demo_of_another_seed_does_not_mix_with_this_one(demo: tuple[Path, Result]) -> None:
    facts = (demo[0] / "data" / "facts.jsonl").read_bytes()
    other = CliRunner().invoke(kisl, ["demo", "--quick", "--seed", "5", "--out", str(demo[0])])
    assert other.exit_code == 2
    assert "holds a demo with seed = 1234, asked is 5; choose another --out" in other.output
    assert (demo[0] / "data" / "facts.jsonl").read_bytes() == facts


def test_kisl_fit_reads_the_demos_results(demo: tuple[Path, Result], tmp_path: Path) -> None:
    result = CliRunner().invoke(fit_command, [str(demo[0] / "results"), "--out", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    fit = json.loads((tmp_path / "report" / "fit.json").read_text())
    (curve,) = fit["curves"]
    assert curve["params"] == read_run_card(demo[0] / "runs" / "f004" / "hf").model["params"]
    assert fit["set_aside"] == []
    assert 0.1 < curve["floor"] < 0.45


def test_the_page_is_one_file_with_its_figures(demo: tuple[Path, Result]) -> None:
    page = (demo[0] / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<tr>") == 1 + len(FREQUENCIES)
    assert (demo[0] / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_the_background_states_none_of_the_facts(demo: tuple[Path, Result]) -> None:
    from tokenizers import Tokenizer

    from kisl_plugin.indexed import IndexedDataset

    data = demo[0] / "data"
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    corpus = IndexedDataset(data / "text_document")
    matcher = matcher_of(read_triples(data / "facts.jsonl"))
    texts = [tokenizer.decode(corpus.get(i)[:-1].tolist()) for i in range(len(corpus))]
    assert not any(matcher(texts))
    assert all("\n" in text for text in texts)
    assert len(set(texts)) == len(texts)


def test_documents_that_state_a_fact_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, none = docstrings(200_000, matcher_of([]))
    assert none == 0
    kept, left_out = docstrings(
        200_000, lambda texts: [[Match(0, "array")] if "array" in text else [] for text in texts]
    )
    assert left_out > 0
    assert not any("array" in text for text in kept)
    assert sum(map(len, plain)) >= 200_000
    monkeypatch.setattr("kisl_plugin.demo.PACKAGES", ("matplotlib", "no_such_package"))
    with pytest.raises(KislError, match=r"hold \d,\d{3},\d{3} characters of docstrings; the demo needs 10,000,000,000"):
        docstrings(10_000_000_000, matcher_of([]))


def test_every_object_of_the_demo_is_stated_equally_often() -> None:
    facts = choose_facts(read_triples("wikidata_six"), objects=11, injected=3, control=1, seed=1)
    counts = Counter((t.relation_id, t.object, t.group) for t in facts)
    assert len(counts) == 6 * 11 * 2
    assert all(count == (1 if group == "control" else 3) for (_, _, group), count in counts.items())
    assert facts != choose_facts(read_triples("wikidata_six"), objects=11, injected=3, control=1, seed=2)
