"""--select: which runs are fitted, by their run cards."""

import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fit_files import results, run_card, write
from hypothesis import given
from hypothesis import strategies as st

from kisl_plugin.cli.fit import main
from kisl_plugin.errors import InputError
from kisl_plugin.fit import fit_results
from kisl_plugin.fit.cards import parse_selection, select_cards
from kisl_plugin.runcard import RunCard

CORPUS = "d70d317b6486458e7f35e8e5f9076b9a0d796118230878535ba1b557191da1bb"


def cards(*changes: dict[str, Any]) -> list[RunCard]:
    return [RunCard.from_dict(run_card(**change), "card") for change in changes]


def selected(text: str, *changes: dict[str, Any]) -> list[bool]:
    return select_cards(cards(*changes), parse_selection([text]))


@pytest.mark.parametrize(
    ("text", "one", "other"),
    [
        ("tokens=307200", {"tokens": 307_200}, {"tokens": 614_400}),
        ("tokens=3e5", {"tokens": 300_000}, {"tokens": 307_200}),
        ("tokens=307K", {"tokens": 307_200}, {"tokens": 306_400}),
        ("params=0.63M", {"model": {"params": 631_104}}, {"model": {"params": 636_000}}),
        ("model.params=137m", {"model": {"params": 137_400_000}}, {"model": {"params": 138_000_000}}),
        ("frequency=0,200", {"frequency": 0}, {"frequency": 100}),
        ("frequency=0,200", {"frequency": 200}, {"frequency": 20}),
        ("optimizer.lr=1e-3", {"optimizer": {"lr": 0.001}}, {"optimizer": {"lr": 0.002}}),
        ("optimizer.lr=0.001", {"optimizer": {"lr": 0.001}}, {"optimizer": None}),
        ("data.corpus=d70d317b", {"data": {"corpus": CORPUS}}, {"data": {"corpus": CORPUS[::-1]}}),
        ("spacing=even", {"spacing": "even"}, {"spacing": "evenly"}),
        ("template=[0,1]", {"template": [0, 1]}, {"template": 0}),
        ("template=7,[0,1]", {"template": [0, 1]}, {"template": 0}),
        ("triples.source=bundled", {}, {"triples": {"source": "other", "count": 400}}),
    ],
)
def test_a_value_is_that_of_the_card_as_people_write_it(text: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    every = {"frequency": 0}, {"frequency": 200}, {"template": 7}  # a value that no card has would be an error
    assert selected(text, one, other, *every)[:2] == [True, False]


def test_every_key_must_hold_and_each_by_one_of_its_values() -> None:
    grid = [{"tokens": tokens, "seed": seed} for tokens in (10, 20, 30) for seed in (1, 2)]
    chosen = select_cards(cards(*grid), {"tokens": ["10", "30"], "seed": ["2"]})
    assert [card for card, is_chosen in zip(grid, chosen, strict=True) if is_chosen] == [
        {"tokens": 10, "seed": 2},
        {"tokens": 30, "seed": 2},
    ]


@given(st.integers(1_000, 10**14), st.integers(1, 5))
def test_a_count_with_a_unit_selects_all_counts_that_round_to_it(value: int, digits: int) -> None:
    scale = 10 ** (math.floor(math.log10(value)) // 3 * 3)
    unit = {10**3: "K", 10**6: "M", 10**9: "B", 10**12: "T"}[scale]
    decimals = max(0, digits - 1 - math.floor(math.log10(value / scale)))
    written = f"{value / scale:.{decimals}f}"
    half = scale // 10**decimals // 2
    far = [{"tokens": value + 3 * half + 2}, {"tokens": max(1, value - 3 * half - 2)}]
    assert selected(f"tokens={written}{unit}", {"tokens": value}, *far) == [True, False, False]
    assert selected(f"tokens={value}", {"tokens": value}, {"tokens": value + 1}) == [True, False]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["token=1"], "--select token=1: no run card has token; did you mean tokens?"),
        (["colour=red"], "no run card has colour; their keys are created, engine, form, frequency, iteration, "),
        (["tokens=5"], "--select tokens=5: no run card has this value; tokens is 10, 20$"),
        (["tokens=10,5"], "--select tokens=5: no run card has this value"),
        (["form=question"], "form is statement"),
        (["tokens=10", "seed=2"], "--select tokens=10 seed=2: no run card has all of these together"),
        (["tokens"], "--select 'tokens': expected KEY=VALUE"),
        (["tokens=10,"], "expected KEY=VALUE"),
        (["=10"], "expected KEY=VALUE"),
        (["seed=1", "seed=2"], "--select seed is given twice; give its values in one: --select seed=1,2"),
    ],
)
def test_a_selection_of_nothing_says_what_there_is(texts: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says.replace("?", r"\?").replace("[", r"\[")):
        select_cards(cards({"tokens": 10}, {"tokens": 20, "seed": 2}), parse_selection(texts))


def test_only_the_selected_runs_are_fitted_and_the_others_are_counted(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for F in (0, 10, 100):
            write(tmp_path / f"{seed}_{F}" / "results_1.json", results(run_card(seed=seed, frequency=F)))
    write(tmp_path / "broken" / "results_1.json", results(None))
    report = fit_results([tmp_path], select={"seed": ["1", "3"], "frequency": ["0", "10"]})
    assert {(one.card.seed, one.frequency) for one in report.observations} == {(1, 0), (1, 10), (3, 0), (3, 10)}
    assert len(report.set_aside) == 1  # those left out are not listed
    options = ["--select", "seed=1,3", "--select", "frequency=0,10", "--out", str(tmp_path / "report")]
    outcome = CliRunner().invoke(main, [str(tmp_path), *options])
    assert outcome.exit_code == 0, outcome.output
    assert "--select seed=1,3 frequency=0,10: 5 of 9 results files left out." in outcome.output
    wrong = CliRunner().invoke(main, [str(tmp_path), "--select", "sed=1"])
    assert (wrong.exit_code, wrong.output.splitlines()[-1]) == (
        2,
        "Error: --select sed=1: no run card has sed; did you mean seed?",
    )


def test_a_selection_can_settle_which_of_two_contradictory_results_is_meant(tmp_path: Path) -> None:
    for run_id, acc in (("a", 0.5), ("b", 0.6)):
        write(tmp_path / run_id / "results_1.json", results(run_card(run_id=run_id), acc))
    assert not fit_results([tmp_path]).observations
    (one,) = fit_results([tmp_path], select={"run_id": ["b"]}).observations
    assert one.accuracy == 0.6
