"""The CSV tables: observations written and read again, and what --runs says of runs without a run card."""

import csv
import os
import re
from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, sample, with_metrics, write, write_samples, write_sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.observations import Observation, find_floor, identity
from kisl_plugin.fit.results import Reading, observations_of, read_results
from kisl_plugin.fit.tables import REQUIRED_COUNTS, read_observations, write_observations
from kisl_plugin.runcard import RunCard

UNDISTURBED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
WHOLE = st.integers(0, 10**15)
VALUE = st.none() | st.booleans() | WHOLE | TEXT | st.lists(WHOLE, max_size=3)
OBJECT = st.dictionaries(TEXT, VALUE, max_size=3)


@st.composite
def cards(draw: st.DrawFn, groups: dict[str, Any] | None, frequency: int) -> RunCard:
    triples = {**draw(OBJECT), "count": draw(WHOLE), "control": draw(VALUE), "sha256": draw(VALUE)}
    card = {
        "schema": 1,
        "model": {**draw(OBJECT), "params": draw(st.integers(1, 10**12))},
        "tokens": draw(st.integers(1, 10**14)),
        "seed": draw(WHOLE),
        "triples": triples,
        "engine": draw(TEXT),
        "created": draw(st.sampled_from(["", "2026-01-01"])),
        **({"groups": groups} if groups else {"frequency": frequency}),
        **{key: draw(VALUE) for key in ("form", "spacing", "window", "samples", "train_seed", "injected_fraction")},
        **draw(st.fixed_dictionaries({}, optional={"template": WHOLE, "parent": OBJECT, "versions": OBJECT})),
    }
    return RunCard.from_dict(card, "card")


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    frequency, total = draw(WHOLE), draw(st.integers(1, 10**6))
    name = draw(st.none() | TEXT)
    groups = {"other": {"frequency": 1, "count": 1}, name: {"frequency": frequency, "count": total}} if name else None
    control = draw(st.none() | st.integers(0, 10**6))
    return Observation(
        path=draw(TEXT),
        model=draw(st.just("") | TEXT),
        card=draw(cards(groups, frequency)),
        frequency=frequency,
        group=name,
        correct=draw(st.integers(0, total)),
        total=total,
        control_correct=None if control is None else draw(st.integers(0, control)),
        control_total=control,
        date=draw(st.just(0.0) | st.floats(1e9, 2e9)),
        task=draw(st.just("") | TEXT),
        bits_per_byte=draw(st.none() | st.floats(0, 30)),
        samples=draw(st.none() | st.sampled_from([Path("/a/b c/samples_x.jsonl"), Path("s.jsonl").resolve()])),
    )


@settings(UNDISTURBED, max_examples=50)
@given(st.lists(observations(), max_size=3))
def test_what_is_written_is_read_again(tmp_path: Path, seen: list[Observation]) -> None:
    table = tmp_path / "observations.csv"
    write_observations(seen, table)
    again = read_observations(table)
    assert again == seen
    assert [identity(one.card.to_dict()) for one in again] == [identity(one.card.to_dict()) for one in seen]
    assert [(one.baseline, one.seeds) for one in again] == [(one.baseline, one.seeds) for one in seen]


def write_study(folder: Path) -> None:
    """A sweep with a floor, runs in groups, samples, background, a parent and a rerun."""
    write_sweep(folder / "sweep", 200.0)
    groups = {"rare": {"frequency": 10, "count": 300}, "often": {"frequency": 0, "count": 100}}
    grouped = with_metrics(results(run_card(frequency=None, groups=groups)), acc_rare=0.5, acc_often=0.25)
    write(folder / "groups" / "results_1.json", grouped)
    parent = run_card(parent=run_card(frequency=0), seed=9)
    write(folder / "parent" / "results_1.json", results(parent))
    write(folder / "parent" / "results_2.json", results(parent, 0.25, date=1.0))
    card = run_card(seed=5, triples={"count": 2, "sha256": "x"})
    file = write(folder / "samples" / "results_2026-01-01T00-00-00.json", results(card, 0.5, **{"n-samples": {}}))
    write_samples(file, [sample("P1", 0, True), sample("P2", 1, False)])


def test_a_table_takes_the_place_of_the_results_that_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "results")
    read = read_results([tmp_path / "results"])
    table = tmp_path / "out" / "observations.csv"
    table.parent.mkdir()
    write_observations(read.observations, table)
    monkeypatch.chdir(tmp_path / "out")
    for path in (table, Path("observations.csv")):
        again = read_results([path])
        assert again.observations == read.observations
        assert [one.outcomes for one in again.observations] == [one.outcomes for one in read.observations]
        assert find_floor(again.observations, "auto") == find_floor(read.observations, "auto")
        assert not again.set_aside


