"""A sweep with all that can be measured: seeds, samples, a background, a model that never falls."""

import csv
import json
from pathlib import Path

import pytest
from fit_files import write_sweep
from fit_studies import write_full_sweep

from kisl_plugin.fit import fit_results, write_report


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with three seeds, samples and a background; one that never falls, with results alone."""
    folder = tmp_path_factory.mktemp("full")
    write_full_sweep(folder / "in" / "rich", 300.0)
    write_sweep(folder / "in" / "poor", 1e6, tokens=10_000_000_000)
    write_report(fit_results([folder / "in"]), folder / "report")
    return folder / "report"


def test_all_that_was_measured_is_in_fit_json(full: Path) -> None:
    curve, poor = json.loads((full / "fit.json").read_text())["curves"]
    assert (poor["paired"], poor["by_sum"], poor["background"], poor["relations"]) == (False, [], [], {})
    assert curve["paired"] is True
    assert "paired over 600 triples" in curve["notes"]
    assert (curve["tau_source"], len(curve["runs"]), curve["seeds"]) == ("seeds", 21, [1, 2, 3])
    for key in ("tau", "form_p", "fall_p", "unimodal_p", "largest_fall", "interval_method", "deviance"):
        assert curve[key] is not None, key
    points = {point["frequency"]: point for point in curve["points"]}
    for frequency, point in points.items():
        runs = [run for run in curve["runs"] if run["frequency"] == frequency]
        assert (point["correct"], point["total"]) == (sum(run["correct"] for run in runs), 1800)
        relations = [entry for at in curve["relations"].values() for entry in at if entry["frequency"] == frequency]
        assert sum(entry["correct"] for entry in relations) == point["correct"]
        (by_sum,) = [entry for entry in curve["by_sum"] if entry["frequency"] == frequency]
        assert by_sum["correct"] == sum(run["by_sum"] for run in runs)
    background = {entry["frequency"]: entry for entry in curve["background"]}
    assert set(background) == {0, *points}
    assert background[2000]["runs"] == 3
    assert background[2000]["bits_per_byte"] - background[0]["bits_per_byte"] == pytest.approx(0.4, abs=0.03)


def test_curves_csv_has_a_row_per_curve_with_what_fit_json_says(full: Path) -> None:
    entries = json.loads((full / "fit.json").read_text())["curves"]
    with (full / "curves.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(entries)
    for row, entry in zip(rows, entries, strict=True):
        for key in ("params", "tokens", "status", "f_star", "peak", "b", "tau", "fall_p"):
            assert row[key] == ("" if entry[key] is None else str(entry[key]))
        assert row["f_star_low"] == ("" if entry["f_star"] is None else str(entry["f_star_interval"][0]))
        assert int(row["runs"]) == len(entry["runs"])


def test_the_page_of_a_full_sweep_shows_seeds_relations_and_cost(full: Path) -> None:
    page = (full / "index.html").read_text(encoding="utf-8")
    for said in (
        "single runs",
        "by sum",
        "bits per byte",
        "Per relation",
        "P19 place of birth",
        "&lt;b&gt;P1&lt;/b&gt;",
    ):
        assert said in page, said
    assert "<b>" not in page
