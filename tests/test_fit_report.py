"""What is assembled from observations, and the files of the report folder."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fit_files import results, run_card, with_metrics, write, write_sweep
from fit_studies import write_full_sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.fit import FitOptions, fit_results, write_report
from kisl_plugin.fit import text as human
from kisl_plugin.fit.collapse_points import Target
from kisl_plugin.fit.curve import wilson
from kisl_plugin.fit.report import CurveReport
from kisl_plugin.fit.text import OK_IF_RUNS_VARY, STATUS_HELP, curve_remarks, curve_table, render_report
from kisl_plugin.fit.writing import report_entries

SIZES = {137_000_000: 400.0, 300_000_000: 300.0, 562_000_000: 220.0, 1_050_000_000: 150.0}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sizes at one token budget with a collapse each; one size at another budget that never falls."""
    folder = tmp_path_factory.mktemp("study")
    for params, f_star in SIZES.items():
        write_sweep(folder / str(params), f_star, model={"params": params})
    write_sweep(folder / "more_tokens", 1e6, tokens=10_000_000_000)
    write(folder / "results_half.json", results(run_card(iteration=5)))
    return folder


@pytest.fixture(scope="module")
def written(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "report"
    write_report(fit_results([study]), out)
    return out


def test_fit_json_holds_what_was_found_and_null_where_nothing_was(written: Path) -> None:
    found = json.loads((written / "fit.json").read_text())
    assert found["schema"] == 1
    by_model = {(curve["params"], curve["tokens"]): curve for curve in found["curves"]}
    for params, truth in SIZES.items():
        curve = by_model[params, 2_600_000_000]
        low, high = curve["f_star_interval"]
        assert curve["status"] == "ok"
        assert low * 0.95 < truth < high * 1.05
        assert curve["f_star"] == pytest.approx(curve["b"] / curve["c"])
        assert curve["floor"] == pytest.approx(0.25, abs=0.04)
    without = by_model[137_000_000, 10_000_000_000]
    assert without["status"] == "no collapse up to F=2000"
    assert {without[key] for key in ("a", "b", "c", "f_star", "f_star_interval", "peak")} == {None}
    assert [aside["path"].endswith("results_half.json") for aside in found["set_aside"]] == [True]


def test_the_law_is_that_of_the_budget_with_most_sizes(written: Path) -> None:
    found = json.loads((written / "fit.json").read_text())
    law = found["law"]
    assert law["tokens"] == 2_600_000_000
    assert law["params"] == sorted(SIZES)
    assert [entry["tokens"] for entry in found["laws"]] == [2_600_000_000, 10_000_000_000]
    assert found["laws"][1]["A"] is None
    largest = next(curve for curve in found["curves"] if curve["params"] == 1_050_000_000)
    C = 6 * 1_050_000_000 * 2_600_000_000
    assert law["A"] / C ** law["alpha"] + law["E"] == pytest.approx(largest["f_star"], rel=0.1)


def test_every_observation_is_in_the_csv(written: Path, study: Path) -> None:
    with (written / "observations.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(fit_results([study]).observations) == 40
    assert all(0 <= int(row["correct"]) <= int(row["total"]) for row in rows)


def test_the_figures_are_drawn_at_the_width_of_a_column(written: Path) -> None:
    for name in ("curves.png", "law.png"):
        head = (written / name).read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") == 680


def test_the_table_keeps_to_80_columns_and_shows_no_collapse_point_that_was_not_found(study: Path) -> None:
    text = render_report(fit_results([study]))
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, table)) <= 80
    assert len(table) == 2 + 5
    (without,) = [line for line in table if " 10B " in line]
    assert without.endswith("no collapse up to F=2000")
    assert "results_half.json\n    unfinished run: iteration 5 of 1000" in text
    assert "R² = " in text
    assert "seeds: distinct seeds" in text
    assert max(map(len, text.splitlines())) <= 80


