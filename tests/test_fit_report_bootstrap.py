"""The bootstrap of a whole sweep, as --bootstrap gives it."""

import json
from pathlib import Path

import pytest
from fit_files import write_sweep
from fit_studies import SIZES, write_full_sweep

from kisl_plugin.errors import InputError
from kisl_plugin.fit import Asked, fit_results, write_report
from kisl_plugin.fit.predict import Target
from kisl_plugin.fit.report import FitReport

LARGE = Target(7_000_000_000, 2_600_000_000)
ASKED = Asked(bootstrap=300, predict=(LARGE,))


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> FitReport:
    folder = tmp_path_factory.mktemp("paired")
    for params, f_star in SIZES.items():
        write_full_sweep(folder / str(params), f_star, seeds=1, model={"params": params})
    return fit_results([folder], asked=ASKED)


def test_triples_are_drawn_for_all_models_at_once_where_all_have_samples(paired: FitReport) -> None:
    drawn = paired.bootstrap
    assert drawn is not None
    assert (drawn.draws, drawn.paired) == (300, True)
    fitted = {(found.params, found.tokens): found.curve for found in paired.curves if found.curve.ok}
    assert {(params, tokens) for params, tokens, _ in drawn.f_star} == set(fitted)
    for params, tokens, (low, high) in drawn.f_star:
        assert low is not None and high is not None
        assert low < fitted[params, tokens].f_star < high


def test_the_law_is_drawn_with_them_and_so_is_what_it_predicts(paired: FitReport) -> None:
    assert paired.bootstrap is not None
    (law,) = paired.bootstrap.laws
    fitted = paired.laws[0].law
    assert fitted is not None
    assert law.alpha[0] is not None and law.alpha[1] is not None
    assert law.alpha[0] < fitted.alpha < law.alpha[1]
    ((params, (low, high)),) = law.predictions
    assert params == LARGE.params
    assert low is not None and high is not None
    assert low < fitted.predict(LARGE.compute) < high
    assert law.fell > 0.9


def test_without_samples_counts_are_drawn_and_it_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path / "in", 200.0)
    report = fit_results([tmp_path / "in"], asked=ASKED)
    assert report.bootstrap is not None
    assert not report.bootstrap.paired
    assert report.bootstrap.laws == ()
    write_report(report, tmp_path / "report")
    entry = json.loads((tmp_path / "report" / "fit.json").read_text())["bootstrap"]
    assert entry["f_star"][0][2][0] < 200 < entry["f_star"][0][2][1]
    assert "each count by itself, as not all results have samples" in (tmp_path / "report" / "index.html").read_text()


def test_there_is_nothing_to_draw_without_a_collapse_point(tmp_path: Path) -> None:
    write_sweep(tmp_path, 1e6)
    assert fit_results([tmp_path], asked=ASKED).bootstrap is None


@pytest.mark.parametrize("asked", [{"bootstrap": 5}, {"bootstrap": -1}, {"hold_out": 0.0}, {"hold_out": float("nan")}])
def test_what_cannot_be_asked_is_refused_before_anything_is_fitted(asked: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Asked(**asked)
