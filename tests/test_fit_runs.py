"""runs.csv: results of models that have no run card."""

import re
from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, sample, with_metrics, write, write_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.fit.results import Reading, read_results

HEADER = "path,params,tokens,frequency,seed"


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
    reading = read(tmp_path, HEADER, "f10,137e6,2.6e9,10,1", "f50/deep/results_1.json,137e6,2.6e9,50,2")
    assert [(seen.frequency, seen.seed, seen.correct, seen.total) for seen in reading.observations] == [
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
    table = runs_csv(tmp_path / "study", HEADER, "f10,1,2,3,4")
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


def test_a_row_with_path_and_model_needs_both(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        write(tmp_path / "x" / f"results_{k}.json", without_card(model_name=name))
    reading = read(tmp_path, "model," + HEADER, "a,x,1,2,3,4", "b,x,1,2,30,4")
    assert {(seen.model, seen.frequency) for seen in reading.observations} == {("a", 3), ("b", 30)}


def test_optional_columns_go_into_the_card(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card(control=100))
    columns = "train_seed,triples,control,sha256,engine,form,template,spacing,seq_length,window"
    row = '.,1,2,3,4,7,400,100,ab,neox,question,"[0, 1]",even,128,"[0.0, 0.5]"'
    (seen,) = read(tmp_path, f"{HEADER},{columns}", row).observations
    card = seen.card
    assert (seen.train_seed, card.engine, card.form, card.template, card.spacing) == (
        7,
        "neox",
        "question",
        [0, 1],
        "even",
    )
    assert (card.seq_length, card.window) == (128, [0.0, 0.5])
    assert card.triples == {"count": 400, "control": 100, "sha256": "ab"}


def test_rows_of_groups_make_one_run(tmp_path: Path) -> None:
    data = with_metrics(without_card(0.4, items=400), acc_rare=0.5, acc_often=0.1)
    write(tmp_path / "results_1.json", data)
    rows = (".,1,2,10,4,rare,300", ".,1,2,0,4,often,100")
    reading = read(tmp_path, f"{HEADER},group,triples", *rows)
    assert [(seen.group, seen.frequency, seen.correct, seen.total) for seen in reading.observations] == [
        ("rare", 10, 150, 300),
        ("often", 0, 10, 100),
    ]
    assert not any(seen.baseline for seen in reading.observations)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.integers(2, 5000), st.data())
def test_n_is_told_by_the_standard_error_where_nothing_counts_the_items(
    tmp_path: Path, items: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(1, items - 1))
    metrics = {}
    for name, share, n in (("acc", right / items, items), ("acc_control", 0.25, 4)):
        metrics |= {name: share, f"{name}_stderr": (share * (1 - share) / (n - 1)) ** 0.5}
    bare = with_metrics(results(None), **metrics)
    bare["n-samples"] = {TASK: {"original": items + 4, "effective": items + 4}}  # as 0.4.3 to 0.4.11 count
    write(tmp_path / "results_1.json", bare)
    (seen,) = read(tmp_path, HEADER, ".,1,2,3,4").observations
    assert (seen.correct, seen.total, seen.control_correct, seen.control_total) == (right, items, 1, 4)


def test_without_control_triples_lm_evals_own_count_is_taken(tmp_path: Path) -> None:
    data = results(None, 1.0)
    data["results"][TASK]["acc_stderr,none"] = 0.0
    write(tmp_path / "results_1.json", data)
    assert [(seen.correct, seen.total) for seen in read(tmp_path, HEADER, ".,1,2,3,4").observations] == [(400, 400)]


def test_where_nothing_tells_n_the_column_triples_is_asked_for(tmp_path: Path) -> None:
    data = with_metrics(results(None, 1.0), acc_control=1.0)
    data["results"][TASK]["acc_stderr,none"] = 0.0
    write(tmp_path / "results_1.json", data)
    (reason,) = reasons(read(tmp_path, HEADER, ".,1,2,3,4")).values()
    assert "do not tell how many items were asked" in reason
    assert "runs.csv: row 2, column triples" in reason
    assert read(tmp_path, f"{HEADER},triples", ".,1,2,3,4,400").observations[0].total == 400


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (",500,,", "items is 400; the"),
        (",400,5,10", "unfinished run: iteration 5 of 10"),
        ("a,400,,", "no metric acc_a,none"),
    ],
)
def test_what_contradicts_its_row_is_set_aside(tmp_path: Path, cells: str, reason: str) -> None:
    write(tmp_path / "results_1.json", without_card())
    reading = read(tmp_path, f"{HEADER},group,triples,iteration,train_iters", f".,1,2,3,4,{cells}")
    assert not reading.observations
    assert reason in reasons(reading)["results_1.json"]


