"""The study's tables and figures, from the results in this repository: docs/study/tables.md and docs/study/*.png.

python studies/prepare.py     # the data, from which the names of the runs are made
python studies/report.py
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy import stats

from kisl_plugin.demo import QUESTION, STATEMENT
from kisl_plugin.fit import CollapseCurve, FitReport, fit_collapse_curve, fit_results
from kisl_plugin.fit.text import count
from kisl_plugin.sweep import read_sweep

mpl.use("Agg")
import matplotlib.pyplot as plt

STUDIES = Path(__file__).resolve().parent
CORE, ARMS = STUDIES.parent / "results" / "miniature", STUDIES / "arms"
OUT = STUDIES.parent / "docs" / "study"
FORMS = {
    "question": QUESTION,
    "statement": STATEMENT,
    "paraphrase": "kisl_wikidata_paraphrase",
}
BASE = (631_104, 307_200)  # N and D of the arms' control
CHANCE = 0.25
APART = ("groups", "matched", "one_rate", "neox")  # not drawn beside the base size at one share


@dataclass(frozen=True)
class Run:
    """One run: its card, the metrics of its tasks, and what measure.py measured (empty where it did not)."""

    name: str
    card: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    measures: dict[str, float]

    @property
    def size(self) -> tuple[int, int]:
        return self.card["model"]["params"], self.card["tokens"]

    def accuracy(self, form: str = "question", metric: str = "acc") -> float:
        return float(self.metrics.get(FORMS[form], {}).get(f"{metric},none", np.nan))


def read_runs(folder: Path) -> dict[str, Run]:
    """Every run whose results are below `folder`, by name."""
    measures = {}
    if (folder / "measures.csv").is_file():
        with (folder / "measures.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                name = row.pop("run")
                measures[name] = {key: float(value) for key, value in row.items()}
    runs = {}
    for path in sorted(folder.glob("results/*/*/**/results_*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        name = path.relative_to(folder / "results").parts[0]
        card = next(iter(results["configs"].values()))["metadata"]["kisl"]
        runs[name] = Run(name, card, results["results"], measures.get(name, {}))
    return runs


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "| " + " | ".join("---" for _ in headings) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def by_frequency(runs: Iterable[Run]) -> dict[int, list[Run]]:
    groups: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.card["frequency"]].append(run)
    return dict(sorted(groups.items()))


def mean(values: Iterable[float], digits: int = 3) -> str:
    numbers = np.array([value for value in values if not np.isnan(value)])
    return f"{numbers.mean():.{digits}f}" if len(numbers) else ""


def with_error(values: Sequence[float]) -> str:
    """The mean over runs and its standard error."""
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{error}"


# ---- the core grid


def core_table(runs: Iterable[Run]) -> str:
    cells: dict[tuple[int, int], list[Run]] = defaultdict(list)
    for run in runs:
        cells[run.size[1], run.size[0]].append(run)
    rows = []
    for (tokens, params), of_cell in sorted(cells.items()):
        for frequency, group in by_frequency(of_cell).items():
            cards = [run.card for run in group]
            values = [run.accuracy() for run in group]
            rows.append(
                [
                    *(count(params), count(tokens), str(frequency), f"{cards[0]['injected_fraction']:.2f}"),
                    *(str(len(group)), with_error(values), mean(run.accuracy("question", "sum_acc") for run in group)),
                    *(mean(run.accuracy(form) for run in group) for form in ("statement", "paraphrase")),
                    mean(run.accuracy("question", "acc_control") for run in group),
                    mean(run.measures.get("background_facts", np.nan) for run in group),
                    mean((run.measures.get("questions_left", np.nan) for run in group), 1),
                    mean(run.metrics["kisl_background"]["bits_per_byte,none"] for run in group),
                ]
            )
    headings = ["N", "D", "F", "injected", "seeds", "question", "by summed log-likelihood", "statement", "paraphrase"]
    return table([*headings, "control", "other facts, asked", "questions left", "bits per byte"], rows)


def verdict(curve: CollapseCurve) -> list[str]:
    interval, p = "", [f"{value:.3f}" if value is not None else "" for value in (curve.fall_p, curve.form_p)]
    if curve.ok:
        low, high = (f"{end:.1f}" if end is not None else "open" for end in curve.f_star_interval)
        interval = f"{curve.f_star:.1f} ({low}–{high})"
    peak = f"{curve.peak:.3f}" if curve.peak is not None and np.isfinite(curve.peak) else ""
    return [curve.status, interval, peak, f"{curve.tau:.2f}" if curve.tau is not None else "", *p]


def curves_table(reports: dict[str, FitReport], summed: dict[tuple[int, int], CollapseCurve]) -> str:
    rows = []
    for form, report in reports.items():
        for one in report.curves:
            rows.append([form, count(one.params), count(one.tokens), *verdict(one.curve)])
    for (params, tokens), curve in sorted(summed.items()):
        rows.append(["question, by summed log-likelihood", count(params), count(tokens), *verdict(curve)])
    headings = ["form", "N", "D", "status", "F* (95 % interval)", "P at F*", "tau", "fall p", "form p"]
    return table(headings, rows)


def summed_curves(runs: Iterable[Run], report: FitReport) -> dict[tuple[int, int], CollapseCurve]:
    """The curves with P scored by the summed log-likelihood in place of the perplexity per token."""
    curves = {}
    for one in report.curves:
        cell = [run for run in runs if run.size == (one.params, one.tokens)]
        floors = [run.accuracy("question", "sum_acc") for run in cell if run.card["frequency"] == 0]
        injected = [run for run in cell if run.card["frequency"]]
        items = [run.metrics[FORMS["question"]]["items,none"] for run in injected]
        right = [round(run.accuracy("question", "sum_acc") * n) for run, n in zip(injected, items, strict=True)]
        floor = float(np.mean(floors))
        error = (floor * (1 - floor) / (items[0] * len(floors))) ** 0.5
        frequencies = [run.card["frequency"] for run in injected]
        curves[one.params, one.tokens] = fit_collapse_curve(
            frequencies, right, items, floor, floor_error=error, one_experiment=True
        )
    return curves


# ---- the arms


def difference(values: Sequence[float], control: Sequence[float]) -> tuple[float, float]:
    """The difference of two means over seeds, and half the width of its 95 % interval (Welch)."""
    variances = [np.var(group, ddof=1) / len(group) for group in (values, control)]
    error = sum(variances) ** 0.5
    freedom = sum(variances) ** 2 / sum(
        variance**2 / (len(group) - 1) for variance, group in zip(variances, (values, control), strict=True)
    )
    return float(np.mean(values) - np.mean(control)), float(stats.t.ppf(0.975, freedom) * error)


def arm_runs(name: str, runs: dict[str, Run]) -> list[Run]:
    """The runs of an arm that have results."""
    sweep = read_sweep(ARMS / f"{name}.yml", ARMS)
    return [runs[run.name] for run in sweep.runs if run.name in runs]


def arm_rows(name: str, of_arm: Sequence[Run], control: dict[int, list[Run]], same: dict[int, int]) -> list[list[str]]:
    """A row for each F of an arm, beside the control at the F that `same` gives (by default the same F)."""
    rows = []
    groups: dict[int, list[Run]] = defaultdict(list)
    for run in of_arm:
        frequency = run.card.get("frequency")
        groups[frequency if frequency is not None else run.card["groups"]["injected"]["frequency"]].append(run)
    for frequency, group in sorted(groups.items()):
        metric = "acc" if group[0].card.get("frequency") is not None else "acc_injected"
        values = [run.accuracy("question", metric) for run in group]
        at = same.get(frequency, frequency)
        cells = ["", ""]
        if at in control and len(group) > 1:
            of_control = [run.accuracy() for run in control[at]]
            gap, half = difference(values, of_control)
            cells = [f"{with_error(of_control)} (F = {at})", f"{gap:+.3f} ± {half:.3f}"]
        rows.append(
            [
                *(name, str(frequency), f"{group[0].card['injected_fraction']:.2f}", str(len(group))),
                *(with_error(values), *cells, mean(run.accuracy("statement", metric) for run in group)),
                mean((run.measures.get("questions_left", np.nan) for run in group), 1),
            ]
        )
    return rows


def groups_table(of_arm: Sequence[Run], control: dict[int, list[Run]]) -> str:
    rows = []
    for group, values in sorted(of_arm[0].card["groups"].items(), key=lambda item: int(item[1]["frequency"])):
        shares = [run.accuracy("question", f"acc_{group}") for run in of_arm]
        frequency = values["frequency"]
        alone = with_error([run.accuracy() for run in control[frequency]]) if frequency in control else ""
        rows.append([str(frequency), str(values["count"]), with_error(shares), alone])
    gap, half = difference(*([run.accuracy("question", f"acc_{group}") for run in of_arm] for group in ("f96", "f28")))
    headings = ["F of the group", "facts", "P, all groups in one run", "P, every fact at this F"]
    return f"{table(headings, rows)}\nFrom F = 28 to 96 within a run: {gap:+.3f} ± {half:.3f} (95 %).\n"


def same_runs(of_arm: Sequence[Run], core: Iterable[Run], form: str) -> list[list[str]]:
    """Each N and F of an arm beside the core grid's runs of that N, D, F and those seeds."""
    groups: dict[tuple[int, int], list[Run]] = defaultdict(list)
    for run in of_arm:
        groups[run.size[0], run.card["frequency"]].append(run)
    rows = []
    for (params, frequency), group in sorted(groups.items()):
        seeds = {run.card["seed"] for run in group}
        same = [run for run in core if run.size == group[0].size and run.card["frequency"] == frequency]
        values = [[run.accuracy(form) for run in runs if run.card["seed"] in seeds] for runs in (group, same)]
        rows.append([count(params), str(frequency), form, str(len(seeds)), *map(with_error, values)])
    return rows


