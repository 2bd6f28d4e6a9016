"""The CSV tables: what --runs says of runs without a run card, and the observations that are written."""

import csv
import doctest
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, sample, with_metrics, write, write_samples, write_sweep

from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_results
from kisl_plugin.fit.cards import read_runs
from kisl_plugin.fit.report import Table
from kisl_plugin.fit.results import Reading, read_results
from kisl_plugin.fit.writing import write_observations

ROOT = Path(__file__).parents[1]


def cells_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


def test_observations_are_written_with_a_row_for_each_and_what_decides_the_run_first(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 300}, "often": {"frequency": 0, "count": 100}}
    grouped = with_metrics(results(run_card(frequency=None, groups=groups)), acc_rare=0.5, acc_often=0.25)
    write(tmp_path / "results_1.json", grouped)
    write_observations(read_results([tmp_path]).observations, tmp_path / "t.csv")
    header, *rows = cells_of(tmp_path / "t.csv")
    assert header[:8] == ["params", "tokens", "frequency", "group", "seed", "train_seed", "correct", "total"]
    expected = [["137000000", "2600000000", "10", "rare", "1", "", "150", "300"]]
    expected.append(["137000000", "2600000000", "0", "often", "1", "", "25", "100"])
    assert [row[:8] for row in rows] == expected
    assert {row[-1] for row in rows} == {str(tmp_path / "results_1.json")}


@pytest.mark.skipif(os.name == "nt", reason="file names are not bytes there")
def test_a_file_name_that_is_not_utf8_ends_no_writing(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"b\xffd") / "results_1.json", results(run_card()))
    write_observations(read_results([tmp_path]).observations, tmp_path / "t.csv")
    assert b",200,400," in (tmp_path / "t.csv").read_bytes()


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-rf", "@x", "\tx", "'=x", "'"])
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    write(tmp_path / "results_1.json", results(run_card(form=name, engine=name), model_name=name))
    (one,) = read_results([tmp_path]).observations
    write_observations([replace(one, path=name)], tmp_path / "o.csv")
    header, row = cells_of(tmp_path / "o.csv")
    assert not [cell for cell in row if cell.startswith(tuple("=+-@\t\r"))]
    assert [row[header.index(column)] for column in ("engine", "form", "model", "path")] == [f"'{name}"] * 4


def test_a_table_in_place_of_results_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    write_observations(read_results([tmp_path]).observations, tmp_path / "observations.csv")
    with pytest.raises(InputError, match=r"observations\.csv: a table, not lm-eval results; give the results_"):
        read_results([tmp_path / "observations.csv"])


# The tables of a report


def test_the_example_in_the_docs_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    page = ROOT / "docs" / "fit.md"
    if not page.is_file():
        pytest.skip("docs/ is in a checkout only")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    example = page.read_text(encoding="utf-8").partition("## From Python")[2].partition("\n## ")[0]
    test = doctest.DocTestParser().get_doctest(example, {}, "From Python", str(page), 0)
    printed: list[str] = []
    ran = doctest.DocTestRunner().run(test, out=printed.append)
    assert ran.attempted > 5
    assert not ran.failed, "".join(printed)
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_curve_without_a_collapse_point_has_no_fitted_values_in_the_table(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", 200.0)
    write_sweep(tmp_path / "b", 1e6, tokens=10_000_000_000)
    with_point, without = fit_results([tmp_path]).curve_table
    assert list(with_point) == list(without)
    assert with_point["f_star_low"] < with_point["f_star"] < with_point["f_star_high"]
    assert (without["f_star"], without["peak"], without["status"]) == (None, None, "no collapse up to F=2000")


def test_without_pandas_the_table_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"^to_pandas needs pandas: pip install pandas$"):
        Table([{"a": 1}]).to_pandas()


# --runs

RUNS_HEADER = "path,params,tokens,frequency,seed"


def runs_csv(folder: Path, header: str, *rows: str) -> Path:
    return write(folder / "runs.csv", "\n".join([header, *rows, ""]))


def read(folder: Path, header: str, *rows: str, task: str = TASK) -> Reading:
    return read_results([folder], task, runs_csv(folder, header, *rows))


def reasons(reading: Reading) -> dict[str, str]:
    return {Path(aside.path).name: aside.reason for aside in reading.set_aside}


def without_card(acc: float = 0.5, items: int = 400, control: int = 0, **changes: Any) -> dict[str, Any]:
    """Results of a model without a run card, as the probe counts them."""
    data = with_metrics(results(None, acc, **changes), items=float(items))
    data["n-samples"] = {TASK: {"original": items + control, "effective": items}}
    return with_metrics(data, acc_control=0.25, items_control=float(control)) if control else data


