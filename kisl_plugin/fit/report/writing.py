"""The report folder: the page, the numbers, and the figures as PNG and PDF."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.errors import InputError
from kisl_plugin.fit.planner.sweep import sweep_of
from kisl_plugin.fit.reading.tables import write_table
from kisl_plugin.fit.report.as_json import as_json
from kisl_plugin.fit.report.assemble import Watch, in_silence
from kisl_plugin.fit.report.curves_csv import curves_csv
from kisl_plugin.fit.report.files import put, utf8
from kisl_plugin.fit.report.gathered import FitReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(report: FitReport, out: str | Path, watch: Watch = in_silence) -> list[Path]:
    """Write the report into the folder `out`, made if need be; returns the files, the page first.

    `watch` is told (what, done, total) as figures are drawn.

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = Path(out)
    with _writing(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        return _write(report, folder, watch)


def write_observations(report: FitReport, path: Path) -> Path:
    """Write the observations as CSV, which kisl-fit reads in the place of the results.

    Raises:
        InputError: the file cannot be written.
    """
    with _writing(path, "--write-table"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(report.observations, path)
    return path


def write_planned(report: FitReport, folder: Path) -> list[Path]:
    """Write the YAMLs that test the report's predictions.

    Raises:
        InputError: a prediction has no F*, or its YAMLs cannot be made or written.
    """
    from kisl_plugin.fit.planner.configs import write_configs

    sweep = sweep_of(seen.card for seen in report.observations)
    return [path for prediction in report.predictions for path in write_configs(prediction, folder, sweep)]


@contextmanager
def _writing(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another place with {option}") from None


def _write(report: FitReport, folder: Path, watch: Watch) -> list[Path]:
    from kisl_plugin.fit.report.figures.model import model_figure
    from kisl_plugin.fit.report.figures.style import rendered, save
    from kisl_plugin.fit.report.page.build import page
    from kisl_plugin.fit.report.page.models import figure_name

    drawn = _figures(report)
    svgs = {name: rendered(figure, "svg") for name, figure in drawn.items()}
    for done, found in enumerate(report.curves):
        watch("drawing figures", done, len(report.curves))
        svgs[figure_name(found)] = rendered(model_figure(found), "svg")
    watch("drawing figures", len(report.curves), len(report.curves))
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    files = [
        put(folder / "index.html", utf8(page(report, svgs))),
        put(folder / "fit.json", utf8(f"{text}\n")),
        put(folder / "curves.csv", utf8(curves_csv(report))),
        folder / "observations.csv",
    ]
    write_table(report.observations, files[-1])
    return [*files, *(path for name, figure in drawn.items() for path in save(figure, folder, name))]


def _figures(report: FitReport) -> dict[str, "Figure"]:
    from kisl_plugin.fit.report.figures.cost import cost_figure, has_cost
    from kisl_plugin.fit.report.figures.curves import curves_figure
    from kisl_plugin.fit.report.figures.law import law_figure

    figures = {"curves": curves_figure(report), "law": law_figure(report)}
    return {**figures, "cost": cost_figure(report)} if has_cost(report.curves) else figures