def paired(of_arm: Sequence[Run], core: Iterable[Run]) -> str:
    """The difference to the core grid's runs of the same N, F and seed, which have the same rows, in a sentence."""
    gaps = []
    for run in of_arm:
        for one in core:
            same = one.size == run.size and all(one.card[key] == run.card[key] for key in ("frequency", "seed"))
            gaps += [run.accuracy() - one.accuracy()] * same
    test = stats.ttest_1samp(gaps, 0)
    low, high = test.confidence_interval()
    return (
        f"Paired by N, F and seed ({len(gaps)} pairs): P, asked, differs by {np.mean(gaps):+.3f} (95 % {low:+.3f} to "
        f"{high:+.3f}; p = {test.pvalue:.2f}).\n"
    )


# ---- figures


def save(name: str) -> None:
    plt.tight_layout()
    plt.savefig(OUT / f"{name}.png", dpi=110)
    plt.close()


def points(runs: Iterable[Run], accuracy: Callable[[Run], float]) -> tuple[list[int], list[float], list[float]]:
    """F, the mean over seeds, and its binomial and between-seeds standard error, whichever is larger."""
    frequencies, means, errors = [], [], []
    for frequency, group in by_frequency(runs).items():
        values = [accuracy(run) for run in group]
        share = float(np.mean(values))
        items = sum(run.metrics[FORMS["question"]]["items,none"] for run in group)
        seeds = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
        frequencies.append(frequency)
        means.append(share)
        errors.append(max(seeds, (share * (1 - share) / items) ** 0.5))
    return frequencies, means, errors