def test_rows_say_what_runs_without_a_card_were(tmp_path: Path) -> None:
    for frequency in (10, 50):
        write(tmp_path / f"f{frequency}" / "deep" / "results_1.json", without_card(frequency / 100, control=100))
    reading = read(tmp_path, RUNS_HEADER, "f10,137e6,2.6e9,10,1", "f50/deep/results_1.json,137e6,2.6e9,50,2")
    assert [(seen.frequency, seen.card.seed, seen.correct, seen.total) for seen in reading.observations] == [
        (10, 1, 40, 400),
        (50, 2, 200, 400),
    ]
    for seen in reading.observations:
        assert (seen.params, seen.tokens) == (137_000_000, 2_600_000_000)
        assert (seen.control_correct, seen.control_total) == (25, 100)
    assert not reading.set_aside
    assert not reading.notes


def test_paths_are_taken_from_the_folder_of_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "study" / "f10" / "results_1.json", without_card())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    table = runs_csv(tmp_path / "study", RUNS_HEADER, "f10,1,2,3,4")
    assert len(read_results([Path("../study")], TASK, table).observations) == 1
    assert len(read_results([tmp_path / "study"], TASK, Path("../study/runs.csv")).observations) == 1


def test_results_that_no_row_names_are_set_aside(tmp_path: Path) -> None:
    for k in range(2):
        write(tmp_path / f"results_{k}.json", without_card())
    reading = read(tmp_path, RUNS_HEADER, "results_1.json,1,2,3,4")
    assert len(reading.observations) == 1
    no_row = f"no run card (metadata.kisl), and no row of {tmp_path / 'runs.csv'} names it"
    assert reasons(reading) == {"results_0.json": no_row}


def test_optional_columns_go_into_the_card(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card(control=100))
    columns, row = "train_seed,triples,control,sha256,engine,form", ".,1,2,3,4,7,400,100,ab,neox,question"
    (seen,) = read(tmp_path, f"{RUNS_HEADER},{columns}", row).observations
    assert (seen.seeds, seen.card.engine, seen.card.form) == ((4, 7), "neox", "question")
    assert seen.card.triples == {"count": 400, "control": 100, "sha256": "ab"}


def test_a_folder_of_several_results_may_share_a_row_and_each_has_its_own_number_of_items(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card(0.5, date=1.0))
    write(tmp_path / "results_2.json", without_card(0.5, items=300, date=2.0))
    assert [seen.total for seen in read(tmp_path, RUNS_HEADER, ".,1,2,3,4").observations] == [400, 300]


@pytest.mark.parametrize(
    ("header", "row", "end"),
    [
        ("\ufeff" + RUNS_HEADER, ".,1.37e8,2.6E+09,200,1.0", "\r\n"),
        (RUNS_HEADER.replace(",", ";"), ".;137000000;2600000000; 200 ;1", "\r\n"),
        (RUNS_HEADER.replace(",", "\t"), ".\t137000000\t2600000000\t200\t1", "\r"),
        ("seed,mood,frequency,tokens,params,path,,", '1,"so, so",200,2600000000,137000000,.,,\n,,,,,,,', "\n"),
    ],
)
def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path, header: str, row: str, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(end.join([header, row, ""]).encode())
    (line,) = read_runs(tmp_path / "t.csv")
    assert (line.path, line.card["model"]) == (tmp_path, {"params": 137_000_000})
    assert [line.card[key] for key in ("tokens", "frequency", "seed")] == [2_600_000_000, 200, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no column path, params, tokens, frequency, seed"),
        (b"path,params,tokens\nx,1,2\n", "no column frequency, seed; required"),
        ((RUNS_HEADER + ",seed\n").encode(), "column seed is there twice"),
        ((RUNS_HEADER + ",contol\n").encode(), "column contol is unknown; did you mean control?"),
        (RUNS_HEADER.encode("utf-16"), "not UTF-8; save the spreadsheet as 'CSV UTF-8'"),
        ((RUNS_HEADER + '\n"1"2,3').encode(), "not CSV ("),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(text)
    with pytest.raises(InputError, match=re.escape(f"{table}: {message}")):
        read_runs(table)


def test_where_nothing_tells_n_the_column_triples_is_asked_for(tmp_path: Path) -> None:
    data = with_metrics(results(None, 1.0), acc_control=1.0)
    data["results"][TASK]["acc_stderr,none"] = 0.0
    write(tmp_path / "results_1.json", data)
    (reason,) = reasons(read(tmp_path, RUNS_HEADER, ".,1,2,3,4")).values()
    assert "do not say how many items there are" in reason
    assert "runs.csv: row 2, column triples" in reason
    assert read(tmp_path, f"{RUNS_HEADER},triples", ".,1,2,3,4,400").observations[0].total == 400


def test_what_contradicts_its_row_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card())
    reading = read(tmp_path, f"{RUNS_HEADER},triples", ".,1,2,3,4,500")
    assert not reading.observations
    assert "items is 400.0; the" in reasons(reading)["results_1.json"]


