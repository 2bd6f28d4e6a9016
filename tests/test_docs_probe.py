"""docs/probe.md names what exists, its arithmetic is right, and its worked item is scored as lm_eval scores it."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from probe_world import ask, plain_model, some_triples, write_card

from kisl_plugin.probe.items import MEASURES, all_names, read_probe
from kisl_plugin.resources import resource
from kisl_plugin.triples import read_triples

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "probe.md"
if not PAGE.is_file():
    pytest.skip("the page and the benchmarks are in a checkout only", allow_module_level=True)
sys.path.append(str(ROOT / "benchmarks"))

NUMBER = r"-?\d+\.\d{4}"
OPTION = re.compile(rf"^(.+?) +(\d+) +({NUMBER}) +({NUMBER}) +({NUMBER}) +({NUMBER}) +(yes|no)$", re.MULTILINE)
TOKENS = re.compile(rf"^ {{3}}\S.*\|{NUMBER}$", re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> set[str]:
    """The names in code font in the first column of a table."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def test_the_page_lists_every_task_of_the_group(page: str) -> None:
    folder = resource("tasks") / "kisl_wikidata"
    tasks = {yaml.load(file.read_text(), yaml.BaseLoader)["task"] for file in folder.glob("kisl_*.yaml")}
    assert first_cells(section(page, "What is asked")) == tasks
    assert tasks == set(yaml.safe_load((folder / "kisl.yaml").read_text())["task"])
    assert set(re.findall(r"kisl_(?:wikidata|background)\w*", page)) == tasks


def test_the_page_lists_every_metric_and_no_other(page: str) -> None:
    text = section(page, "What is computed")
    assert first_cells(text) == set(MEASURES)
    named = set(re.findall(r"`((?:acc|margin|relation_acc)_\w+)`", text))
    assert {"acc_control", "relation_acc_P19"} <= named <= set(all_names(["P19"], []))


def test_the_metadata_that_the_page_passes_is_read(page: str, tmp_path: Path) -> None:
    from kisl_plugin.probe.background import read_passages

    write_card(tmp_path, some_triples())
    text = tmp_path / "held_out.txt"
    text.write_text("One passage.")
    assert set(re.findall(r"--metadata '{\"(\w+)\"", page)) == {"triples", "run_card", "background"}
    own = str(tmp_path / "kisl_triples.jsonl")
    assert len(read_probe("question", {"triples": own}).items) == len(some_triples())
    assert read_probe("question", {"run_card": str(tmp_path / "kisl.json")}).card
    assert read_passages({"background": str(text)}).texts == ("One passage.",)


def test_the_bundled_facts_are_as_many_as_the_page_says(page: str) -> None:
    triples = read_triples("wikidata_six")
    assert f"`wikidata_six`: {len(triples):,} triples of six relations" in page
    assert len({triple.relation_id for triple in triples}) == 6


def test_the_worked_item_adds_up(page: str) -> None:
    text = section(page, "One item by hand")
    rows, lines = OPTION.findall(text), TOKENS.findall(text)
    assert len(rows) == len(lines) == 4
    for (name, tokens, *numbers, greedy), line in zip(rows, lines, strict=True):
        total, nats, perplexity, per_byte = map(float, numbers)
        logprobs = [float(number) for number in re.findall(rf"\|({NUMBER})", line)]
        spelled = "".join(re.findall(rf"  (\s*\S+)\|{NUMBER}", line))
        label = name.removesuffix(" (right)")
        assert spelled == f" {label}" and len(logprobs) == int(tokens) and greedy == "no"
        assert total == pytest.approx(sum(logprobs), abs=1e-3)
        assert nats == pytest.approx(total / len(logprobs), abs=1e-4)
        assert math.log(perplexity) == pytest.approx(-nats, abs=1e-4)
        assert per_byte == pytest.approx(total / len(label.encode()), abs=1e-4)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_item_by_hand_is_scored_as_lm_eval_scores_it(
    adds_bos: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    import one_item

    model = plain_model(tmp_path, adds_bos=adds_bos)
    write_card(model, some_triples())
    results = ask(model)
    for row in results["samples"]["kisl_wikidata"][:3]:
        monkeypatch.setattr(sys, "argv", ["one_item.py", str(model), row["doc"]["subject"]])
        one_item.main()
        check_printed(capsys.readouterr().out, row)


def check_printed(printed: str, row: dict[str, Any]) -> None:
    """Every printed digit is that of lm_eval's row, but for a last one on the edge of rounding."""
    doc = row["doc"]
    rows = OPTION.findall(printed)
    assert [name.removesuffix(" (right)") for name, *_ in rows] == doc["options"]
    for (_, tokens, total, _, perplexity, _, greedy), (nats, is_greedy, count), own in zip(
        rows, row["filtered_resps"], doc["perplexities"], strict=True
    ):
        assert (int(tokens), greedy == "yes") == (count, is_greedy)
        assert float(total) == pytest.approx(nats, abs=1.1e-4)
        assert float(perplexity) == pytest.approx(own, rel=1e-4, abs=1.1e-4)
    margin = row["margin" if "margin" in row else "margin_control"]
    assert f"lowest perplexity: {doc['options'][doc['choice']]};" in printed
    assert float(re.findall(rf"margin: ({NUMBER})", printed)[0]) == pytest.approx(margin, abs=1.1e-4)


def test_the_rows_and_results_have_what_the_page_names(page: str, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    model = plain_model(tmp_path)
    write_card(model, some_triples())
    results = ask(model, limit=2)
    (row, _) = results["samples"]["kisl_wikidata"]
    listed = re.search(r"each row's `doc` has (.+?) and `choice`", page, re.DOTALL)
    assert listed is not None
    assert {*re.findall(r"`(\w+)`", listed[1]), "choice"} == set(row["doc"])
    metadata = results["configs"]["kisl_wikidata"]["metadata"]
    assert "kisl" in metadata and {"backend", "dtype"} <= set(metadata["kisl_probe"])