def draw_curves(axes: Any, runs: Iterable[Run], report: FitReport, size: tuple[int, int], label: str) -> None:
    """The points of one N and D, and its fitted curve where it is ok."""
    cell = [run for run in runs if run.size == size]
    form = next(name for name, task in FORMS.items() if task == report.task)
    frequencies, means, errors = points(cell, lambda run: run.accuracy(form))
    lines = axes.errorbar(np.maximum(frequencies, 1), means, errors, fmt="o", ms=4, capsize=2, label=label)
    curve = next((one.curve for one in report.curves if (one.params, one.tokens) == size), None)
    if curve is not None and curve.ok:
        grid = np.geomspace(2, max(frequencies), 200)
        axes.plot(grid, curve.rate(grid), color=lines[0].get_color(), lw=1)
        axes.axvline(curve.f_star, color=lines[0].get_color(), lw=0.8, ls=":")
    axes.axhline(CHANCE, color="0.7", lw=0.8, ls="--")
    axes.set(xscale="log", xlabel="frequency F (F = 0 at 1)", ylim=(0.15, 1.03))


def figures(core: dict[str, Run], reports: dict[str, FitReport], arms: dict[str, list[Run]]) -> None:
    runs = list(core.values())
    sizes = sorted({run.size for run in runs})
    budgets = sorted({tokens for _, tokens in sizes})
    _, panels = plt.subplots(1, len(budgets), figsize=(4.2 * len(budgets), 3.6), sharey=True, squeeze=False)
    for axes, tokens in zip(panels[0], budgets, strict=True):
        for size in sizes:
            if size[1] == tokens:
                draw_curves(axes, runs, reports["question"], size, f"N = {count(size[0])}")
        axes.set_title(f"asked as questions, D = {count(tokens)}")
        axes.legend(fontsize=8)
    panels[0, 0].set_ylabel("memorisation rate P")
    save("curves")

    _, panels = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    for axes, form in zip(panels, FORMS, strict=True):
        for size in sizes:
            if size[1] == BASE[1]:
                draw_curves(axes, runs, reports[form], size, f"N = {count(size[0])}")
        axes.set_title(form)
    panels[0].set_ylabel("memorisation rate P")
    panels[0].legend(fontsize=8)
    save("forms")

    base = [run for run in runs if run.size == BASE]
    measured = [run for run in base if run.measures]
    _, (axes, other) = plt.subplots(1, 2, figsize=(10, 3.6))
    for label, accuracy in (
        ("facts under test, asked", lambda run: run.accuracy()),
        ("the same, as statements", lambda run: run.accuracy("statement")),
        ("other facts, asked", lambda run: run.measures["background_facts"]),
    ):
        frequencies, means, _ = points(measured, accuracy)
        axes.plot(np.maximum(frequencies, 1), means, "o-", ms=4, label=label)
    axes.set(xscale="log", xlabel="frequency F (F = 0 at 1)", ylabel="accuracy", title="what falls with it")
    axes.legend(fontsize=8)
    for size in sizes:
        cell = [run for run in runs if run.size == size and run.measures and run.accuracy("statement") > 0.9]
        left = [run.measures["questions_left"] for run in cell]
        other.plot(left, [run.accuracy() for run in cell], "o", ms=4, label=f"{count(size[0])}, {count(size[1])}")
    if arms.get("protected"):
        cell = [run for run in arms["protected"] if run.measures and run.accuracy("statement", "acc_injected") > 0.9]
        left = [run.measures["questions_left"] for run in cell]
        values = [run.accuracy("question", "acc_injected") for run in cell]
        other.plot(left, values, "kx", ms=6, label="questions protected")
    other.set(xscale="symlog", xlabel="whole questions left for each other fact", ylabel="P, asked")
    other.set_title("runs that know the statements (> 0.9)")
    other.legend(fontsize=7, title="N, D", title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save("cause")

    collapse = [one for one in reports["question"].curves if one.curve.ok]
    if collapse:
        _, (axes, other) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        for tokens in budgets:
            draw_law(axes, [one for one in collapse if one.tokens == tokens], "params", f"D = {count(tokens)}")
        for params in sorted({one.params for one in collapse}):
            draw_law(other, [one for one in collapse if one.params == params], "tokens", f"N = {count(params)}")
        axes.set(xlabel="parameters N", ylabel="collapse point F*")
        other.set(xlabel="training tokens D")
        for panel, values in ((axes, {one.params for one in collapse}), (other, budgets)):
            panel.set_xticks(sorted(values), [count(value) for value in sorted(values)])
            panel.set_yticks([20, 30, 40, 60, 100], ["20", "30", "40", "60", "100"])
            panel.minorticks_off()
        save("law")

    named = {name: of_arm for name, of_arm in arms.items() if of_arm and name not in APART}
    control = by_frequency(base)
    rows = -(-len(named) // 5)
    _, panels = plt.subplots(rows, 5, figsize=(14, 2.7 * rows), sharey=True, squeeze=False)
    for axes in panels.flat[len(named) :]:
        axes.axis("off")
    for axes, (name, of_arm) in zip(panels.flat, named.items(), strict=False):
        shares = {frequency: group[0].card["injected_fraction"] for frequency, group in control.items()}
        frequencies, means, errors = points(base, lambda run: run.accuracy())
        axes.errorbar([shares[F] for F in frequencies], means, errors, fmt="o-", ms=3, color="0.6", label="control")
        groups: dict[float, list[float]] = defaultdict(list)
        for run in of_arm:
            metric = "acc" if run.card.get("frequency") is not None else "acc_injected"
            groups[run.card["injected_fraction"]].append(run.accuracy("question", metric))
        drawn = sorted(groups.items())
        errors = [float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0 for _, values in drawn]
        axes.errorbar(
            [x for x, _ in drawn], [np.mean(values) for _, values in drawn], errors, fmt="s-", ms=4, label=name
        )
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_ylim(0.15, 1.0)
    for axes in panels[:, 0]:
        axes.set_ylabel("P, asked")
    for axes in panels[-1]:
        axes.set_xlabel("share of tokens injected")
    save("arms")


def draw_law(axes: Any, curves: Sequence[Any], what: str, label: str) -> None:
    if curves:
        x = [getattr(one, what) for one in curves]
        y = np.array([one.curve.f_star for one in curves])
        ends = np.array([one.curve.f_star_interval for one in curves], float).T
        axes.errorbar(x, y, np.abs(ends - y), fmt="o-", ms=4, capsize=2, label=label)
        axes.set(xscale="log", yscale="log")
        axes.legend(fontsize=8)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    core, of_arms = read_runs(CORE), read_runs(ARMS)
    reports = {form: fit_results([CORE / "results"], task=task) for form, task in FORMS.items()}
    summed = summed_curves(core.values(), reports["question"])
    control = by_frequency(run for run in core.values() if run.size == BASE)
    arms = {file.stem: arm_runs(file.stem, of_arms) for file in sorted(ARMS.glob("*.yml"))}
    # The F of the control that takes the same share of the tokens
    share = {50: 10, 140: 28, 300: 60, 16: 10, 45: 28, 96: 60}
    rows = []
    for name, of_arm in arms.items():
        if of_arm and (name not in APART or name == "matched"):
            against = control
            if name == "matched":  # its questions are as many as the control's, its tokens as many as this one's
                against = by_frequency(run for run in core.values() if run.size == (BASE[0], 2 * BASE[1]))
            elif name == "unbalanced":
                against = by_frequency(arms["balanced"])
            rows += arm_rows(name, of_arm, against, share if name in ("few", "balanced") else {})
    headings = ["arm", "F", "injected", "seeds", "P, asked", "control", "difference (95 %)", "statement"]
    text = [
        "# Tables of the study\n\nWritten by `python studies/report.py`; see [study.md](../study.md).\n",
        "## The core grid\n\nMeans over seeds; ± is the standard error over seeds.\n",
        *(core_table(core.values()), "## Collapse curves\n", curves_table(reports, summed)),
        *("## Arms\n", table([*headings, "questions left"], rows)),
    ]
    if arms["groups"]:
        text += ["## Groups of different F in one run\n", groups_table(arms["groups"], control)]
    for name, title, headings in (
        ("neox", "GPT-NeoX beside the embedded engine", ["GPT-NeoX", "embedded engine"]),
        ("one_rate", "One learning rate, 8e-3, for all sizes", ["at 8e-3", "at 0.512 / width"]),
    ):
        if arms[name]:
            rows = [row for form in ("question", "statement") for row in same_runs(arms[name], core.values(), form)]
            text += [
                f"## {title}\n",
                table(["N", "F", "form", "seeds", *headings], rows),
                paired(arms[name], core.values()),
            ]
    (OUT / "tables.md").write_text("\n".join(text), encoding="utf-8")
    figures(core, reports, arms)
    print("\n".join(text))


if __name__ == "__main__":
    main()