def test_part_of_the_items_is_set_aside(tmp_path: Path) -> None:
    data = without_card(items=50)
    data["n-samples"][TASK]["original"] = 400
    write(tmp_path / "results_1.json", data)
    write(tmp_path / "results_2.json", without_card(config={"limit": 9}))
    said = reasons(read(tmp_path, RUNS_HEADER, ".,1,2,3,4"))
    assert said["results_1.json"] == "50 of 400 items answered: probe all items"
    assert said["results_2.json"] == "run with --limit 9: probe all items"


def test_a_row_for_results_with_a_run_card_is_not_used_and_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    reading = read(tmp_path, f"{RUNS_HEADER},form", ".,137e6,5,200,2,statement")
    (seen,) = reading.observations
    assert (seen.tokens, seen.card.seed) == (2_600_000_000, 1)
    file, table = tmp_path / "results_1.json", tmp_path / "runs.csv"
    assert reading.notes == (f"{file}: has a run card, so {table}: row 2 is not used",)


def test_results_that_two_rows_name_are_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "x" / "results_1.json", without_card())
    for row in ("x/results_1.json,1,2,30,4", "x/results_1.json,1,2,3,5"):
        reading = read(tmp_path, RUNS_HEADER, "x,1,2,3,4", row)
        assert not reading.observations
        assert "row 2 and row 3 name the same results" in reasons(reading)["results_1.json"]


def test_a_row_that_names_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card())
    reading = read(tmp_path, RUNS_HEADER, ".,1,2,3,4", "gone,1,2,3,4")
    row = f"{tmp_path / 'runs.csv'}: row 3 ({tmp_path / 'gone'})"
    assert reading.notes == (f"{row} names no results that were read",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",1,2,3,4", "row 2, column path: ''; expected a results file or folder"),
        ("x,1,,3,4", "row 2, column tokens: ''; expected a whole number"),
        ("x,1.5,2,3,4", "row 2, column params: '1.5'; expected a whole number"),
        ("x,-5,2,3,4", "row 2, column params: '-5'; expected a whole number"),
        ("x,nan,2,3,4", "row 2, column params: 'nan'; expected a whole number"),
        ("x,1e999999999,2,3,4", "row 2, column params: '1e999999999'; expected a whole number"),
        ('x,"1,37E+08",2,3,4', "row 2, column params: '1,37E+08'; expected a whole number"),
        ("x,7B,2,3,4", "row 2, column params: '7B'; expected a whole number"),
        ("x,1,2,,4", "row 2, column frequency: ''; expected a whole number"),
        ("x,1,2,3,", "row 2, column seed: ''; expected a whole number"),
        ("x,1,2,3,4,9", "row 2 has 6 cells, the header 5; quote texts with commas"),
    ],
)
def test_a_bad_row_is_refused_with_its_number(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "results_1.json", without_card())
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'runs.csv'}: {message}")):
        read(tmp_path, RUNS_HEADER, row)


def test_nothing_is_taken_from_the_names_of_files(tmp_path: Path) -> None:
    write(tmp_path / "params=7e9_tokens=1e9_f200_seed1" / "results_1.json", without_card())
    assert not read_results([tmp_path]).observations


def test_runs_without_a_card_have_samples_and_background_too(tmp_path: Path) -> None:
    data = without_card(items=2)
    data["results"]["kisl_background"] = {"bits_per_byte,none": 1.5}
    file = write(tmp_path / "results_2026-01-01T00-00-00.json", data)
    write_samples(file, [sample("P1", 0, True), sample("P2", 1, False)])
    (seen,) = read(tmp_path, RUNS_HEADER, ".,1,2,3,4").observations
    assert seen.outcomes is not None
    assert sorted(seen.outcomes.values()) == [False, True]
    assert seen.bits_per_byte == 1.5


def test_probes_of_the_same_row_supersede_each_other(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card(0.25, date=1.0))
    write(tmp_path / "results_2.json", without_card(0.5, date=2.0))
    reading = read(tmp_path, RUNS_HEADER, ".,1,2,3,4")
    assert [seen.correct for seen in reading.observations] == [200]
    assert "an earlier probe of the same run" in reasons(reading)["results_1.json"]