def test_a_table_and_its_results_moved_together_keep_the_samples(tmp_path: Path) -> None:
    write_study(tmp_path / "here" / "results")
    write_observations(read_results([tmp_path / "here"]).observations, tmp_path / "here" / "observations.csv")
    (tmp_path / "here").rename(tmp_path / "there")
    reading = read_results([tmp_path / "there" / "observations.csv"])
    with_samples = [seen for seen in reading.observations if seen.samples]
    assert len(with_samples) == 1
    assert with_samples[0].outcomes is not None
    assert not reading.notes


def test_samples_that_are_gone_are_said(tmp_path: Path) -> None:
    write_study(tmp_path / "results")
    write_observations(read_results([tmp_path / "results"]).observations, tmp_path / "observations.csv")
    (gone,) = (tmp_path / "results" / "samples").glob("samples*")
    gone.unlink()
    reading = read_results([tmp_path / "observations.csv"])
    assert not any(seen.samples for seen in reading.observations)
    assert [note for note in reading.notes if str(gone) in note and "No such file" in note]


def test_results_and_their_table_together_count_once(tmp_path: Path) -> None:
    write_study(tmp_path / "results")
    alone = read_results([tmp_path / "results"])
    table = tmp_path / "observations.csv"
    write_observations(alone.observations, table)
    both = read_results([table, tmp_path / "results"])
    assert sorted(both.observations, key=repr) == sorted(alone.observations, key=repr)
    copies = [aside for aside in both.set_aside if aside.path.startswith(str(table))]
    assert len(copies) == len({seen.path for seen in alone.observations})
    assert all("a copy of" in aside.reason for aside in copies)


def test_a_table_of_another_task_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card(), task="kisl_wikidata_statement"))
    seen = read_results([tmp_path], "kisl_wikidata_statement").observations
    write_observations(seen, tmp_path / "t.csv")
    (aside,) = read_results([tmp_path / "t.csv"]).set_aside
    assert "of task kisl_wikidata_statement, not kisl_wikidata (choose with --task)" in aside.reason


def by_hand(path: Path, header: str, *rows: str, end: str = "\n") -> Path:
    path.write_bytes(end.join([header, *rows, ""]).encode())
    return path


HEADER = "params,tokens,frequency,seed,correct,total"


