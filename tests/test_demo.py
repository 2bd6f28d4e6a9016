"""A small demo, once, through the command; then the files that it left."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from kisl_plugin.cli.main import main as kisl
from kisl_plugin.demo_data import FULL, QUICK, Scale, choose_facts, docstrings
from kisl_plugin.errors import KislError
from kisl_plugin.files import resource
from kisl_plugin.hookspecs import Match
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.local.config import read_config
from kisl_plugin.local.data import read_data
from kisl_plugin.matching import matcher_of
from kisl_plugin.runcard import RunCard, read_run_card
from kisl_plugin.triples import Triple, read_triples
from kisl_plugin.verbalize import question, statement

FREQUENCIES = (0, 1, 4)
SMALL = Scale(FREQUENCIES, 2, 30, 60_000, 4, 3)
ROW = re.compile(r"(\d+)( \*)? +(\d+)% +" + r"([01]\.\d{3}) +" * 4 + r"(\d+\.\d) +(\d+\.\d\d)")


def run(*words: object) -> Result:
    return CliRunner().invoke(kisl, ["demo", "--quick", *map(str, words)])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    pytest.importorskip("lm_eval")
    out = tmp_path_factory.mktemp("demo") / "kisl-demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kisl_plugin.demo_data.QUICK", SMALL)
        result = run("--out", out)
        assert result.exit_code == 0, result.output
        yield out, result


def cards(out: Path) -> list[tuple[Path, RunCard]]:
    found = [(folder.parent, read_run_card(folder)) for folder in out.glob("runs/*/hf")]
    return sorted(found, key=lambda pair: (pair[1].frequency or 0, pair[1].seed))


def accuracies(out: Path, task: str, metric: str) -> dict[int, float]:
    """The mean over seeds of what lm_eval wrote, at each frequency."""
    values: dict[int, list[float]] = {}
    for path in out.rglob("results_*.json"):
        results = json.loads(path.read_text())
        frequency = results["configs"][task]["metadata"]["kisl"]["frequency"]
        values.setdefault(frequency, []).append(results["results"][task][f"{metric},none"])
    return {frequency: sum(of_seeds) / len(of_seeds) for frequency, of_seeds in values.items()}


def test_the_table_holds_what_lm_eval_measured_at_every_frequency(demo: tuple[Path, Result]) -> None:
    out, result = demo
    rows = [match.groups() for match in map(ROW.fullmatch, map(str.strip, result.output.splitlines())) if match]
    swept = {int(row[0]): row for row in rows if not row[1]}
    assert sorted(swept) == list(FREQUENCIES)
    columns = (
        ("kisl_wikidata_direct", "acc"),
        ("kisl_wikidata_statement", "acc"),
        ("kisl_wikidata_direct", "acc_control"),
    )
    for column, (task, metric) in enumerate(columns, start=3):
        expected = accuracies(out / "results", task, metric)
        assert {frequency: float(row[column]) for frequency, row in swept.items()} == pytest.approx(expected, abs=6e-4)
        (kept,) = (row for row in rows if row[1])
        assert float(kept[column]) == pytest.approx(accuracies(out / "kept", task, metric)[FREQUENCIES[-1]], abs=6e-4)


def test_the_page_is_that_of_the_fit_with_the_table_and_the_sentences_in_one_section_more(
    demo: tuple[Path, Result],
) -> None:
    out, result = demo
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<h2>What was measured, and why</h2>") == 1
    assert "Asked as questions: No collapse point is shown" in page
    assert page.count("<h2>Collapse curves</h2>") == 1
    assert "With this seed a fall is not shown beyond chance" in result.output
    for folder, task in (("report", "direct"), ("report/statement", "statement")):
        fit = json.loads((out / folder / "fit.json").read_text())
        assert fit["task"] == f"kisl_wikidata_{task}"
        (curve,) = fit["curves"]
        assert [point["frequency"] for point in curve["points"]] == list(FREQUENCIES[1:])


def test_the_runs_differ_in_nothing_but_their_frequency_and_seed(demo: tuple[Path, Result]) -> None:
    swept = [card for _, card in cards(demo[0])]
    assert [card.frequency for card in swept] == [f for f in FREQUENCIES for _ in range(SMALL.seeds)]
    assert [card.seed for card in swept] == [1234, 1235] * len(FREQUENCIES)
    assert len({(c.tokens, c.triples["sha256"], c.model["params"], c.train_iters) for c in swept}) == 1


def test_the_run_that_keeps_the_questions_has_the_same_statements_in_three_times_the_tokens(
    demo: tuple[Path, Result],
) -> None:
    ((_, card),) = cards(demo[0] / "kept")
    (_, displaced) = cards(demo[0])[-1]
    assert (card.frequency, card.injected_tokens) == (FREQUENCIES[-1], displaced.injected_tokens)
    assert card.tokens == 3 * displaced.tokens


def test_whole_questions_are_those_that_the_rows_hold_up_to_their_separator(demo: tuple[Path, Result]) -> None:
    out, result = demo
    facts = read_triples(out / "data" / "background_facts.jsonl")
    texts = {f"{question(fact, 1)} {fact.object}" for fact in facts}
    shown = {
        int(m[1]): float(m[8]) for m in map(ROW.fullmatch, map(str.strip, result.output.splitlines())) if m and not m[2]
    }
    counted = {}
    for folder, card in cards(out):
        data = read_data(read_config([out / "configs" / f"{folder.name}.yml"]))
        rows = [
            data.tokenizer.decode(data.train[i]["text"].tolist(), skip_special_tokens=False)
            for i in range(card.samples)
        ]
        pieces = Counter(piece for row in rows for piece in row.split("<|endoftext|>")[:-1])
        counted.setdefault(card.frequency, sum(pieces[text] for text in texts) / len(facts))
    assert shown == pytest.approx(counted, abs=0.051)
    assert counted[0] > counted[FREQUENCIES[-1]] > 0


def test_a_second_call_trains_and_probes_nothing_again(demo: tuple[Path, Result]) -> None:
    out, first = demo
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    results = [sorted((out / name).rglob("results_*.json")) for name in ("results", "kept")]
    (out / "data" / "counts.json").write_text("{cut")
    again = run("--out", out)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert len(before) == len(FREQUENCIES) * SMALL.seeds + 1
    assert [sorted((out / name).rglob("results_*.json")) for name in ("results", "kept")] == results
    assert again.output.splitlines()[-10:-1] == first.output.splitlines()[-10:-1]


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


def test_the_background_states_and_asks_other_facts_as_often_as_it_says_and_none_under_test(
    demo: tuple[Path, Result],
) -> None:
    from tokenizers import Tokenizer

    data = demo[0] / "data"
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    corpus = IndexedDataset(data / "text_document")
    texts = Counter(tokenizer.decode(corpus.get(i)[:-1].tolist()) for i in range(len(corpus)))
    for fact in read_triples(data / "background_facts.jsonl"):
        assert texts.pop(statement(fact)) == SMALL.statement_copies
        assert texts.pop(f"{question(fact, 1)} {fact.object}") == SMALL.question_copies
    assert set(texts.values()) == {1}
    assert all("\n" in text for text in texts)
    matcher = matcher_of(read_triples(data / "facts.jsonl"))
    assert not any(matcher([tokenizer.decode(corpus.get(i)[:-1].tolist()) for i in range(len(corpus))]))


def test_what_is_held_out_are_docstrings(demo: tuple[Path, Result]) -> None:
    (folder, _), *_ = cards(demo[0])
    data = read_data(read_config([demo[0] / "configs" / f"{folder.name}.yml"]))
    assert data.valid is not None
    held_out = [data.tokenizer.decode(data.corpus.get(i)[:-1].tolist()) for i in np.unique(data.valid.doc_idx)]
    assert held_out
    assert all("\n" in text for text in held_out)


def test_documents_that_state_a_fact_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sympy")
    kept, left_out = docstrings(
        100_000, lambda texts: [[Match(0, "array")] if "array" in text else [] for text in texts]
    )
    assert left_out > 0
    assert not any("array" in text for text in kept)
    assert sum(map(len, kept)) >= 100_000
    monkeypatch.setattr("kisl_plugin.demo_data.PACKAGES", ("pluggy", "no_such_package"))
    with pytest.raises(KislError, match=r"contain [\d,]+ characters of docstrings; the demo needs 10,000,000"):
        docstrings(10_000_000, lambda texts: [[] for _ in texts])


def identities(triples: list[Triple]) -> set[tuple[str, str]]:
    return {(triple.subject_id, triple.relation_id) for triple in triples}


def test_every_object_is_stated_equally_often_and_has_one_other_fact_for_the_background() -> None:
    triples = read_triples("wikidata_six")
    facts, others = choose_facts(triples, objects=11, injected=3, seed=1)
    counts = Counter((t.relation_id, t.object, t.group) for t in facts)
    assert len(counts) == 6 * 11 * 2
    assert all(count == (1 if group == "control" else 3) for (_, _, group), count in counts.items())
    assert Counter((t.relation_id, t.object) for t in others) == Counter({(r, o): 1 for r, o, _ in counts})
    assert not identities(facts) & identities(others)
    assert not {t.subject for t in facts} & {t.subject for t in others}
    assert others != choose_facts(triples, objects=11, injected=3, seed=2)[1]


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_a_demos_frequencies_begin_with_none_and_end_near_the_whole_run(scale: Scale) -> None:
    assert scale.frequencies[0] == 0
    assert list(scale.frequencies) == sorted(scale.frequencies)
    statements = 6 * scale.objects * scale.injected * scale.frequencies[-1]
    assert 0.8 < statements * 8.9 / (scale.train_iters * 8 * 64) < 0.95  # 7.9 tokens and a separator each
    if scale is FULL:
        assert len(scale.frequencies) >= 7
        assert scale.seeds >= 2
    assert asdict(scale)["frequencies"] == scale.frequencies
