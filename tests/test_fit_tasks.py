"""Several tasks of the same runs, side by side."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fit_files import TASK, rate, results, run_card, write

from kisl_plugin.cli.fit import main
from kisl_plugin.errors import InputError
from kisl_plugin.fit import FitOptions, fit_results, write_report
from kisl_plugin.fit.figures import draw_curves

DIRECT, STATEMENT = f"{TASK}_direct", f"{TASK}_statement"
F_STAR = {DIRECT: 100.0, STATEMENT: 400.0}
GRID = (0, 10, 50, 100, 200, 500, 1000, 2000)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sizes, each run probed with two tasks in one results file; the second collapses later."""
    folder = tmp_path_factory.mktemp("tasks")
    rng = np.random.default_rng(1)
    for at, params in enumerate((137_000_000, 300_000_000, 562_000_000, 1_050_000_000)):
        for F in GRID:
            card = run_card(frequency=F, model={"params": params}, triples={"source": "x", "count": 2000})
            merged: dict[str, Any] = {}
            for task, f_star in F_STAR.items():
                share = float(rate(np.array([float(F)]), f_star * 0.8**at, 0.6, 0.8, 0.25)[0]) if F else 0.25
                data = results(card, int(rng.binomial(2000, share)) / 2000, task)
                for key in ("results", "configs"):
                    merged[key] = {**merged.get(key, {}), **data[key]}
            write(folder / f"{params}_{F}" / "results_1.json", {**data, **merged, "n-samples": {}})
    return folder


def test_each_task_has_its_curves_and_the_first_has_the_laws(study: Path, tmp_path: Path) -> None:
    report = fit_results([study], [STATEMENT, DIRECT], options=FitOptions(hold_out=1.05e9))
    (other,) = report.other_tasks
    assert (report.task, other.task) == (STATEMENT, DIRECT)
    for task in (report, other):
        alone = fit_results([study], task.task)
        assert [one.curve.f_star for one in task.curves] == [one.curve.f_star for one in alone.curves]
        assert len(task.curves) == 4
    assert report.laws == fit_results([study], STATEMENT).laws
    assert report.held_out
    assert not other.held_out
    write_report(report, tmp_path)
    fit = json.loads((tmp_path / "fit.json").read_text())
    assert fit["law"]["alpha"] == report.laws[0].law.alpha  # type: ignore[union-attr]
    assert [entry["task"] for entry in fit["other_tasks"]] == [DIRECT]
    assert [c["f_star"] for c in fit["other_tasks"][0]["curves"]] == [one.curve.f_star for one in other.curves]
    with (tmp_path / "observations.csv").open(encoding="utf-8", newline="") as stream:
        tasks = [row["task"] for row in csv.DictReader(stream)]
    assert (tasks.count(STATEMENT), tasks.count(DIRECT), len(tasks)) == (32, 32, 64)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<table>") == 2 + 4  # of curves, and of the points of each model
    assert page.index(f"<h3>{STATEMENT}</h3>") < page.index(f"<h3>{DIRECT}</h3>")


def test_the_figure_has_a_column_for_each_task(study: Path) -> None:
    one, two = (draw_curves(fit_results([study], tasks)) for tasks in ([DIRECT], [DIRECT, STATEMENT]))
    assert [len(figure.axes) for figure in (one, two)] == [1, 2]
    assert two.get_figwidth() == 2 * one.get_figwidth()
    assert [ax.get_title("left").split(",")[0] for ax in two.axes] == [DIRECT, STATEMENT]


def test_the_command_prints_a_table_for_each_task_and_names_the_tasks_that_it_did_not_read(
    study: Path, tmp_path: Path
) -> None:
    outcome = CliRunner().invoke(main, [str(study), "--task", f"{DIRECT},{STATEMENT}", "--out", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert re.findall(r"^Task (\S+): 32 observations, 4 curves$", outcome.output, re.MULTILINE) == [DIRECT, STATEMENT]
    assert outcome.output.count("F* (95 % interval)") == 2
    assert max(map(len, outcome.output.partition("Wrote into")[0].splitlines())) <= 80
    outcome = CliRunner().invoke(main, [str(study), "--out", str(tmp_path)])
    words = " ".join(outcome.output.split())
    assert f"No results of task {TASK}, so those of {DIRECT} are fitted." in words
    assert f"The results hold 1 more task: --task {DIRECT},{STATEMENT} shows them side by side." in words


def test_a_further_task_without_results_is_an_error_that_names_those_there_are(study: Path) -> None:
    with pytest.raises(InputError, match=rf"--task {TASK}_x: .*no results of task {TASK}_x; it holds {DIRECT}, "):
        fit_results([study], [DIRECT, f"{TASK}_x"])


def test_a_task_named_twice_is_read_once(study: Path) -> None:
    assert not fit_results([study], [DIRECT, DIRECT]).other_tasks