def test_part_of_the_items_is_set_aside(tmp_path: Path) -> None:
    data = without_card(items=50)
    data["n-samples"][TASK]["original"] = 400
    write(tmp_path / "results_1.json", data)
    write(tmp_path / "results_2.json", without_card(config={"limit": 9}))
    said = reasons(read(tmp_path, HEADER, ".,1,2,3,4"))
    assert said["results_1.json"] == "50 of 400 items asked: probe all items"
    assert said["results_2.json"] == "run with --limit 9: probe all items"


def test_a_card_wins_and_what_contradicts_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    reading = read(tmp_path, f"{HEADER},form", ".,137e6,5,200,2,statement")
    (seen,) = reading.observations
    assert (seen.tokens, seen.seed) == (2_600_000_000, 1)
    file, table = tmp_path / "results_1.json", tmp_path / "runs.csv"
    assert reading.notes == (
        f"{file}: {table}: row 2 says seed 2, the run card 1: the run card counts",
        f"{file}: {table}: row 2 says tokens 5, the run card 2600000000: the run card counts",
    )


def test_a_size_that_lm_eval_counted_otherwise_is_said(tmp_path: Path) -> None:
    config = {"model": "hf", "limit": None, "model_num_parameters": 6_738_415_616}
    write(tmp_path / "results_1.json", without_card(config=config))
    assert not read(tmp_path, HEADER, ".,7e9,2,3,4").notes
    (note,) = read(tmp_path, HEADER, ".,13e9,2,3,4").notes
    assert "row 2 says params 13,000,000,000, lm-eval counted 6,738,415,616: the row counts" in note


def test_rows_that_say_different_things_of_one_file_set_it_aside(tmp_path: Path) -> None:
    write(tmp_path / "x" / "results_1.json", without_card())
    for row in ("x/results_1.json,1,2,30,4", "x/results_1.json,1,2,3,5"):
        reading = read(tmp_path, HEADER, "x,1,2,3,4", row)
        assert not reading.observations
        assert "row 2 and row 3 name it and say different things" in reasons(reading)["results_1.json"]
    assert len(read(tmp_path, HEADER, "x,1,2,3,4", "x/results_1.json,1,2,3,4").observations) == 1


def test_a_row_that_names_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card())
    reading = read(tmp_path, "model," + HEADER, ",.,1,2,3,4", ",gone,1,2,3,4", "org/x,,1,2,3,4")
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
    ],
)
def test_a_bad_row_is_refused_with_its_number(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "results_1.json", without_card())
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'runs.csv'}: {message}")):
        read(tmp_path, HEADER, row)


def test_nothing_is_taken_from_the_names_of_files(tmp_path: Path) -> None:
    write(tmp_path / "params=7e9_tokens=1e9_f200_seed1" / "results_1.json", without_card())
    assert not read_results([tmp_path]).observations


def test_runs_without_a_card_have_samples_and_background_too(tmp_path: Path) -> None:
    data = without_card(items=2)
    data["results"]["kisl_background"] = {"bits_per_byte,none": 1.5}
    file = write(tmp_path / "results_2026-01-01T00-00-00.json", data)
    write_samples(file, [sample("P1", 0, True), sample("P2", 1, False)])
    (seen,) = read(tmp_path, HEADER, ".,1,2,3,4").observations
    assert seen.relations == {"P1": (1, 1), "P2": (0, 1)}
    assert seen.bits_per_byte == 1.5


def test_probes_of_the_same_row_supersede_each_other(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", without_card(0.25, date=1.0))
    write(tmp_path / "results_2.json", without_card(0.5, date=2.0))
    reading = read(tmp_path, HEADER, ".,1,2,3,4")
    assert [seen.correct for seen in reading.observations] == [200]
    assert "superseded by" in reasons(reading)["results_1.json"]