@pytest.mark.parametrize(
    ("header", "row", "end"),
    [
        (HEADER, "137000000,2600000000,200,1,300,400", "\n"),
        ("\ufeff" + HEADER, "1.37e8,2.6E+09,200,1,300.0,400", "\r\n"),
        (HEADER.replace(",", ";"), "137000000;2600000000; 200 ;1;300;400", "\r\n"),
        (HEADER.replace(",", "\t"), "137000000\t2600000000\t200\t1\t300\t400", "\r"),
        (
            "total,correct,group,seed,mood,frequency,tokens,params,bits_per_byte",
            '400,300,,1,"so, so",200,2600000000,137000000,',
            "\n",
        ),
        (HEADER + ",,", "137000000,2600000000,200,1,300,400,,\n,,,,,,,", "\n"),
    ],
)
def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path, header: str, row: str, end: str) -> None:
    (seen,) = read_results([by_hand(tmp_path / "t.csv", header, row, end=end)]).observations
    assert (seen.params, seen.tokens, seen.frequency, seen.card.seed) == (137_000_000, 2_600_000_000, 200, 1)
    assert (seen.correct, seen.total, seen.group, seen.date) == (300, 400, None, 0.0)
    assert seen.card.triples["count"] == 400


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("137e6,2.6e9,200,1,401,400", "row 3, column correct: '401'; expected at most 400, the number of items"),
        ("137e6,2.6e9,200,1,1,0", "row 3, column total: '0'; expected a number above 0"),
        ("137e6,2.6e9,200,1,1", "row 3, column total: ''; expected a whole number"),
        ("137e6,2.6e9,,1,1,4", "row 3, column frequency: ''; expected a whole number"),
        ('"1,37E+08",2.6e9,200,1,1,4', "row 3, column params: '1,37E+08'; expected a whole number"),
        ("1.5,2.6e9,200,1,1,4", "row 3, column params: '1.5'; expected a whole number"),
        ("-5,2.6e9,200,1,1,4", "row 3, column params: '-5'; expected a whole number"),
        ("0,2.6e9,200,1,1,4", "row 3, column params: '0'; expected a number above 0"),
        ("nan,2.6e9,200,1,1,4", "row 3, column params: 'nan'; expected a whole number"),
        ("1e999999999,2.6e9,200,1,1,4", "row 3, column params: '1e999999999'; expected a whole number"),
        ("137e6,2.6e9,200,1,1,4,9", "row 3 has 7 cells, the header 6"),
    ],
)
def test_a_bad_row_is_refused_with_its_number_and_column(tmp_path: Path, row: str, message: str) -> None:
    table = by_hand(tmp_path / "t.csv", HEADER, "137e6,2.6e9,100,1,1,4", row)
    with pytest.raises(InputError, match=re.escape(f"{table}: {message}")) as raised:
        read_results([table])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("group", "a", "column group: 'a'; expected an empty cell, or {"),
        ("card", "[]", ""),
        ("card", "[1]", "column card: '[1]'; expected a JSON object"),
        ("card", "{", "column card: '{'; expected JSON"),
        ("control_correct", "1", "column control_correct: '1'; expected at most 0"),
        ("bits_per_byte", '"3,1"', "column bits_per_byte: '3,1'; expected a number with a decimal point"),
        ("iteration", "5", ""),
        ("template", '"[x]"', "column template: '[x]'; expected JSON"),
        ("template", '"[-1]"', "template is [-1]; expected an index"),
    ],
)
def test_bad_optional_cells_are_refused_too(tmp_path: Path, column: str, cell: str, message: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"' if cell[0] in "[{" else cell
    table = by_hand(tmp_path / "t.csv", f"{HEADER},{column}", f"137e6,2.6e9,200,1,1,4,{quoted}")
    if not message:
        assert len(read_observations(table)) == 1
        return
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read_observations(table)
    assert str(raised.value).startswith(f"{table}: row 2")


def test_a_group_has_the_frequency_that_its_card_says(tmp_path: Path) -> None:
    card = '"{""groups"": {""a"": {""frequency"": 5, ""count"": 4}}}"'
    for frequency, group in ((5, "a"), (6, "a"), (5, "b")):
        table = by_hand(tmp_path / "t.csv", f"{HEADER},group,card", f"137e6,2.6e9,{frequency},1,1,4,{group},{card}")
        if (frequency, group) == (5, "a"):
            assert [(seen.group, seen.frequency) for seen in read_observations(table)] == [("a", 5)]
        else:
            with pytest.raises(InputError, match=f"row 2, column frequency: '{frequency}'; expected"):
                read_observations(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no column params, tokens, frequency, seed, correct, total"),
        (b"params,tokens\n1,2\n", "no column frequency, seed, correct, total; required"),
        ((HEADER + ",seed\n").encode(), "column seed is there twice"),
        ((HEADER + ",contol_total\n").encode(), "column contol_total is unknown; did you mean control_total?"),
        (HEADER.encode("utf-16"), "not UTF-8; save the spreadsheet as 'CSV UTF-8'"),
        ((HEADER + '\n"1"2,3').encode(), "not CSV ("),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(text)
    with pytest.raises(InputError, match=re.escape(f"{table}: {message}")):
        read_observations(table)


def test_rows_that_are_there_twice_count_once_and_contradictory_ones_not_at_all(tmp_path: Path) -> None:
    row = "137e6,2.6e9,200,1,1,4"
    copied = read_results([by_hand(tmp_path / "t.csv", HEADER, row, row)])
    assert len(copied.observations) == 1
    assert "a copy" in copied.set_aside[0].reason
    other = read_results([by_hand(tmp_path / "t.csv", HEADER, row, row.replace(",1,4", ",2,4"))])
    assert not other.observations
    assert [aside.reason.partition(":")[0] for aside in other.set_aside] == ["contradictory"] * 2


def test_the_first_columns_are_those_that_a_person_looks_for(tmp_path: Path) -> None:
    write_study(tmp_path / "results")
    write_observations(read_results([tmp_path / "results"]).observations, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert set(REQUIRED_COUNTS) <= set(header[:8])
    assert len({len(row) for row in [header, *rows]}) == 1


@pytest.mark.skipif(os.name == "nt", reason="file names are not bytes there")
def test_a_file_name_that_is_not_utf8_ends_no_writing(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"b\xffd") / "results_1.json", results(run_card()))
    reading = read_results([tmp_path])
    write_observations(reading.observations, tmp_path / "t.csv")
    (seen,) = read_observations(tmp_path / "t.csv")
    assert (seen.correct, seen.total) == (200, 400)


def test_a_table_that_cannot_be_found_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.csv: cannot be read \(No such file or directory\)"):
        read_results([tmp_path / "t.csv"])


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-rf", "@x", "\tx", "'=x", "'"])
def test_no_cell_is_a_formula_and_names_come_back(tmp_path: Path, name: str) -> None:
    data = results(run_card(form=name, engine=name), model_name=name)
    seen = observations_of(data, name=name)
    write_observations(seen, tmp_path / "o.csv")
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]
    assert read_observations(tmp_path / "o.csv") == list(seen)


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


def test_a_model_is_known_by_lm_evals_name_for_it(tmp_path: Path) -> None:
    for k, name in enumerate(("org/a", "org/b")):
        write(tmp_path / f"results_{k}.json", without_card(model_name=name))
    reading = read(tmp_path, "model,params,tokens,frequency,seed", "org/b,1,2,3,4")
    assert [seen.model for seen in reading.observations] == ["org/b"]
    assert reasons(reading) == {
        "results_0.json": f"no run card (metadata.kisl), and no row of {tmp_path / 'runs.csv'} names it"
    }


def test_optional_columns_go_into_the_card(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card(control=100))
    columns = "train_seed,triples,control,sha256,engine,form,template,spacing,seq_length,window"
    row = '.,1,2,3,4,7,400,100,ab,neox,question,"[0, 1]",even,128,"[0.0, 0.5]"'
    (seen,) = read(tmp_path, f"{RUNS_HEADER},{columns}", row).observations
    card = seen.card
    assert (seen.seeds[1], card.engine, card.form, card.template, card.spacing) == (
        7,
        "neox",
        "question",
        [0, 1],
        "even",
    )
    assert (card.seq_length, card.window) == (128, [0.0, 0.5])
    assert card.triples == {"count": 400, "control": 100, "sha256": "ab"}


def test_where_nothing_tells_n_the_column_triples_is_asked_for(tmp_path: Path) -> None:
    data = with_metrics(results(None, 1.0), acc_control=1.0)
    data["results"][TASK]["acc_stderr,none"] = 0.0
    write(tmp_path / "results_1.json", data)
    (reason,) = reasons(read(tmp_path, RUNS_HEADER, ".,1,2,3,4")).values()
    assert "do not say how many items there are" in reason
    assert "runs.csv: row 2, column triples" in reason
    assert read(tmp_path, f"{RUNS_HEADER},triples", ".,1,2,3,4,400").observations[0].total == 400


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("500,,", "items is 400.0; the"),
        ("400,5,10", "unfinished run: iteration 5 of 10"),
    ],
)
def test_what_contradicts_its_row_is_set_aside(tmp_path: Path, cells: str, reason: str) -> None:
    write(tmp_path / "results_1.json", without_card())
    reading = read(tmp_path, f"{RUNS_HEADER},triples,iteration,train_iters", f".,1,2,3,4,{cells}")
    assert not reading.observations
    assert reason in reasons(reading)["results_1.json"]


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
    reading = read(tmp_path, "model," + RUNS_HEADER, ",.,1,2,3,4", ",gone,1,2,3,4", "org/x,,1,2,3,4")
    table = tmp_path / "runs.csv"
    assert reading.notes == (
        f"{table}: row 3 ({tmp_path / 'gone'}) names no results that were read",
        f"{table}: row 4 (org/x) names no results that were read",
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",1,2,3,4", "row 2, column path: ''; expected a results file or folder"),
        ("x,1,,3,4", "row 2, column tokens: ''; expected a whole number"),
        ("x,1,0,3,4", "row 2, column tokens: '0'; expected a number above 0"),
        ("x,7B,2,3,4", "row 2, column params: '7B'; expected a whole number"),
        ("x,1,2,,4", "row 2, column frequency: ''; expected a whole number"),
        ("x,1,2,3,", "row 2, column seed: ''; expected a whole number"),
        ("x,1,2,3,4,a", "row 2, column group: 'a'; expected an empty cell: a run with groups needs its run card"),
    ],
)
def test_a_bad_row_is_refused_with_its_number(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "results_1.json", without_card())
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'runs.csv'}: {message}")):
        read(tmp_path, f"{RUNS_HEADER},group", row)


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