@given(
    sizes=st.lists(st.integers(1, 10**30), min_size=1, max_size=3),
    tokens=st.integers(1, 10**30),
    reach=st.tuples(st.integers(1, 10**15), st.integers(1, 10**15)),
    status=st.sampled_from(["ok", "ok", "no collapse up to F=1e+15", *STATUS_HELP]),
    f_star=st.floats(1e-6, 1e15),
    ends=st.tuples(st.none() | st.floats(1e-6, 1e15), st.none() | st.floats(1e-6, 1e15)),
    peak_ends=st.tuples(st.none() | st.floats(0, 1), st.none() | st.floats(0, 1)),
    many=st.sampled_from([0, 1, 1000]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_table_keeps_to_80_columns_whatever_it_holds(
    one_curve: CurveReport,
    sizes: list[int],
    tokens: int,
    reach: tuple[int, int],
    status: str,
    f_star: float,
    ends: tuple[float | None, float | None],
    peak_ends: tuple[float | None, float | None],
    many: int,
) -> None:
    told = {"f_star": f_star, "f_star_interval": ends, "peak": 0.5, "peak_interval": peak_ends}
    curve = replace(one_curve.curve, status=status, frequency_range=reach, **told)
    card = replace(one_curve.runs[0].card, train_seed=None)
    seeds = tuple(replace(one_curve.runs[0], card=replace(card, seed=i)) for i in range(many))
    hostile = replace(one_curve, tokens=tokens, curve=curve, runs=seeds)
    rows = [one_curve, *(replace(hostile, params=params) for params in sizes)]
    lines = curve_table(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 + len(rows)
    ending = {"ok": "", OK_IF_RUNS_VARY: "*"}.get(status, status)
    assert all(line.endswith(ending) for line in lines[3:])


@pytest.fixture(scope="module")
def one_curve(study: Path) -> CurveReport:
    return fit_results([study]).curves[0]


def test_the_floor_is_measured_by_the_runs_at_zero_of_the_same_model_and_tokens(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", 200.0, floor=0.25)
    write_sweep(tmp_path / "b", 200.0, floor=0.4, tokens=1_000_000_000)
    write_sweep(tmp_path / "c", 200.0, (10, 50, 100, 200, 500, 1000), tokens=3_000_000_000)
    floors = [found.floor for found in fit_results([tmp_path]).curves]
    assert floors[0].value == pytest.approx(0.4, abs=0.03)
    assert floors[1].value == pytest.approx(0.25, abs=0.03)
    assert floors[2].value == 0.3
    assert floors[2].source == "180 of 600 control triples right in 6 runs, ± 0.046, as there is no run at F = 0"
    assert {found.floor.value for found in fit_results([tmp_path], chance="0.3").curves} == {0.3}
    assert {found.floor.value for found in fit_results([tmp_path], chance="none").curves} == {0.0}


def test_idle_groups_are_not_the_floor_while_control_triples_stand_in_for_it(tmp_path: Path) -> None:
    groups = {name: {"frequency": F, "count": 100} for name, F in [("idle", 0), ("a", 10), ("b", 50)]}
    card = run_card(frequency=None, groups=groups)
    data = with_metrics(results(card), acc_idle=0.3, acc_a=0.5, acc_b=0.7, acc_control=0.3)
    write(tmp_path / "results_1.json", data)
    (found,) = fit_results([tmp_path]).curves
    assert (found.floor.value, found.floor.measured) == (0.3, False)
    assert found.floor.source.startswith("30 of 100 control triples right in 1 run")
    assert [point.frequency for point in found.points] == [10, 50]
    assert "idle" in found.notes[0]


def test_seeds_of_one_cell_are_summed(tmp_path: Path) -> None:
    for seed, acc in ((1, 0.5), (2, 0.75)):
        write(tmp_path / str(seed) / "results_1.json", results(run_card(seed=seed), acc))
    (found,) = fit_results([tmp_path]).curves
    assert [(point.correct, point.total) for point in found.points] == [(500, 800)]
    assert found.seeds == ((1, None), (2, None))
    assert found.curve.status == "too few points"


def test_a_run_with_another_training_seed_is_a_replicate(tmp_path: Path) -> None:
    for train_seed in (None, 7, 8, "odd"):
        write(tmp_path / str(train_seed) / "results_1.json", results(run_card(train_seed=train_seed)))
    (found,) = fit_results([tmp_path]).curves
    assert [(point.correct, point.total) for point in found.points] == [(800, 1600)]
    assert found.seeds == ((1, None), (1, 7), (1, 8))
    entry = report_entries(fit_results([tmp_path]))["curves"][0]
    assert (entry["seeds"], entry["train_seeds"]) == ([1], [7, 8])


def test_groups_of_one_run_that_share_a_frequency_are_one_run(tmp_path: Path) -> None:
    groups = {"a": {"frequency": 10, "count": 100}, "b": {"frequency": 10, "count": 300}}
    data = with_metrics(results(run_card(frequency=None, groups=groups)), acc_a=0.5, acc_b=0.25, acc_control=0.3)
    write(tmp_path / "1" / "results_1.json", data)
    more = {**groups, "b": {"frequency": 20, "count": 300}}
    data = with_metrics(results(run_card(frequency=None, groups=more, seed=2)), acc_a=0.5, acc_b=0.25, acc_control=0.3)
    write(tmp_path / "2" / "results_1.json", data)
    (found,) = fit_results([tmp_path]).curves
    assert [(run.frequency, run.correct, run.total) for run in found.runs] == [
        (10, 125, 400),
        (10, 50, 100),
        (20, 75, 300),
    ]
    # What the whole model does belongs to a frequency only where the run has one
    assert [run.control_total is not None for run in found.runs] == [True, False, False]


def test_runs_that_are_no_replicates_are_pointed_out(tmp_path: Path) -> None:
    for form in ("statement", "question"):
        write(tmp_path / form / "results_1.json", results(run_card(form=form, created=form)))
    (found,) = fit_results([tmp_path]).curves
    assert found.notes == ('its runs differ in form ("question", "statement"), so they are no replicates',)


GRID = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@pytest.mark.parametrize("controls", [True, False])
def test_without_runs_at_zero_a_four_option_task_still_has_its_collapse_point(tmp_path: Path, controls: bool) -> None:
    write_sweep(tmp_path, 300.0, GRID, items=3000)
    for file in [] if controls else tmp_path.rglob("*.json"):
        data = json.loads(file.read_text())
        del data["results"]["kisl_wikidata"]["acc_control,none"]
        write(file, data)
    (found,) = fit_results([tmp_path]).curves
    low, high = found.curve.f_star_interval
    assert found.curve.ok
    assert low is not None
    assert high is not None
    assert low < 300 < high
    assert ("control triples right" if controls else "one in 4 options") in found.floor.source


def test_a_floor_that_decides_the_verdict_is_said_first(tmp_path: Path) -> None:
    write_sweep(tmp_path, 300.0, (0, *GRID), items=3000)
    (none,) = fit_results([tmp_path], chance="none").curves
    assert none.curve.status != "ok"
    first = curve_remarks(none)[0]
    assert first.startswith("the verdict depends on the guessing floor: with 0.2") and "it is 'ok' (" in first
    (measured,) = fit_results([tmp_path]).curves
    assert not measured.floor_warning


@pytest.mark.parametrize(("right", "said"), [(0.3, True), (0.57, False), (0.7, False)])
def test_a_floor_above_every_run_is_pointed_out(tmp_path: Path, right: float, said: bool) -> None:
    for frequency, acc in ((0, 0.6), (10, right), (50, right), (100, right), (200, right)):
        write(tmp_path / str(frequency) / "results_1.json", results(run_card(frequency=frequency), acc))
    (found,) = fit_results([tmp_path]).curves
    assert any("every run is below the guessing floor" in note for note in found.notes) == said


def test_numbers_are_written_as_people_read_them() -> None:
    assert [human.count(n) for n in (137_000_000, 1_050_000_000, 999_900_000, 620_000, 12)] == [
        "137M",
        "1.05B",
        "1B",
        "620K",
        "12",
    ]
    assert [human.estimate(f) for f in (45.04, 410.2, 1234.0, 0.0, 2.4e-7)] == [
        "45.0",
        "410",
        "1230",
        "0.00",
        "2.4e-07",
    ]


def test_the_wilson_interval_solves_its_equation() -> None:
    low, high = wilson(30, 100)
    for end in (low, high):
        assert abs(0.3 - end) / math.sqrt(end * (1 - end) / 100) == pytest.approx(1.96, abs=1e-3)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == 1


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
    assert (poor["paired"], poor["background"]) == (False, [])
    assert curve["paired"] is True
    assert all(abs(run["residual"]) < 4 for run in curve["runs"])
    assert "paired over 600 triples" in curve["notes"]
    assert (curve["tau_source"], len(curve["runs"]), curve["seeds"]) == ("seeds", 21, [1, 2, 3])
    for key in ("tau", "form_p", "fall_p", "unimodal_p", "largest_fall", "interval_method", "deviance"):
        assert curve[key] is not None, key
    points = {point["frequency"]: point for point in curve["points"]}
    for frequency, point in points.items():
        runs = [run for run in curve["runs"] if run["frequency"] == frequency]
        assert (point["correct"], point["total"]) == (sum(run["correct"] for run in runs), 1800)
    background = {entry["frequency"]: entry for entry in curve["background"]}
    assert set(background) == {0, *points}
    assert background[2000]["runs"] == 3
    assert background[2000]["bits_per_byte"] - background[0]["bits_per_byte"] == pytest.approx(0.4, abs=0.03)


def test_the_page_of_a_full_sweep_shows_seeds_and_cost(full: Path) -> None:
    page = (full / "index.html").read_text(encoding="utf-8")
    assert "single runs" in page
    assert "bits per byte" in page


def test_the_printed_law_gives_f_star_of_a_far_model_to_a_thousandth_and_a_has_an_interval(tmp_path: Path) -> None:
    for params, f_star in SIZES.items():
        write_sweep(tmp_path / "in" / str(params), f_star, model={"params": params})
    report = fit_results([tmp_path / "in"])
    law = report.laws[0].law
    assert law is not None
    printed = " ".join(render_report(report).split())
    names = ("alpha", "E", "A")
    alpha, E, A = (float(re.search(rf"[^a-z]{name} = ([\d.e+]+)", printed)[1]) for name in names)  # type: ignore[index]
    C = 6 * 7e9 * 2.6e9
    assert A / C**alpha + E == pytest.approx(law.predict(C), rel=1e-3)
    low, high = law.A_interval
    assert low is not None
    assert low <= law.A <= (high or math.inf)


def test_along_a_ray_the_law_is_named_as_such(tmp_path: Path) -> None:
    for params, f_star in SIZES.items():
        card = {"model": {"params": params}, "tokens": 20 * params, "iteration": None}
        write_sweep(tmp_path / "in" / str(params), f_star, **card)
    report = fit_results([tmp_path / "in"], options=FitOptions(predict=[Target(7 * 10**9, 140 * 10**9)]))
    assert report.headline is not None
    assert (report.headline.where, report.headline.params) == ("D = 20·N", tuple(sorted(SIZES)))
    text = " ".join(render_report(report).split())
    assert "Infusion law F*(C) = A/C^alpha + E along D = 20·N (137M, " in text
    assert "along D = 20·N" in report.predictions[0].source
    write_report(report, tmp_path / "out")
    law = json.loads((tmp_path / "out" / "fit.json").read_text())["law"]
    assert (law["tokens"], law["tokens_per_param"]) == (None, pytest.approx(20))


def test_a_size_of_a_sweep_along_a_ray_is_held_out(tmp_path: Path) -> None:
    for params, f_star in SIZES.items():
        write_sweep(tmp_path / str(params), f_star, model={"params": params}, tokens=20 * params)
    (held,) = fit_results([tmp_path], options=FitOptions(hold_out=1e9)).held_out
    assert held.source == "the infusion law F*(C) of 3 other models along D = 20·N"
